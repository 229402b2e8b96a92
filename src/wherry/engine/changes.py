"""``changes`` of import and commit: Dockerfile instructions that set an image's configuration."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from wherry.engine.normalise import check_port
from wherry.errors import InvalidArgument
from wherry.linux.signals import parse_signal
from wherry.model.oci import ImageRunConfig


def parse_changes(changes: Sequence[str], base: ImageRunConfig | None = None) -> ImageRunConfig:
    """Apply instructions to ``base`` (an empty configuration by default).

    Known: CMD ENTRYPOINT ENV EXPOSE LABEL STOPSIGNAL USER VOLUME WORKDIR, as Docker's import takes them
    but HEALTHCHECK and ONBUILD.
    :raises InvalidArgument: malformed, or another instruction, by name.
    """
    config = base or ImageRunConfig()
    for change in changes:
        for line in filter(None, (part.strip() for part in change.splitlines())):
            word, _, rest = line.partition(" ")
            config = _apply(config, word.upper(), rest.strip())
    return config


def _apply(config: ImageRunConfig, word: str, rest: str) -> ImageRunConfig:
    if not rest:
        raise InvalidArgument(f"{word} requires at least one argument")
    if word == "CMD":
        return replace(config, cmd=_command(rest))
    if word == "ENTRYPOINT":
        return replace(config, entrypoint=_command(rest), cmd=None)
    if word == "ENV":
        env = list(config.env or ())
        for key, value in _pairs(rest):
            env = [e for e in env if e.partition("=")[0] != key] + [f"{key}={value}"]
        return replace(config, env=env)
    if word == "LABEL":
        return replace(config, labels={**(config.labels or {}), **dict(_pairs(rest))})
    if word == "EXPOSE":
        ports: dict[str, dict[str, object]] = {}
        for text in rest.split():
            low, high, protocol = check_port(text)
            ports.update({f"{port}/{protocol}": {} for port in range(low, high + 1)})
        return replace(config, exposed_ports={**(config.exposed_ports or {}), **ports})
    if word == "VOLUME":
        paths = _json_list(rest) or rest.split()
        return replace(config, volumes={**(config.volumes or {}), **{path: {} for path in paths}})
    if word == "USER":
        return replace(config, user=rest)
    if word == "WORKDIR":
        return replace(config, working_dir=rest)
    if word == "STOPSIGNAL":
        parse_signal(rest)
        return replace(config, stop_signal=rest)
    raise InvalidArgument(f"{word} is not a valid change command")


def _json_list(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None


def _command(text: str) -> list[str]:
    return _json_list(text) or ["/bin/sh", "-c", text]


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise InvalidArgument(f"cannot parse {text!r}: {e}") from e
    if "=" not in words[0]:
        # The older form: one key, and the rest of the line as its value.
        return [(words[0], " ".join(words[1:]))]
    pairs = [word.partition("=") for word in words]
    for key, equals, _value in pairs:
        if not equals or not key:
            raise InvalidArgument(f"cannot parse {text!r}: expected key=value")
    return [(key, value) for key, _, value in pairs]
