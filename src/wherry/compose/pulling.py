"""The images of services: use local ones, pull or build."""

from __future__ import annotations

from wherry.client import credentials, images
from wherry.compose.places import ComposeError
from wherry.compose.project import image_of
from wherry.errors import NotFound, WherryError
from wherry.model import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from wherry.client.api import Api
    from wherry.compose.project import Project
    from wherry.compose.reporting import ProjectReporter
    from wherry.compose.work import DaemonSessions

    Object = dict[str, Any]

POLICIES = ("always", "missing", "never", "build", "if_not_present", "daily", "weekly")


class ProjectImages:
    """How images are obtained. ``policy`` of the command line overrides the services' own.

    ``build`` builds the images of the given services; None: building is not allowed.
    """

    def __init__(
        self,
        *,
        policy: str = "",
        build: Callable[[list[str]], None] | None = None,
        force_build: bool = False,
        quiet: bool = False,
        config_dir: str = "",
    ) -> None:
        self.policy, self.build, self.force_build = policy, build, force_build
        self.quiet, self.config_dir = quiet, config_dir


def local(api: Api, image: str) -> Object | None:
    try:
        return images.inspect(api, image)
    except NotFound:
        return None


def policy_of(service: Any, given: str) -> str:
    """:raises ComposeError: an unknown policy."""
    policy = given if given and given != "policy" else str(service.get("pull_policy") or "")
    if policy and policy not in POLICIES and not policy.startswith(("every_", "refresh")):
        raise ComposeError(f'unknown pull policy "{policy}": one of {", ".join(POLICIES)}')
    return "missing" if policy == "if_not_present" else policy


def ensure(
    sessions: DaemonSessions,
    project: Project,
    names: Iterable[str],
    how: ProjectImages,
    report: ProjectReporter,
    *,
    dry_run: bool,
) -> dict[str, str]:
    """Make sure that the images of these services exist. :returns: their ids by the services' names.

    :raises WherryError: one cannot be pulled or built; the text names the service.
    """
    wanted = [name for name in names if not project.services[name].get("provider")]
    held = _look(sessions, project, wanted)
    to_build, to_pull = [], []
    for name in wanted:
        service = project.services[name]
        choice = _choice(service, policy_of(service, how.policy), held[name], how)
        if choice == "build":
            to_build.append(name)
        elif choice == "pull":
            to_pull.append(name)
    if to_pull:
        failed = pull(sessions, project, to_pull, report, config_dir=how.config_dir, dry_run=dry_run)
        for name, error in failed.items():
            if not project.services[name].get("build") or how.build is None:
                raise error
            to_build.append(name)
    if to_build:
        if how.build is None:
            raise ComposeError(
                f"service {to_build[0]}: image {image_of(project, to_build[0])} is missing, and --no-build"
            )
        how.build(to_build)
    changed = [name for name in wanted if name in to_build or name in to_pull]
    if not dry_run:
        held |= _look(sessions, project, changed)
    return {name: str((held[name] or {}).get("Id") or "") for name in wanted}


def _look(sessions: DaemonSessions, project: Project, names: Iterable[str]) -> dict[str, Object | None]:
    """The local images of the services; each image is inspected once."""
    from wherry.compose.work import run_all

    by_name = {name: image_of(project, name) for name in names}
    images_ = list(dict.fromkeys(by_name.values()))

    def look(image: str) -> Callable[[Api], Object | None]:
        return lambda api: local(api, image)

    found = dict(zip(images_, run_all(sessions, [look(image) for image in images_]), strict=True))
    return {name: found[image] for name, image in by_name.items()}


def _choice(service: Any, policy: str, held: Object | None, how: ProjectImages) -> str:
    """``build``, ``pull``, or nothing."""
    if service.get("build") and (how.force_build or policy == "build"):
        return "build" if how.build is not None else ""
    if policy == "always":
        return "pull" if service.get("image") else ("build" if held is None else "")
    if policy == "refresh" and service.get("pull_refresh_after"):
        policy = f"every_{service['pull_refresh_after']}"
    if policy in ("daily", "weekly") or policy.startswith("every_"):
        if held is None or _older(held, policy):
            return "pull"
        return ""
    if held is not None:
        return ""
    if policy == "never":
        raise ComposeError(f"No such image: {service.get('image') or 'of a build'}; its pull policy is never")
    if service.get("build") and how.build is not None:
        return "build"
    return "pull"


def _older(held: Object, policy: str) -> bool:
    """Whether an image was fetched longer ago than the policy allows."""
    from datetime import UTC, datetime

    from wherry.compose.scalars import duration

    spans = {"daily": "1d", "weekly": "1w"}
    try:
        span = duration(spans.get(policy, policy.removeprefix("every_")))
    except ValueError:
        raise ComposeError(f'unknown pull policy "{policy}": write every_12h') from None
    text = str((held.get("Metadata") or {}).get("LastTagTime") or held.get("Created") or "")
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return True
    return (datetime.now(UTC) - then).total_seconds() * 10**9 > span


def pull(
    sessions: DaemonSessions,
    project: Project,
    names: Iterable[str],
    report: ProjectReporter,
    *,
    config_dir: str,
    dry_run: bool,
) -> dict[str, WherryError]:
    """Pull the images of services in parallel, each image once. :returns: the errors, by service."""
    from wherry.compose.work import run_all

    by_image: dict[tuple[str, str], list[str]] = {}
    for name in names:
        service = project.services[name]
        by_image.setdefault((image_of(project, name), service.get("platform") or ""), []).append(name)

    def one(image: str, platform: str, services: list[str]) -> Callable[[Api], WherryError | None]:
        def work(api: Api) -> WherryError | None:
            return _pull(api, image, platform, services, report, config_dir=config_dir, dry_run=dry_run)

        return work

    results = run_all(sessions, [one(i, p, s) for (i, p), s in by_image.items()])
    failed: dict[str, WherryError] = {}
    for (_key, services), error in zip(by_image.items(), results, strict=True):
        if error is not None:
            failed.update(dict.fromkeys(services, error))
    return failed


def _pull(
    api: Api,
    image: str,
    platform: str,
    services: list[str],
    report: ProjectReporter,
    *,
    config_dir: str,
    dry_run: bool,
) -> WherryError | None:
    for name in services:
        report.say(name, "Pulling")
    try:
        if not dry_run:
            wanted = reference.parse(image).with_default_tag()
            messages = images.pull(
                api,
                wanted.familiar_name,
                wanted.digest or wanted.tag or "",
                platform=platform,
                headers=credentials.header_for(config_dir, image),
            )
            _follow(messages, services[0], report)
    except WherryError as e:
        for name in services:
            report.say(name, "Error", e.message)
        return type(e)(f"service {services[0]}: {e.message}")
    for name in services:
        report.say(name, "Pulled")
    return None


def _follow(messages: Iterable[Object], name: str, report: ProjectReporter) -> None:
    layers: dict[str, tuple[int, int]] = {}
    shown = ""
    try:
        for message in messages:
            if message.get("error"):
                raise ComposeError(str(message["error"]))
            detail = message.get("progressDetail") or {}
            if message.get("id") and detail.get("total"):
                layers[str(message["id"])] = (int(detail.get("current") or 0), int(detail["total"]))
                current, total = (sum(one[part] for one in layers.values()) for part in (0, 1))
                text = f"{current * 100 // max(total, 1)}%"
                if text != shown:
                    shown = text
                    report.say(name, "Pulling", text)
    except ValueError as e:
        raise ComposeError(f"cannot read the daemon's answer: {e}") from e
