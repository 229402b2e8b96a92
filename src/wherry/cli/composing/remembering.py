"""Records each ``up`` of a whole project in the project's history."""

from __future__ import annotations

from wherry.client import system
from wherry.compose import state
from wherry.compose.history import ProjectHistory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.composing.session import ComposeSession
    from wherry.compose.project import Project


def history_of(session: ComposeSession, project: str) -> ProjectHistory:
    """The history of a project on the daemon of this session."""
    with session.sessions.lend() as api:
        return ProjectHistory(str(system.info(api).get("ID") or ""), project)


def remember(session: ComposeSession, project: Project, note: str) -> None:
    """Record the project's current state. If the history cannot be written, only warn: ``up`` itself has
    succeeded."""
    try:
        with session.sessions.lend() as api:
            there = state.of_project(api, project.name)
        identities = {one.service: str(one.about.get("ImageID") or "") for one in there}
        kept = {name: identities.get(name, "") for name in project.services}
        history_of(session, project.name).record(project, kept, note=note)
    except OSError as e:
        session.warn(f"cannot write the history of the project: {e}")
