"""Short forms that are strings: ports, volumes, commands, hosts, references. Each function returns the long
form."""

from __future__ import annotations

from wherry.compose.kinds import Several, go_text
from wherry.compose.places import FileError, Map, Place, Seq, mapping, sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MODES_OF_BINDS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")


def port(value: Any, at: Place, path: str) -> Any:
    """``[[HOST_IP:]PUBLISHED:]TARGET[/PROTOCOL]``, each number possibly a range; several ports of a range."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise FileError(at, path, 'must be a port like "8080:80", a number or a mapping')
    text = go_text(value)

    def wrong(why: str) -> FileError:
        return FileError(at, path, f'is no port: "{text}": {why}; write [[IP:]PUBLISHED:]TARGET[/PROTOCOL]')

    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise wrong(f"invalid proto: {protocol}")
    head, colon, target = rest.rpartition(":")
    host, _, published = head.rpartition(":")
    if colon and head.endswith("]"):
        raise wrong("the published port is missing")
    host = host.removeprefix("[").removesuffix("]")
    first, last = _range(target, wrong, "containerPort")
    if not target:
        raise wrong("no port specified")
    if host and not _is_address(host):
        raise wrong(f"invalid IP address: {host}")
    low, high = _range(published, wrong, "hostPort") if published else (0, 0)
    if published and high - low != last - first and first != last:
        raise wrong(f"invalid ranges specified for container and host Ports: {target} and {published}")
    made = Several()
    for index in range(last - first + 1):
        one: dict[str, Any] = {"mode": "ingress"}
        if host:
            one["host_ip"] = host
        one["target"] = first + index
        if published:
            several = first == last and low != high
            one["published"] = published if several else str(low + index)
        one["protocol"] = protocol
        made.append(mapping(one, at))
    return made


def _range(text: str, wrong: Any, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal() and first.isascii() and last.isascii()):
        raise wrong(f"invalid {what}: {text}")
    low, high = int(first), int(last)
    if low > high or high > 65535 or high - low > 65535:
        raise wrong(f"invalid {what}: {text}")
    return low, high


def _is_address(text: str) -> bool:
    from ipaddress import ip_address

    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def volume(value: Any, at: Place, path: str) -> Any:
    """``[SOURCE:]TARGET[:OPTIONS]``; a source that is a path is a bind, else a volume's name."""
    if not isinstance(value, str):
        raise FileError(at, path, 'must be a volume like "data:/var/lib/data" or a mapping')
    if not value:
        raise FileError(at, path, "is not a volume: empty; write [SOURCE:]TARGET[:OPTIONS]")
    fields = _fields(value)
    if len(fields) > 3 or not all(fields):
        why = "too many colons" if len(fields) > 3 else "empty section between colons"
        raise FileError(at, path, f'is not a volume: "{value}": {why}; write [SOURCE:]TARGET[:OPTIONS]')
    if len(fields) == 1:
        return mapping({"type": "volume", "target": fields[0], "volume": Map(at)}, at)
    source, target = fields[0], fields[1]
    is_path = source.startswith((".", "/", "~")) or _is_drive(source)
    made: dict[str, Any] = {"type": "bind" if is_path else "volume", "source": source, "target": target}
    inner: dict[str, Any] = {}
    for option in fields[2].split(",") if len(fields) == 3 else ():
        if option in ("ro", "rw"):
            if option == "ro":
                made["read_only"] = True
        elif option == "nocopy":
            if not is_path:
                inner["nocopy"] = True
        elif option in ("z", "Z"):
            if is_path:
                inner["selinux"] = option
        elif option in _MODES_OF_BINDS and is_path:
            inner["propagation"] = option
    if is_path:
        inner["create_host_path"] = True
    made[made["type"]] = mapping(inner, at)
    return mapping(made, at)


def _is_drive(source: str) -> bool:
    """Whether it begins with a drive, as in ``C:\\data``; Docker's plugin takes any name of one letter for a
    drive."""
    return len(source) > 1 and source[0].isalpha() and source[1] == ":"


