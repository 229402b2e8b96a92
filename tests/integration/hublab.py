"""Hubs of the tests' own: ``wherry-hub serve`` as a process on loopback, and plain HTTP to ask it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reaper
from patience import patiently, until

PROGRAM = (sys.executable, "-m", "wherry.hub.cli.main")
TIMEOUT = 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ADMIN = ("root0", "a password of the tests")
_SERVES = re.compile(r"serves https?://127\.0\.0\.1:([0-9]+)")


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        """The codes of an error's body."""
        return [one["code"] for one in self.json["errors"]]

    def expect(self, *statuses: int) -> Answer:
        assert self.status in statuses, f"got {self.status}, want {statuses}: {self.body[:500]!r}"
        return self


def sha(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


@dataclass
class LabHub:
    """:ivar stores: ``--root``, ``--database``, ``--objects``: shared by replicas."""

    base: Path
    stores: list[str]
    more: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        path = self.base / f"hub-{id(self)}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> LabHub:
        path = self.base / f"hub-{id(self)}.log"
        path.unlink(missing_ok=True)
        # Only tests of pages pay for pages.
        roles = [] if "--role" in self.more else ["--role", "registry,worker"]
        with path.open("ab") as log:
            self.process = subprocess.Popen(
                [*PROGRAM, "serve", *self.stores, "--listen", f"127.0.0.1:{self.port}", *roles, *self.more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
            )
        self.port = int(until(self._serves, "the hub serves", seconds=60)[1])
        return self

    def _serves(self) -> re.Match[str] | None:
        assert self.process is not None and self.process.poll() is None, self.log
        return _SERVES.search(self.log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(patiently(60)) == 0, self.log
            self.process = None
        assert "Traceback" not in self.log, self.log

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(patiently(TIMEOUT))
        self.process = None

    def command(self, *words: str, stdin: str = "", status: int = 0) -> str:
        """Run ``wherry-hub`` beside the server; what it prints."""
        at = (
            2
            if words[0]
            in (
                "account",
                "token",
                "repository",
                "tag",
                "rule",
                "webhook",
                "org",
                "proxy",
                "replication",
                "team",
                "robot",
                "trust",
            )
            else 1
        )
        done = subprocess.run(
            [*PROGRAM, *words[:at], *self.stores, *words[at:]],
            input=stdin.encode(), capture_output=True, timeout=patiently(60), check=False,
            env={**os.environ, **self.env},
        )  # fmt: skip
        assert done.returncode == status, done.stderr.decode()
        return done.stdout.decode() if status == 0 else done.stderr.decode()

    def add_account(self, name: str, password: str, *flags: str) -> None:
        self.command("account", "add", name, "--password-stdin", *flags, stdin=password)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        user: tuple[str, str] | None = ADMIN,
    ) -> Answer:
        """One request; with Basic of ``user`` where nothing else is said."""
        send = dict(headers or {})
        if user is not None and "Authorization" not in send:
            send["Authorization"] = basic(*user)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patiently(60))
        try:
            connection.request(method, path, body, send)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    # ---- content ---------------------------------------------------------------------------------------

    def begin(self, repository: str, query: str = "", **more: Any) -> str:
        """Where an upload goes on."""
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/{query}", b"", **more).expect(202)
        return str(answer.headers["Location"])

    def blob(self, repository: str, data: bytes, algorithm: str = "sha256", **more: Any) -> str:
        """Push a blob; its digest."""
        digest = sha(data, algorithm)
        place = self.begin(repository, **more)
        self.ask("PUT", f"{place}?digest={digest}", data, **more).expect(201)
        return digest

    def manifest(self, repository: str, document: dict[str, Any], reference: str = "", **more: Any) -> str:
        """Push a manifest under a tag, or its digest; its digest."""
        body = json.dumps(document).encode()
        kind = document.get("mediaType", MANIFEST)
        digest = sha(body)
        self.ask(
            "PUT", f"/v2/{repository}/manifests/{reference or digest}", body, {"Content-Type": kind}, **more
        ).expect(201)
        return digest

    def image(self, repository: str, tag: str = "", seed: bytes | None = None, **more: Any) -> str:
        """Push an image of one layer; its digest."""
        document = self.document(repository, seed if seed is not None else os.urandom(16), **more)
        return self.manifest(repository, document, tag, **more)

    def document(self, repository: str, seed: bytes, **more: Any) -> dict[str, Any]:
        """The manifest of an image whose blobs have been pushed."""
        layer, config = b"layer of " + seed, b'{"os":"linux","seed":"%s"}' % seed.hex().encode()
        self.blob(repository, layer, **more)
        self.blob(repository, config, **more)
        return {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": sha(config), "size": len(config)},
            "layers": [{"mediaType": LAYER, "digest": sha(layer), "size": len(layer)}],
        }

    def token(self, scope: str = "", user: tuple[str, str] | None = ADMIN) -> str:
        """A bearer header for a scope."""
        answer = self.ask("GET", f"/token?service=wherry-hub&scope={scope}", user=user).expect(200)
        return f"Bearer {answer.json['token']}"


@contextlib.contextmanager
def hub(
    *more: str, admin: bool = True, env: Mapping[str, str] | None = None, database: str = ""
) -> Iterator[LabHub]:
    """A hub on files and SQLite, or on a ``database`` that is still empty."""
    base = reaper.keep(Path(tempfile.mkdtemp(prefix="whh")))
    lab = LabHub(base, ["--root", str(base / "root")], list(more), dict(env or {}))
    try:
        if database:
            lab.stores += ["--database", database]
            lab.command("migrate")
        if admin:
            lab.add_account(*ADMIN, "--admin")
        yield lab.start()
        lab.stop()
    finally:
        if lab.process is not None:
            lab.kill()
        reaper.let_go(base)
        subprocess.run(["rm", "-rf", str(base)], check=False)
