"""Requests made from the API's definition: valid, nearly valid, and hostile.

Every request is made of a seed and a number, so a single one can be made again. ``engine_api.json`` in
``tests/data`` has the operations and the shapes of bodies; what wherry adds is below.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

DATA = Path(__file__).parent.parent / "data" / "engine_api.json"
ADDITIONS: list[dict[str, Any]] = [
    {"method": "GET", "path": "/containers/{id}/execs"},
    {"method": "GET", "path": "/containers/stats", "query": {"stream": "boolean"}},
    {"method": "POST", "path": "/containers/{id}/takeover", "query": {"from": "string", "drain": "integer"}},
    {"method": "POST", "path": "/exec/{id}/stop", "query": {"t": "integer"}},
    {"method": "POST", "path": "/exec/{id}/kill", "query": {"signal": "string"}},
    {"method": "GET", "path": "/build/history"},
    {"method": "GET", "path": "/build/history/{id}"},
    {"method": "DELETE", "path": "/build/history/{id}"},
    {"method": "GET", "path": "/build/outputs/{id}", "query": {"number": "integer"}},
    {"method": "POST", "path": "/build/cancel", "query": {"id": "string"}},
    {"method": "POST", "path": "/build/sessions", "body": {"type": "object"}},
    {"method": "DELETE", "path": "/build/sessions/{id}"},
    {"method": "POST", "path": "/build/sessions/{id}/context", "query": {"name": "string", "key": "string"}},
    {"method": "PUT", "path": "/build/sessions/{id}/context", "query": {"name": "string"}},
    {"method": "GET", "path": "/images/{name}/diff", "query": {"to": "string"}},
    {"method": "GET", "path": "/images/{name}/versions"},
    {"method": "POST", "path": "/images/{name}/rollback", "query": {"version": "integer"}},
    {"method": "POST", "path": "/images/bootstrap", "query": {"name": "string", "variant": "string"}},
    {"method": "GET", "path": "/distribution/{name}/tags"},
    {"method": "PUT", "path": "/distribution/{name}/manifest", "body": {"type": "object"}},
    {"method": "POST", "path": "/distribution/copy", "query": {"from": "string", "to": "string"}},
    {"method": "GET", "path": "/system/disk"},
    {"method": "POST", "path": "/system/fsck", "query": {"repair": "boolean"}},
    {"method": "POST", "path": "/volumes/{name}/clone", "body": {"type": "object"}},
    {"method": "POST", "path": "/volumes/{name}/rename", "query": {"name": "string"}},
    {"method": "GET", "path": "/volumes/{name}/export", "query": {"compression": "string"}},
    {"method": "POST", "path": "/volumes/{name}/import", "query": {"merge": "boolean", "label": "string"}},
    {"method": "GET", "path": "/volumes/{name}/archive", "query": {"path": "string"}},
    {"method": "HEAD", "path": "/volumes/{name}/archive", "query": {"path": "string"}},
    {"method": "PUT", "path": "/volumes/{name}/archive", "query": {"path": "string"}},
    {"method": "GET", "path": "/volumes/{name}/sizes", "query": {"depth": "integer", "snapshot": "string"}},
    {"method": "GET", "path": "/volumes/{name}/changes", "query": {"from": "string", "to": "string"}},
    {"method": "GET", "path": "/volumes/{name}/snapshots"},
    {"method": "POST", "path": "/volumes/{name}/snapshots", "body": {"type": "object"}},
    {"method": "DELETE", "path": "/volumes/{name}/snapshots/{id}"},
    {"method": "POST", "path": "/volumes/{name}/snapshots/{id}/restore"},
    {"method": "POST", "path": "/volumes/{name}/schedule", "body": {"type": "object"}},
    {"method": "POST", "path": "/volumes/{name}/push", "query": {"to": "string"}},
    {"method": "POST", "path": "/volumes/pull", "query": {"from": "string", "name": "string"}},
]
"""Endpoints of wherry's own."""

