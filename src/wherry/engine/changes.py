"""``changes`` of import and commit: Dockerfile instructions that set an image's configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from wherry.engine.normalise import check_port
from wherry.errors import InvalidArgument
from wherry.linux.signals import parse_signal
from wherry.model import typed
from wherry.model.oci import Healthcheck, ImageRunConfig

_SHELL = ("/bin/sh", "-c")
_DURATION_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def parse_changes(changes: Sequence[str], base: ImageRunConfig | None = None) -> ImageRunConfig:
    """Apply instructions to ``base`` (an empty configuration by default).

    Known: CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD SHELL STOPSIGNAL USER VOLUME WORKDIR. An
    entrypoint resets the command of ``base``, but not one among the instructions.
    :raises InvalidArgument: malformed, or another instruction, by name.
    """
    config = base or ImageRunConfig()
    commanded = False
    for change in changes:
        for line in filter(None, (part.strip() for part in change.splitlines())):
            word, _, rest = line.partition(" ")
            before, word = config, word.upper()
            config = _apply(config, word, rest.strip())
            commanded = commanded or word == "CMD"
            if word == "ENTRYPOINT" and commanded:
                config = replace(config, cmd=before.cmd)
    return config


def _apply(config: ImageRunConfig, word: str, rest: str) -> ImageRunConfig:
    if not rest:
        raise InvalidArgument(f"{word} requires at least one argument")
    if word == "CMD":
        return replace(config, cmd=_command(rest, config))
    if word == "ENTRYPOINT":
        return replace(config, entrypoint=_command(rest, config), cmd=None)
    if word == "HEALTHCHECK":
        return replace(config, healthcheck=_healthcheck(rest))
    if word == "ONBUILD":
        return replace(config, on_build=[*(config.on_build or ()), _trigger(rest)])
    if word == "SHELL":
        shell = _json_list(rest)
        if not shell:
            raise InvalidArgument('SHELL requires the arguments to be in JSON form: SHELL ["executable", …]')
        return replace(config, shell=shell)
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
        return typed.from_json(text, list[str])
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None


def _command(text: str, config: ImageRunConfig) -> list[str]:
    return _json_list(text) or [*(config.shell or _SHELL), text]


def _trigger(text: str) -> str:
    word = text.partition(" ")[0].upper()
    if word == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("FROM", "MAINTAINER"):
        raise InvalidArgument(f"{word} isn't allowed as an ONBUILD trigger")
    return text


def _healthcheck(text: str) -> Healthcheck:
    """``NONE``, or ``[--interval=… --timeout=… --start-period=… --start-interval=… --retries=…] CMD …``."""
    fields: dict[str, int] = {}
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        name, _, value = flag[2:].partition("=")
        text = text.strip()
        if name == "retries":
            if not (value.isascii() and value.isdigit() and len(value) < 10):
                raise InvalidArgument(f"--retries: {value!r} is not a number")
            fields[name] = int(value)
            continue
        if name not in ("interval", "timeout", "start-period", "start-interval"):
            raise InvalidArgument(f"Unknown flag: {name}")
        fields[name.replace("-", "_")] = _duration(name, value)
    kind, _, rest = text.partition(" ")
    if kind.upper() == "NONE":
        if rest.strip() or fields:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(test=["NONE"])
    if kind.upper() != "CMD" or not rest.strip():
        raise InvalidArgument("HEALTHCHECK needs NONE or CMD and a command")
    words = _json_list(rest.strip())
    test = ["CMD", *words] if words else ["CMD-SHELL", rest.strip()]
    return typed.from_builtins({"Test": test, **{_pascal(k): v for k, v in fields.items()}}, Healthcheck)


def _pascal(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _duration(name: str, text: str) -> int:
    """A Go duration in nanoseconds, a millisecond at least (0 is "the default")."""
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f"--{name}: {text!r} is not a duration")
    value = int(sum(float(number) * _UNITS[unit] for number, unit in parts))
    if 0 < value < 1_000_000:
        raise InvalidArgument(f"Interval {text!r} cannot be less than 1ms")
    return value


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
