"""Convert the flags of ``wherry build``: to the daemon's query, secrets, outputs, caches."""

from __future__ import annotations

import os

from wherry.cli.command import Failure
from wherry.client import jsonwire
from wherry.client.files import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.cli.grammar.flags import Options

    Query = dict[str, Any]

_GIT = ("git://", "git@", "ssh://")
_SECRET_MAX = 500 << 10


def fields(text: str, what: str) -> dict[str, str]:
    """``type=local,dest=out`` as a mapping. :raises Failure: malformed."""
    import csv

    found: dict[str, str] = {}
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as e:
        raise Failure(f"ERROR: invalid value {text} for {what}: {e}") from None
    for part in rows[0] if rows else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise Failure(f"ERROR: invalid value {part} for {what}: must be a key=value pair")
        found[key.strip().lower()] = value
    return found


def environment_pairs(texts: list[str]) -> dict[str, str]:
    """``--build-arg NAME=value``; ``NAME`` alone gets the value of this client's environment, if there is
    one."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if equals:
            found[key] = value
        elif key in os.environ:
            found[key] = os.environ[key]
    return found


def proxies(config: Mapping[str, Any]) -> dict[str, str]:
    """``proxies.default`` of config.json, as build arguments."""
    default = (config.get("proxies") or {}).get("default") or {}
    names = {"httpProxy": "HTTP_PROXY", "httpsProxy": "HTTPS_PROXY", "ftpProxy": "FTP_PROXY"}
    names |= {"noProxy": "NO_PROXY", "allProxy": "ALL_PROXY"}
    found: dict[str, str] = {}
    for key, name in names.items():
        if isinstance(default, dict) and default.get(key):
            found[name] = found[name.lower()] = str(default[key])
    return found


def secrets(texts: list[str]) -> dict[str, bytes]:
    """``id=NAME[,src=FILE|env=VARIABLE]``. :raises Failure: the file or variable does not exist, or is too
    large."""
    found: dict[str, bytes] = {}
    for text in texts:
        given = fields(text if "=" in text else f"id={text}", "secret")
        unknown = set(given) - {"id", "src", "source", "env", "type"}
        if unknown:
            raise Failure(f"ERROR: unexpected key '{min(unknown)}' in '{text}'")
        name = given.get("id") or os.path.basename(given.get("src") or given.get("source") or "")
        if not name:
            raise Failure(f"ERROR: secret {text!r} has no id")
        kind = given.get("type") or ("env" if "env" in given else "file")
        source = given.get("src") or given.get("source") or ""
        variable = given.get("env") or (source if kind == "env" else "") or name
        if kind == "env" or (not source and variable in os.environ):
            if variable not in os.environ:
                raise Failure(f"ERROR: secret {name}: environment variable {variable} is not set")
            found[name] = os.environb[os.fsencode(variable)]
            continue
        path = source or name
        try:
            found[name] = read_file(path, most=_SECRET_MAX + 1)
        except OSError as e:
            raise Failure(f"ERROR: failed to read secret {name}: open {path}: {e.strerror}") from None
        if len(found[name]) > _SECRET_MAX:
            raise Failure(f"ERROR: invalid secret {name}: more than {_SECRET_MAX} bytes")
    return found


def agents(texts: list[str]) -> dict[str, str]:
    """``--ssh default|ID[=SOCKET]``: sockets of agents by id. :raises Failure: there is no such socket."""
    import stat

    found: dict[str, str] = {}
    for text in texts:
        name, _, path = text.partition("=")
        path = path or os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise Failure(f"ERROR: invalid empty ssh agent socket for {name}: is SSH_AUTH_SOCK set?")
        try:
            kind = os.stat(path).st_mode
        except OSError as e:
            raise Failure(f"ERROR: cannot use ssh agent {name}: {path}: {e.strerror}") from None
        if not stat.S_ISSOCK(kind):
            raise Failure(
                f"ERROR: {path} is no agent's socket: add keys to an agent (ssh-add), and name that"
            )
        found[name or "default"] = os.path.realpath(path)
    return found


def outputs(options: Options) -> list[dict[str, str]]:
    """``--output``, ``--push`` and ``--load`` as attributes, ``type`` among them, ``dest`` kept for us."""
    found: list[dict[str, str]] = []
    for text in options.many("output"):
        if "=" not in text:
            found.append({"type": "tar", "dest": "-"} if text == "-" else {"type": "local", "dest": text})
        else:
            found.append(fields(text, "output"))
    for one in found:
        kind = one.get("type", "")
        if not kind:
            raise Failure("ERROR: type is required for output")
        if kind == "local" and not one.get("dest"):
            raise Failure("ERROR: dest is required for local output")
        if kind in ("tar", "oci") and not one.get("dest"):
            one["dest"] = "-"
        if kind == "docker" and not one.get("dest"):
            one["type"] = "image"
    if options.on("push"):
        images = [one for one in found if one["type"] in ("image", "registry")]
        if not images:
            images = [{"type": "image"}]
            found += images
        for one in images:
            one["push"] = "true"
    if options.on("load") and not any(one["type"] == "image" for one in found):
        found.append({"type": "image"})
    return found


def contexts(texts: list[str]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """``--build-context NAME=VALUE``: the parameters for the daemon, and the directories to send."""
    told: dict[str, dict[str, str]] = {}
    local: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise Failure(f"ERROR: invalid value {text!r} for build-context: must be name=value")
        name = name.lower()
        if value.startswith("docker-image://"):
            told[name] = {"kind": "image", "value": value.removeprefix("docker-image://")}
        elif value.startswith("target:"):
            told[name] = {"kind": "target", "value": value.removeprefix("target:")}
        elif value.startswith("oci-layout://"):
            directory, digest = _layout(name, value.removeprefix("oci-layout://"))
            told[name] = {"kind": "image", "value": f"oci-layout://{name}@{digest}"}
            local[f"layout:{name}"] = directory
        elif is_git(value):
            told[name] = {"kind": "git", "value": value}
        elif value.startswith(("http://", "https://")):
            told[name] = {"kind": "http", "value": value}
        else:
            if not os.path.isdir(value):
                raise Failure(f"ERROR: failed to get build context {name}: {value} is not a directory")
            told[name], local[name] = {"kind": "local", "value": ""}, value
    return told, local


def _layout(name: str, text: str) -> tuple[str, str]:
    """The directory of ``DIRECTORY[:TAG][@DIGEST]``, and the digest in the layout's index."""
    from wherry.client import jsonwire
    from wherry.client.files import read_file

    rest, _, digest = text.partition("@")
    directory, colon, tag = rest.rpartition(":") if "/" not in rest.rpartition(":")[2] else (rest, "", "")
    if not colon:
        directory, tag = rest, "latest"
    path = os.path.join(directory, "index.json")
    try:
        entries = jsonwire.loads(read_file(path))["manifests"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Failure(f"ERROR: build context {name}: cannot read {path}: {e}") from e
    if digest:
        return directory, digest
    tags = [
        (entry.get("annotations") or {}).get("org.opencontainers.image.ref.name", "") for entry in entries
    ]
    if len(entries) == 1 and (not colon or tags[0] == tag):
        return directory, str(entries[0]["digest"])
    found = [entry for entry, known in zip(entries, tags, strict=True) if known == tag]
    if len(found) != 1:
        raise Failure(f"ERROR: build context {name}: {directory} has no image with the tag {tag}")
    return directory, str(found[0]["digest"])


def is_git(text: str) -> bool:
    if text.startswith(_GIT):
        return True
    return text.startswith(("http://", "https://")) and text.partition("#")[0].endswith(".git")


def caches(texts: list[str], what: str) -> list[dict[str, str]]:
    """``--cache-from`` and ``--cache-to``; a lone word is an image."""
    found = []
    for text in texts:
        one = fields(text, what) if "=" in text else {"type": "registry", "ref": text}
        if "type" not in one:
            raise Failure(f"ERROR: type required form> {text!r} for {what}")
        if one["type"] == "local":
            key = "src" if what == "cache-from" else "dest"
            if not one.get(key):
                raise Failure(f"ERROR: {key} is required for {what} of type local")
        found.append(one)
    return found


def attestations(options: Options) -> dict[str, str]:
    """``--provenance``, ``--sbom`` and ``--attest`` by kind; ``false`` switches one off."""
    found: dict[str, str] = {}
    for text in options.many("attest"):
        given = fields(text, "attest")
        kind = given.pop("type", "")
        if kind not in ("provenance", "sbom"):
            raise Failure(f"ERROR: unsupported attestation type: {kind!r}")
        disabled = given.pop("disabled", "false") == "true"
        found[kind] = "false" if disabled else ",".join(f"{k}={v}" for k, v in given.items()) or "true"
    for kind in ("provenance", "sbom"):
        if options.given(kind):
            found[kind] = options.text(kind) or "true"
    return {kind: value for kind, value in found.items() if value != "false"}


def resources(options: Options) -> Query:
    """The limits of RUN, including ``--resource``."""
    query: Query = {
        "memory": options.number("memory") or None,
        "memswap": options.number("memory-swap") or None,
        "cpushares": options.number("cpu-shares") or None,
        "cpuperiod": options.number("cpu-period") or None,
        "cpuquota": options.number("cpu-quota") or None,
        "cpusetcpus": options.text("cpuset-cpus") or None,
        "cpusetmems": options.text("cpuset-mems") or None,
        "shmsize": options.number("shm-size") or None,
        "cgroupparent": options.text("cgroup-parent") or None,
        "isolation": options.text("isolation") or None,
    }
    for text in options.many("resource"):
        for key, value in fields(text, "resource").items():
            _resource(query, key, value)
    limits = options.many("ulimit")
    if limits:
        query["ulimits"] = jsonwire.dumps([_ulimit(text) for text in limits])
    security = options.many("security-opt")
    if security:
        query["securityopt"] = jsonwire.dumps(security)
    return query


def _resource(query: Query, key: str, value: str) -> None:
    from wherry.cli.grammar.values import memory, nano_cpus

    try:
        if key == "memory":
            query["memory"] = memory(value)
        elif key in ("cpu", "cpus"):
            query["cpuperiod"], query["cpuquota"] = 100_000, nano_cpus(value) // 10_000
        else:
            raise Failure(f"ERROR: unknown resource {key!r}: known are memory and cpu")
    except ValueError as e:
        raise Failure(f"ERROR: invalid resource {key}={value}: {e}") from None


def _ulimit(text: str) -> dict[str, Any]:
    name, _, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard) if colon else int(soft)}
    except ValueError:
        raise Failure(f"ERROR: invalid ulimit argument: {text}") from None