HOSTILE = (
    "\0", "a\0b", "../../../../fuzz", "..", "/", "//", "%2e%2e%2f", "a" * 5000, "\n\x1b[2J\r",
    "\ud800", "\udcff", "💥", "{{.}}", "{{range .}}", "-1", "--help", "-", "1e400", "9" * 40,
    "0x7f", "٣", "²", "NaN", "Infinity",
    "';--", "sha256:" + "g" * 64, "sha256:" + "0" * 64, "a/b:c@d", "::", "[::1", "1.2.3.4:99999",
    "*", "(a+)+$", "[", "\\", "\u202e", "﷽" * 100, "true", "null", "[]", "{}", '{"a":',
    " ", "\t", "0", "00", "1.5", "1_000",
    "container:", "container:nobody", "host", "none", "default", "@{1}",
    "busybox@{99}", "busybox:", ":latest",
)  # fmt: skip
NUMBERS = (
    0,
    1,
    -1,
    2,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    2**64,
    10**30,
)
WORDS: dict[str, tuple[Any, ...]] = {
    "Image": ("busybox",),
    "fromImage": ("127.0.0.1:1/x", "127.0.0.1:1/x:y"),
    "fromSrc": ("-", "http://127.0.0.1:1/x"),
    "remote": ("http://127.0.0.1:1/x", "http://127.0.0.1:1/x.git"),
    "term": ("127.0.0.1:1/x",),
    "serveraddress": ("127.0.0.1:1",),
    "from": ("127.0.0.1:1/x",),
    "to": ("127.0.0.1:1/y",),
    "NetworkMode": ("none", "bridge", "fz", "host", "container:fz-run"),
    "networkmode": ("none", "default", "host", "fz"),
    "IpcMode": ("", "private", "shareable", "none", "container:fz-run"),
    "PidMode": ("", "container:fz-run"),
    "CgroupnsMode": ("", "private", "host"),
    "UTSMode": ("",),
    "UsernsMode": ("", "host"),
    "CgroupParent": ("", "../x"),
    "cgroupparent": ("", "../x"),
    "Runtime": ("", "crun"),
    "Isolation": ("", "default"),
    "VolumeDriver": ("", "local"),
    "Binds": ("fz:/v", "fz:/v:ro", "/nowhere/fuzz:/x:ro"),
    "VolumesFrom": ("fz-run", "fz-run:ro"),
    "Links": ("fz-run:alias",),
    "User": ("", "0", "1000", "1000:1000", "daemon", "nobody:nogroup"),
    "GroupAdd": ("0", "1000", "daemon"),
    "WorkingDir": ("", "/", "/tmp", "/a/b"),
    "Hostname": ("", "host"),
    "Domainname": ("", "example.org"),
    "Env": ("A=1", "PATH=/bin", "B"),
    "Dns": ("127.0.0.1", "::1"),
    "ExtraHosts": ("a:1.2.3.4", "b:host-gateway"),
    "CapAdd": ("NET_ADMIN", "ALL"),
    "CapDrop": ("ALL", "CHOWN"),
    "SecurityOpt": ("no-new-privileges", "seccomp=unconfined"),
    "StopSignal": ("SIGTERM", "9", "SIGRTMIN+1"),
    "signal": ("SIGTERM", "KILL", "0", "USR1"),
    "MacAddress": ("", "02:42:ac:11:00:02"),
    "Driver": ("", "bridge", "local", "cdi"),
    "Subnet": ("198.18.77.0/24", "fd00:7777::/64", "198.18.78.0/29"),
    "Gateway": ("198.18.77.1",),
    "IPRange": ("198.18.77.0/25",),
    "IPv4Address": ("198.18.77.9",),
    "Scope": ("", "local"),
    "Container": ("fz-run", "fz-new"),
    "container": ("fz-run",),
    "Cmd": ("true",),
    "Entrypoint": ("sh",),
    "PathOnHost": ("/dev/null", "/dev/fuzz"),
    "PathInContainer": ("/dev/null", "/dev/x"),
    "CgroupPermissions": ("rwm", "r"),
    "Target": ("/t", "/t/u"),
    "Source": ("fz", "fz-none"),
    "Type": ("volume", "tmpfs", "bind", "image", "local", "json-file", "none"),
    "Name": ("", "no", "always", "on-failure", "nofile", "fz-made", "fz-made2"),
    "HostPort": ("", "0", "48000-48010"),
    "HostIp": ("", "127.0.0.1"),
    "path": ("/", "/etc", "/etc/passwd", "/proc/1/root", "/nowhere"),
    "repo": ("fz-image", "fz-image:x"),
    "tag": ("latest", "v1"),
    "t": ("fz-image:built", 1, 0),
    "dockerfile": ("", "Dockerfile", "Other"),
    "platform": ("", "", "", "linux/amd64", "linux", "linux/arm64"),
    "since": ("1", "2020-01-01T00:00:00Z", "10m"),
    "until": ("2", "2020-01-02T00:00:00Z", "1m"),
    "ps_args": ("", "-ef", "aux", "-o pid"),
    "stream": ("0",),
    "follow": ("0",),
    "tail": ("all", "10", "0"),
    "condition": ("not-running", "removed"),
    "detachKeys": ("", "ctrl-a", "ctrl-p,ctrl-q"),
    "names": ("busybox", "fz-none"),
    "changes": ("CMD true", "ENV A=1", "LABEL a=b"),
    "Data": ("eA==",),
    "Test": ("NONE", "CMD", "true"),
    "compression": ("none", "gzip", "zstd"),
}
"""What a member or parameter of a name may well be. Nothing here reaches another machine."""
STRUCTURED: dict[str, tuple[Any, ...]] = {
    "buildargs": ({}, {"A": "1"}, {"A": None}),
    "labels": ({}, {"a": "b"}),
    "cachefrom": ([], ["busybox"]),
    "contexts": ({}, {"c": {"kind": "image", "value": "busybox"}}),
    "ulimits": ([], [{"Name": "nofile", "Soft": 10, "Hard": 20}]),
    "attest": ({}, {"provenance": ""}),
    "extrahosts": ([], ["a:1.2.3.4"]),
}
"""Parameters that are JSON."""
SIZES = {
    **dict.fromkeys(("Interval", "Timeout", "StartPeriod", "StartInterval"), (0, 10**9)),
    **dict.fromkeys(("Memory", "MemoryReservation", "ShmSize"), (0, 32 << 20)),
    **dict.fromkeys(("CpuQuota", "CpuPeriod"), (0, 50_000)),
    **dict.fromkeys(("NanoCpus", "NanoCPUs"), (0, 5 * 10**8)),
    **dict.fromkeys(("BlkioWeight", "PidsLimit", "CpuShares"), (0, 100)),
    "MemorySwap": (0, -1),
}
"""Numbers of these names that may well be."""
KEYS = {
    "Labels": ("a", "com.example.x"),
    "Sysctls": ("net.ipv4.ip_forward", "kernel.msgmax"),
    "ExposedPorts": ("80/tcp", "53/udp"),
    "PortBindings": ("80/tcp", "53/udp"),
    "Volumes": ("/anonymous",),
    "Tmpfs": ("/tmpfs",),
    "EndpointsConfig": ("bridge", "fz"),
    "Options": ("com.docker.network.bridge.enable_icc", "type", "o"),
    "DriverOpts": ("type", "o", "size"),
    "StorageOpt": ("size",),
    "Annotations": ("x.y",),
    "Config": ("max-size", "tag", "labels"),
}
DOCKERFILES = (
    b"FROM busybox\n",
    b"FROM busybox\nRUN true\n",
    b"FROM scratch\nCOPY f /f\n",
    b"FROM nobody/nothing\n",
    b"",
    b"NOTHING x\n",
    b"FROM busybox\nADD http://127.0.0.1:1/x /x\n",
    b"FROM busybox\nUSER \xff\nRUN true\n",
    b"# syntax=x/y\nFROM busybox\n",
    b"FROM busybox AS a\nFROM a\nCOPY --from=a /etc/passwd /p\n",
    b"FROM busybox\nWORKDIR ../..\nRUN --mount=type=cache,target=/c true\n",
    b"ARG A=${A\nFROM $A\n",
    b'FROM busybox\nHEALTHCHECK --interval=1 CMD x\nLABEL a="\n',
    b"FROM --platform=x/y/z/a busybox\n",
)
FILTERS = (
    "name",
    "id",
    "label",
    "status",
    "type",
    "driver",
    "dangling",
    "reference",
    "until",
    "before",
    "scope",
    "x",
)


