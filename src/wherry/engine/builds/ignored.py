"""Files of a context that are hidden from its steps."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.model.ignore import Patterns, read
from wherry.storage.contexts import BuildContext


@dataclass(frozen=True)
class Ignored:
    """``text``: the ``.dockerignore``, ``None`` without one; ``hidden``: the paths that COPY must not see."""

    text: bytes | None = None
    hidden: tuple[str, ...] = ()


def ignored_of(context: BuildContext, name: str) -> Ignored:
    """What a context's ``.dockerignore`` hides. Clients leave out all that it names except the Dockerfile
    ``name`` and ``.dockerignore``, which they always send."""
    for ignore in (f"{name}.dockerignore", ".dockerignore"):
        data = context.read(ignore)
        if data is not None:
            patterns = Patterns(read(data.decode("utf-8", "surrogateescape")))
            sent = [one for one in (name, ".dockerignore", ignore) if patterns.excluded(one)]
            return Ignored(data, context.with_ignored_parents(sent, patterns))
    return Ignored()
