"""``changes`` of import and commit: the Dockerfile's instructions that set an image's configuration.
Most requests have none, so the language is imported with the first that has some."""

from __future__ import annotations

from collections.abc import Sequence

from wherry.errors import InvalidArgument
from wherry.model.oci import ImageRunConfig


def parse_changes(changes: Sequence[str], base: ImageRunConfig | None = None) -> ImageRunConfig:
    """Apply instructions to ``base`` (an empty configuration by default), as a build would. Variables are
    those of the configuration at that point. An entrypoint clears the command of ``base``, but not a command
    that is set by one of the instructions.

    :raises InvalidArgument: a malformed instruction, or one that is not allowed here (the text names it).
    """
    config = base or ImageRunConfig()
    if not changes:
        return config
    if not any(text.strip() for text in changes):
        raise InvalidArgument("file with no instructions")
    from wherry.engine.images.changing import apply_changes

    return apply_changes(changes, config)