_NEEDED: dict[str, dict[str, Any]] = {
    "POST /containers/create": {"Image": "busybox", "Cmd": ["true"], "Entrypoint": None},
    "POST /containers/{id}/exec": {"Cmd": ["true"]},
    "POST /networks/create": {"Name": "fz-made"},
    "POST /volumes/create": {"Name": "fz-made"},
    "POST /secrets/create": {"Name": "fz-made", "Data": "eA=="},
    "POST /networks/{id}/connect": {"Container": "fz-new"},
    "POST /networks/{id}/disconnect": {"Container": "fz-run"},
    "POST /volumes/{name}/clone": {"Name": "fz-made"},
    "POST /volumes/{name}/snapshots": {"Name": "fz-s"},
    "POST /volumes/{name}/schedule": {"Every": 60, "Keep": 2},
}
"""Without which a body asks for nothing."""


@dataclass
class Request:
    number: int
    operation: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def __str__(self) -> str:
        shown = "" if self.body is None else f" {self.body[:1500]!r}"
        return f"#{self.number} {self.method} {self.path[:600]} {self.headers}{shown}"


class Maker:
    """Makes request number ``n`` of a seed. ``names`` are of objects that may be there, by kind."""

    def __init__(self, seed: int, names: dict[str, list[str]]) -> None:
        definition = json.loads(DATA.read_text())
        self._seed, self._names = seed, names
        self._shapes: dict[str, Any] = definition["definitions"]
        self.operations: list[dict[str, Any]] = [*definition["operations"], *ADDITIONS]
        # What does most has most that can go wrong.
        busy = (
            "/containers/create",
            "/containers/{id}/start",
            "/containers/{id}/exec",
            "/containers/{id}/update",
            "/networks/create",
            "/build",
        )
        rare = ("/swarm", "/nodes", "/services", "/tasks", "/configs", "/plugins")
        often = [o for o in self.operations if not o["path"].startswith(rare)]
        self._chosen = self.operations + often * 3 + [o for o in often if o["path"] in busy] * 30

    def make(self, number: int) -> Request:
        rng = random.Random(f"{self._seed}:{number}")
        return _Making(rng, self._shapes, self._names).request(number, rng.choice(self._chosen))


