"""Registries of the tests' own: the distribution project's server on loopback, and skopeo beside it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import reaper
from daemonlab import TIMEOUT, LabDaemon, wait_until
from freeports import free_port
from patience import patiently

SERVER = shutil.which("docker-registry") or "docker-registry"
MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


class LabRegistry:
    """``docker-registry`` on 127.0.0.1; ``more`` is added to its configuration (which JSON can be)."""

    def __init__(self, base: Path, **more: Any) -> None:
        self.base = base
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        http_part: dict[str, Any] = {"addr": self.host, **more.pop("http", {})}
        self.secure = "tls" in http_part
        self._config = base / "registry.yml"
        self._config.write_text(
            json.dumps(
                {
                    "version": "0.1",
                    "log": {"level": "error", "accesslog": {"disabled": True}},
                    "storage": {
                        "filesystem": {"rootdirectory": str(base / "blobs")},
                        "delete": {"enabled": True},
                    },
                    "http": http_part,
                    **more,
                }
            )
        )

    def start(self) -> LabRegistry:
        with (self.base / "registry.log").open("ab") as log:
            self.process = subprocess.Popen(
                [SERVER, "serve", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
            )
        wait_until(self._answers, f"{self.host} answers")
        return self

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), patiently(TIMEOUT)),
        ):
            return True
        return False

    @property
    def log(self) -> str:
        return (self.base / "registry.log").read_text(errors="replace")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(patiently(TIMEOUT))
            self.process = None

    def get(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """A plain request to an open registry."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patiently(TIMEOUT))
        try:
            connection.request("GET", path, headers={"Accept": MANIFESTS})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.headers)
        finally:
            connection.close()

    def put_blob(self, repository: str, data: bytes) -> dict[str, Any]:
        """Upload a blob to an open registry; its digest and size."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patiently(TIMEOUT))
        try:
            connection.request("POST", f"/v2/{repository}/blobs/uploads/")
            answer = connection.getresponse()
            answer.read()
            where = answer.headers["Location"].partition(self.host)[2]
            connection.request("PUT", f"{where}&digest={digest}", body=data)
            assert connection.getresponse().status == 201
        finally:
            connection.close()
        return {"digest": digest, "size": len(data)}

    def put_manifest(self, repository: str, data: bytes, kind: str, tag: str = "") -> dict[str, Any]:
        """Put a manifest under its digest, or a tag; its descriptor."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patiently(TIMEOUT))
        try:
            headers = {"Content-Type": kind}
            connection.request("PUT", f"/v2/{repository}/manifests/{tag or digest}", data, headers)
            answer = connection.getresponse()
            assert answer.status == 201, answer.read()
        finally:
            connection.close()
        return {"mediaType": kind, "digest": digest, "size": len(data)}


@contextlib.contextmanager
def registry(**more: Any) -> Iterator[LabRegistry]:
    base = reaper.keep(Path(tempfile.mkdtemp(prefix="whr")))
    lab = LabRegistry(base, **more)
    try:
        yield lab.start()
    finally:
        lab.stop()
        shutil.rmtree(base, ignore_errors=True)
        reaper.let_go(base)


def skopeo(*arguments: str) -> str:
    """The independent client. Certificates are not its business here."""
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *arguments], capture_output=True, timeout=patiently(60), check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


def seed(daemon: LabDaemon, lab: LabRegistry, name: str, *files: tuple[str, bytes]) -> str:
    """Put an image with busybox and ``files`` into the registry without the daemon pushing; its name there.

    Nothing of it stays in the daemon.
    """
    made = f"seed-{secrets.token_hex(4)}"
    container = daemon.docker("create", "--name", made, "busybox").ok()
    for path, data in files or ((f"/{made}", os.urandom(1000)),):
        daemon.docker("cp", "-", f"{made}:/", input=_tar(path, data)).ok()
    daemon.docker("commit", container, made).ok()
    daemon.docker("rm", container).ok()
    archive = lab.base / "seed.tar"
    daemon.docker("save", "-o", str(archive), made).ok()
    daemon.docker("rmi", made).ok()
    where = f"{lab.host}/{name}"
    skopeo("copy", "--dest-tls-verify=false", f"oci-archive:{archive}", f"docker://{where}")
    return where


def _tar(path: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo(path.lstrip("/"))
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()