def _fields(text: str) -> list[str]:
    """Split at colons, except the one after a drive's letter."""
    fields = [""]
    for character in text:
        lone = len(fields[-1]) == 1 and fields[-1].isascii() and fields[-1].isalpha()
        if character == ":" and not lone:
            fields.append("")
        else:
            fields[-1] += character
    return fields


def words(text: str) -> list[str]:
    """Split a command line as a shell does, without other shell features.

    :raises ValueError: a quote is not closed.
    """
    found: list[str] = []
    word: str | None = None
    quote = ""
    escaped = False
    for character in text:
        if escaped:
            keep = "" if quote != '"' or character in '"\\$`\n' else "\\"
            word, escaped = (word or "") + keep + character, False
        elif character == "\\" and quote != "'":
            word, escaped = word or "", True
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = (word or "") + character
        elif character in "'\"":
            word, quote = word or "", character
        elif character in " \t\r\n":
            if word is not None:
                found.append(word)
            word = None
        else:
            word = (word or "") + character
    if quote or escaped:
        raise ValueError("a quote is not closed" if quote else "it ends with a backslash")
    if word is not None:
        found.append(word)
    return found


def source(value: Any, at: Place, path: str) -> Any:
    """A secret or config by its name."""
    if not isinstance(value, str):
        raise FileError(at, path, "must be a name or a mapping")
    return mapping({"source": value}, at)


def device(value: Any, at: Place, path: str) -> Any:
    """``HOST[:CONTAINER[:PERMISSIONS]]``"""
    if not isinstance(value, str):
        raise FileError(at, path, 'must be a device like "/dev/ttyUSB0:/dev/tty:rw" or a mapping')
    parts = value.split(":")
    if len(parts) > 3:
        raise FileError(at, path, f'is not a device: "{value}": write HOST[:CONTAINER[:PERMISSIONS]]')
    target, permissions = parts[0], "rwm"
    if len(parts) == 3:
        target, permissions = parts[1], parts[2]
    elif len(parts) == 2 and set(parts[1]) <= set("rwm"):
        permissions = parts[1]
    elif len(parts) == 2:
        target = parts[1]
    return mapping({"source": parts[0], "target": target, "permissions": permissions}, at)


def build(value: Any, at: Place, path: str) -> Any:
    if not isinstance(value, str):
        raise FileError(at, path, "must be the path of a context or a mapping")
    return mapping({"context": value}, at)


def extends(value: Any, at: Place, path: str) -> Any:
    if not isinstance(value, str):
        raise FileError(at, path, "must be a service's name or a mapping")
    return mapping({"service": value}, at)


def env_file(value: Any, at: Place, path: str) -> Any:
    if not isinstance(value, str):
        raise FileError(at, path, "must be a path or a mapping")
    return mapping({"path": value, "required": True}, at)


def ulimit(value: Any, at: Place, path: str) -> Any:
    from wherry.compose.scalars import integer

    try:
        return mapping({"single": integer(value)}, at)
    except ValueError:
        raise FileError(at, path, "must be a whole number or a mapping of soft and hard") from None


def external(value: Any, at: Place, path: str) -> Any:
    from wherry.compose.scalars import boolean

    if isinstance(value, Map):
        return value
    try:
        return boolean(value)
    except ValueError:
        raise FileError(at, path, "must be true or false") from None


def names(default: Any) -> Any:
    """A list of names as a mapping of names to ``default()``; also one name as a string."""

    def convert(value: Any, at: Place, path: str) -> Any:
        if not isinstance(value, Seq):
            raise FileError(at, path, "must be a list of names or a mapping")
        made = Map(value.at)
        made.override = value.override
        for index, name in enumerate(value):
            if not isinstance(name, str):
                raise FileError(value.place(index), f"{path}[{index}]", "must be a name")
            made.put(name, default(value.place(index)), value.place(index))
        return made

    return convert


def gpus(value: Any, at: Place, path: str) -> Any:
    if value == "all":
        return sequence([mapping({"count": -1}, at)], at)
    if not isinstance(value, Seq):
        raise FileError(at, path, 'must be "all" or a list')
    return value