class _Making:
    def __init__(self, rng: random.Random, shapes: dict[str, Any], names: dict[str, list[str]]) -> None:
        self.rng, self.shapes, self.names = rng, shapes, names
        self.wild = rng.choices((0.0, 0.04, 0.35), (3, 5, 2))[0]
        """How likely any one value is hostile."""
        self.often = rng.choice((0.02, 0.08, 0.25))
        """How likely any one member of a large body is there."""

    def request(self, number: int, operation: dict[str, Any]) -> Request:
        rng, method = self.rng, operation["method"]
        path = operation["path"]
        for part in ("id", "name", "alias", "checkpoint"):
            if f"{{{part}}}" in path:
                path = path.replace(f"{{{part}}}", self._identifier(operation["path"]), 1)
        query = self._query(operation.get("query", {}))
        if rng.random() < 0.7:
            path = f"/v{rng.choice(('1.56', '1.40', '1.44', '1.51'))}{path}"
        made = Request(number, f"{method} {operation['path']}", method, path + (f"?{query}" if query else ""))
        if method in ("POST", "PUT"):
            self._give_body(made, operation)
        if rng.random() < 0.05:
            made.headers["X-Registry-Auth"] = rng.choice(("e30=", "====", "bnVsbA==", "a" * 9000, "e30"))
        if rng.random() < 0.03:
            made.method = rng.choice(("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "BREW"))
        if rng.random() < 0.03:
            made.headers.update(Connection="Upgrade", Upgrade=rng.choice(("tcp", "h2c", "websocket")))
        return made

    # ---- paths and queries ---------------------------------------------------------------------------------

    def _identifier(self, path: str) -> str:
        if self.rng.random() < self.wild + 0.03:
            return self._escaped(self._hostile_text())
        kind = path.split("/")[1]
        return quote(self.rng.choice(self.names.get(kind, ["x"])), safe="/:")

    def _query(self, parameters: dict[str, Any]) -> str:
        rng, pairs = self.rng, []
        for name, kind in parameters.items():
            if rng.random() < 0.5:
                pairs += [(name, self._parameter(name, kind))] * (2 if rng.random() < 0.03 else 1)
        if rng.random() < 0.05:
            pairs.append((self._hostile_text()[:50], self._hostile_text()))
        return "&".join(f"{self._escaped(k)}={self._escaped(v)}" for k, v in pairs)

    def _parameter(self, name: str, kind: Any) -> str:
        rng = self.rng
        if rng.random() < self.wild and name != "cgroupparent":
            return self._hostile_text()
        if name == "filters":
            return self._filters()
        if name in STRUCTURED:
            return json.dumps(self._any(2) if rng.random() < 0.1 else rng.choice(STRUCTURED[name]))
        if name in ("remote", "squash", "outputs") and rng.random() < 0.8:
            return ""
        if name == "name":
            return rng.choice(("fz-made", "fz-made2", "fz-made3"))
        if name in WORDS:
            return str(rng.choice(WORDS[name]))
        if isinstance(kind, dict):
            return str(rng.choice(kind["enum"]))
        if kind == "boolean":
            return rng.choice(("0", "1", "true", "false", ""))
        if kind in ("integer", "number"):
            return str(rng.choice((*NUMBERS, 1, 2, 3, 10)) if rng.random() < 0.3 else rng.randrange(4))
        return rng.choice(("a", "busybox", "fz", "1", ""))

    def _filters(self) -> str:
        rng = self.rng
        values = [
            rng.choice(("a", "fz", "true", "1", "running", "bridge", "a=b", "10m", self._hostile_text()))
        ]
        form: Any = rng.choice((values, {values[0]: True}, values[0], None, [1], {values[0]: "x"}))
        return json.dumps({rng.choice(FILTERS): form for _ in range(rng.randrange(3))})

    def _escaped(self, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass")
        return "".join(f"%{b:02x}" for b in raw) if self.rng.random() < 0.3 else quote(raw, safe="")

    # ---- bodies --------------------------------------------------------------------------------------------

    def _give_body(self, made: Request, operation: dict[str, Any]) -> None:
        rng = self.rng
        shape = operation.get("body")
        if rng.random() < 0.05 or (shape is None and rng.random() < 0.3):
            made.body = rng.choice(
                (
                    b"",
                    b"null",
                    b"[]",
                    b'"x"',
                    b"1",
                    b"{",
                    b"\xff\xfe",
                    b"{}" * 3,
                    b"[" * 5000,
                    b'{"a":' * 5000,
                )
            )
        elif "build" in made.path or made.path.partition("?")[0].endswith(("/load", "/archive", "/import")):
            made.body = self._archive()
            made.headers["Content-Type"] = "application/x-tar"
        elif shape is not None:
            made.body = self._json(self._body(shape, made.operation))
        if made.body is not None:
            made.headers.setdefault(
                "Content-Type",
                rng.choices(("application/json", "text/plain", "", "x/y; a=\xe9"), (90, 4, 4, 2))[0],
            )

    def _body(self, shape: dict[str, Any], operation: str) -> Any:
        made = self._value("", shape, 0)
        if isinstance(made, dict) and self.rng.random() < 0.9:
            made |= _NEEDED.get(operation, {})
        host = made.get("HostConfig") if isinstance(made, dict) else None
        if isinstance(host, dict) and ".." not in str(host.get("CgroupParent", "")):
            host.pop("CgroupParent", None)  # it would be made beside the daemon's own, and stay
        if isinstance(made, dict) and self.rng.random() < self.wild:
            made[self._hostile_text()[:40]] = self._any(2)
        return made

    def _json(self, value: Any) -> bytes:
        rng = self.rng
        data = json.dumps(value, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
        if rng.random() < self.wild / 4:
            position = rng.randrange(len(data) + 1)
            data = rng.choice(
                (
                    data[:position],
                    data[:position] + bytes([rng.randrange(256)]) + data[position + 1 :],
                    data + data,
                    data.replace(b":", b"::", 1),
                    data.replace(b"true", b"tru"),
                    gzip.compress(data),
                )
            )
        return data

    def _value(self, name: str, shape: dict[str, Any], depth: int) -> Any:
        rng = self.rng
        if rng.random() < self.wild:
            return self._any(2)
        if "ref" in shape:
            return self._value(name, self.shapes.get(shape["ref"], {}), depth)
        if "all" in shape:
            parts = [self._value(name, one, depth) for one in shape["all"]]
            return {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}
        if "enum" in shape:
            return rng.choice(shape["enum"])
        kind = shape.get("type", "object" if "members" in shape or "values" in shape else "")
        if kind == "object":
            return self._object(name, shape, depth)
        if kind == "array":
            count = 0 if depth > 5 else rng.choice((0, 1, 1, 2))
            return [self._value(name, shape.get("items", {}), depth + 1) for _ in range(count)]
        if kind == "boolean":
            return rng.random() < 0.5
        if kind in ("integer", "number"):
            if name in SIZES and rng.random() < 0.9:
                return rng.choice(SIZES[name])
            return rng.choice(NUMBERS) if rng.random() < 0.05 else rng.randrange(3)
        return str(rng.choice(WORDS[name])) if name in WORDS else rng.choice(("", "a", "1", "fz"))

    def _object(self, name: str, shape: dict[str, Any], depth: int) -> dict[str, Any]:
        rng, made = self.rng, {}
        often = self.often if len(shape.get("members", {})) > 10 else 0.6
        for key, member in shape.get("members", {}).items():
            if key in shape.get("required", ()) or rng.random() < often / (depth + 1):
                made[key] = self._value(key, member, depth + 1)
        if "values" in shape or not shape.get("members"):
            for _ in range(rng.randrange(2)):
                key = rng.choice(KEYS.get(name, ("a", "b")))
                made[key] = self._value(key, shape.get("values", {"type": "string"}), depth + 1)
        return made

    def _any(self, depth: int) -> Any:
        """Any JSON at all."""
        rng = self.rng
        kind = rng.randrange(7 if depth else 5)
        if kind == 0:
            return rng.choice((None, True, False))
        if kind == 1:
            return rng.choice((*NUMBERS, 1.5, -0.0, 1e308))
        if kind in (2, 3, 4):
            return self._hostile_text()
        if kind == 5:
            return [self._any(depth - 1) for _ in range(rng.randrange(3))]
        return {self._hostile_text()[:60]: self._any(depth - 1) for _ in range(rng.randrange(3))}

    def _hostile_text(self) -> str:
        rng = self.rng
        if rng.random() < 0.85:
            return rng.choice(HOSTILE)
        return "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0x2FF), 0x10FFFF))) for _ in range(9)
        )

    def _archive(self) -> bytes:
        rng, out = self.rng, io.BytesIO()
        dockerfile = rng.choice(DOCKERFILES)
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, data in (
                ("Dockerfile", dockerfile),
                ("f", b"x"),
                (rng.choice(("../up", "/abs", "d/e")), b""),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            if rng.random() < 0.3:
                link = tarfile.TarInfo("link")
                link.type, link.linkname = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)), "../../etc/passwd"
                tar.addfile(link)
        data = out.getvalue()
        if rng.random() < self.wild:
            position = rng.randrange(len(data))
            data = rng.choice(
                (data[:position], data[:position] + b"\xff" * 9 + data[position + 9 :], b"\x1f\x8b" + data)
            )
        return data
