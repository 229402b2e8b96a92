"""Details of a failed build, for faces that present them in their own way."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.dockerfile.errors import ErrorLines, place_of
from wherry.engine.builds.runfailed import RunFailed


def failed_command(error: BaseException | None) -> RunFailed | None:
    """The command that exited with a status other than 0, if that caused the error."""
    return next((one for one in causes(error) if isinstance(one, RunFailed)), None)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, each once: the chain may contain a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


__all__ = ["ErrorLines", "RunFailed", "causes", "failed_command", "place_of"]
