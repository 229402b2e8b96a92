"""How instructions change an image's configuration: a function from one configuration to the next."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from wherry.dockerfile import instructions as ins
from wherry.errors import InvalidArgument
from wherry.model.oci import Healthcheck, ImageRunConfig
from wherry.model.signals import parse_signal

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})(ns|us|µs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([A-Za-z]+))?", re.ASCII)
_PORTS_MAX = 65536


def environment(config: ImageRunConfig) -> dict[str, str]:
    """The variables of a configuration, in their order."""
    return dict(entry.partition("=")[::2] for entry in config.env or ())


def with_env(config: ImageRunConfig, pairs: Mapping[str, str]) -> ImageRunConfig:
    merged = environment(config) | dict(pairs)
    return replace(config, env=[f"{key}={value}" for key, value in merged.items()])


def apply(config: ImageRunConfig, instruction: ins.Instruction, *, commanded: bool) -> ImageRunConfig | None:
    """The configuration after ``instruction``, whose variables are expanded; ``None`` if it is a step.

    :param commanded: the stage itself has set a command, so a new entrypoint keeps it.
    :raises InvalidArgument: an invalid value.
    """
    match instruction:
        case ins.Env():
            return with_env(config, dict(instruction.pairs))
        case ins.Label():
            return replace(config, labels={**(config.labels or {}), **dict(instruction.pairs)})
        case ins.Cmd():
            return replace(config, cmd=command(instruction, config))
        case ins.Entrypoint():
            kept = config.cmd if commanded else None
            return replace(config, entrypoint=command(instruction, config), cmd=kept)
        case ins.Healthcheck():
            return replace(config, healthcheck=_healthcheck(instruction))
        case ins.Expose():
            return replace(
                config, exposed_ports={**(config.exposed_ports or {}), **_ports(instruction.ports)}
            )
        case ins.Volume():
            if not all(instruction.paths):
                raise InvalidArgument("VOLUME specified can not be an empty string")
            return replace(config, volumes={**(config.volumes or {}), **{p: {} for p in instruction.paths}})
        case ins.User():
            return replace(config, user=instruction.user)
        case ins.Stopsignal():
            parse_signal(instruction.signal)
            return replace(config, stop_signal=instruction.signal)
        case ins.Shell():
            return replace(config, shell=list(instruction.words))
        case ins.Onbuild():
            return replace(config, on_build=[*(config.on_build or ()), instruction.trigger])
        case ins.Arg() | ins.Maintainer():
            return config
    return None


def command(instruction: ins.CommandLine, config: ImageRunConfig) -> list[str]:
    """The words to execute; in the shell form the shell's words come first."""
    words = list(instruction.words)
    return [*(config.shell or DEFAULT_SHELL), *words] if instruction.shell else words


def workdir(config: ImageRunConfig, path: str) -> str:
    """The new working directory after WORKDIR."""
    return clean(posixpath.join(config.working_dir or "/", path))


def clean(path: str) -> str:
    """Absolute, without dots or doubled slashes."""
    return "/" + posixpath.normpath("/" + path).strip("/")


def _healthcheck(check: ins.Healthcheck) -> Healthcheck:
    if check.none:
        return Healthcheck(test=["NONE"])
    fields: dict[str, Any] = {
        name: duration(name.replace("_", "-"), getattr(check, name))
        for name in ("interval", "timeout", "start_period", "start_interval")
    }
    if check.retries:
        if not re.fullmatch(r"\d{1,9}", check.retries, re.ASCII):
            raise InvalidArgument(f"--retries: {check.retries!r} is not a number")
        fields["retries"] = int(check.retries)
    test = ["CMD-SHELL", " ".join(check.words)] if check.shell else ["CMD", *check.words]
    return Healthcheck(test=test, **fields)


def duration(name: str, text: str) -> int:
    """A Go duration in nanoseconds, ``""`` is 0. :raises InvalidArgument: not a duration, or below a
    millisecond."""
    if text in ("", "0"):
        return 0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f'--{name}: time: invalid duration "{text}"')
    value = int(sum(float(number) * _UNITS[unit] for number, unit in parts))
    if 0 < value < 1_000_000:
        raise InvalidArgument(f"Interval {text!r} cannot be less than 1ms")
    return value


def exposed(instruction: ins.Expose) -> list[str]:
    """The ports that it names, as ``80/tcp``."""
    return list(_ports(instruction.ports))


def _ports(texts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """An image cannot publish ports: for ``8080:80`` only the container's port counts, and a check warns."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        published, colon, port = text.rpartition(":")
        match = _PORT.fullmatch(port)
        protocol = (match[3] or "tcp").lower() if match else ""
        if match is None or protocol not in ("tcp", "udp", "sctp") or (colon and not _published(published)):
            raise InvalidArgument(f"invalid containerPort: {text}")
        low = int(match[1])
        high = int(match[2] or low)
        if not 0 < low <= high < _PORTS_MAX:
            raise InvalidArgument(f"invalid containerPort: {text}")
        found.update({f"{port}/{protocol}": {} for port in range(low, high + 1)})
    return found


def _published(text: str) -> bool:
    """Whether the text is ``[IP:][PORT[-PORT]]``, the part before a container's port."""
    address, _, port = text.rpartition(":")
    if port and not re.fullmatch(r"\d{1,5}(?:-\d{1,5})?", port, re.ASCII):
        return False
    try:
        return not address or bool(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        return False
