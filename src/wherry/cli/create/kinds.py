"""The kinds of values of ``run``'s flags. Every parser raises ValueError with Docker's words."""

from __future__ import annotations

from wherry.cli.grammar.values import Kind, integer, memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ULIMITS = (
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
).split()


def is_ip(text: str, version: int = 0) -> bool:
    """Whether ``text`` is an address; ``version`` 4 or 6 asks for one kind."""
    import _socket

    families = {4: (_socket.AF_INET,), 6: (_socket.AF_INET6,)}.get(
        version, (_socket.AF_INET, _socket.AF_INET6)
    )
    for family in families:
        try:
            _socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _attach(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def _address(text: str) -> str:
    if not is_ip(text.strip()):
        raise ValueError(f"IP address is not correctly formatted: {text}")
    return text.strip()


def _dns_search(text: str) -> str:
    domain = text.strip(" ").removesuffix(".") if text.strip(" ") != "." else "."
    if domain == ".":
        return "."
    parts = domain.split(".")
    allowed = all(p and p.replace("-", "").replace("_", "").isalnum() and p.isascii() for p in parts)
    if not allowed or len(domain) >= 255 or not any(c.isalpha() for c in domain):
        raise ValueError(f"{text} is not a valid domain")
    return domain


def _extra_host(text: str) -> str:
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway" and not is_ip(address):
        raise ValueError(f'invalid IP address in add-host: "{address}"')
    return f"{name}:{address}"


def _link(text: str) -> str:
    if not text:
        raise ValueError("empty string specified for links")
    if text.count(":") > 1:
        raise ValueError(f"bad format for links: {text}")
    return text


def _sysctl(text: str) -> tuple[str, str]:
    """Check that it is a namespaced sysctl; the daemon checks its value."""
    key, equals, value = text.partition("=")
    known = key in (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    )
    if not equals or not (known or key.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return key, value


def _ulimit(text: str) -> dict[str, Any]:
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    soft = integer(parts[0])
    hard = integer(parts[1]) if len(parts) == 2 and parts[1] else soft
    if hard != -1 and (soft > hard or soft == -1):
        shown = f"{soft} > {hard}"
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {shown}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def _device_cgroup_rule(text: str) -> str:
    kind, _, rest = text.partition(" ")
    numbers, _, access = rest.partition(" ")
    major, colon, minor = numbers.partition(":")
    good = (
        kind in ("a", "b", "c")
        and colon
        and all(n == "*" or n.isdecimal() for n in (major, minor))
        and 0 < len(access) <= 3
        and set(access) <= set("rwm")
    )
    if not good:
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def _device_path(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon or not path or not value:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def _throttle_bps(text: str) -> dict[str, Any]:
    path, value = _device_path(text)
    try:
        return {"Path": path, "Rate": memory(value)}
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None


def _throttle_iops(text: str) -> dict[str, Any]:
    path, value = _device_path(text)
    if not value.isdecimal():
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return {"Path": path, "Rate": int(value)}


def _weight_device(text: str) -> dict[str, Any]:
    path, value = _device_path(text)
    if not value.isdecimal() or not (int(value) == 0 or 10 <= int(value) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(value)}


def _gpus(text: str) -> dict[str, Any]:
    """One GPU request: ``all``, a count, or ``device=0,driver=…,capabilities=…,options=…`` in CSV."""
    from csv import reader

    request: dict[str, Any] = {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": None,
        "Capabilities": [["gpu"]],
        "Options": {},
    }
    seen: set[str] = set()
    for field in next(reader([text]), []):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", field
        if key in seen:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        _gpu_field(request, key, value)
    if "count" not in seen and request["DeviceIDs"] is None and request["Count"] == 0:
        request["Count"] = 1
    return request


def _gpu_field(request: dict[str, Any], key: str, value: str) -> None:
    if key == "count":
        if value == "all":
            request["Count"] = -1
        elif value.removeprefix("-").isdecimal():
            request["Count"] = int(value)
        else:
            raise ValueError(
                f'invalid count ({value}): value must be either "all" or an integer: invalid syntax'
            )
    elif key == "driver":
        request["Driver"] = value
    elif key == "device":
        request["DeviceIDs"] = value.split(",")
    elif key == "capabilities":
        request["Capabilities"] = [[*value.split(","), "gpu"]]
    elif key == "options":
        request["Options"] = dict(o.partition("=")[::2] for o in value.split(","))
    else:
        raise ValueError(f"unexpected key '{key}' in '{key}={value}'")


ATTACH = Kind("list", _attach, repeats=True)
ADDRESSES = Kind("list", _address, repeats=True)
DNS_SEARCH = Kind("list", _dns_search, repeats=True)
EXTRA_HOSTS = Kind("list", _extra_host, repeats=True)
LINKS = Kind("list", _link, repeats=True)
SYSCTLS = Kind("map", _sysctl, repeats=True)
ULIMIT = Kind("ulimit", _ulimit, repeats=True)
CGROUP_RULES = Kind("list", _device_cgroup_rule, repeats=True)
THROTTLE_BPS = Kind("list", _throttle_bps, repeats=True)
THROTTLE_IOPS = Kind("list", _throttle_iops, repeats=True)
WEIGHT_DEVICE = Kind("list", _weight_device, repeats=True)
GPUS = Kind("gpu-request", _gpus, repeats=True)
