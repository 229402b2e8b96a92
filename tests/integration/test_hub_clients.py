"""The clients that people use, against a hub: docker's command line, skopeo, wherry."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import TIMEOUT, LabDaemon, new_base
from hublab import ADMIN, LabHub, hub
from patience import patiently
from registrylab import skopeo

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("registry")]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabHub]:
    with hub() as made:
        yield made


def wherry(daemon: LabDaemon, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from wherry.cli.main import entry; raise SystemExit(entry())", *arguments],
        env={**daemon.environment, "WHERRY_HOST": f"unix://{daemon.socket}"},
        input=stdin, capture_output=True, text=True, timeout=patiently(TIMEOUT), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_docker_logs_in_pushes_and_pulls(daemon: LabDaemon, lab: LabHub, name: str) -> None:
    where = f"{lab.host}/team/{name}:1"
    daemon.docker("login", "-u", ADMIN[0], "--password-stdin", lab.host, input=ADMIN[1].encode()).ok()
    daemon.docker("run", "--name", name, "busybox", "sh", "-c", "echo mine > /v").ok()
    daemon.docker("commit", name, where).ok()
    assert "digest: sha256:" in daemon.docker("push", where).ok()
    assert "Layer already exists" in daemon.docker("push", where).ok()
    other = f"{lab.host}/team/{name}-b:1"
    daemon.docker("tag", where, other).ok()
    assert "Mounted from" in daemon.docker("push", other).ok()
    daemon.docker("rm", name).ok()
    daemon.docker("rmi", where, other).ok()
    assert daemon.docker("run", "--rm", where, "cat", "/v").ok() == "mine"
    daemon.docker("rmi", where).ok()
    daemon.docker("logout", lab.host).ok()
    refused = daemon.docker("pull", where)
    assert refused.code != 0
    assert "denied" in refused.errors or "unauthorized" in refused.errors, refused.errors
    lab.command("repository", "publish", f"team/{name}")
    daemon.docker("pull", where).ok()
    assert f"team/{name}" in daemon.docker("search", f"{lab.host}/{name}").ok()


def test_wherry_pushes_and_pulls(daemon: LabDaemon, lab: LabHub, name: str) -> None:
    where = f"{lab.host}/wherry/{name}:1"
    wherry(daemon, "login", "-u", ADMIN[0], "--password-stdin", lab.host, stdin=ADMIN[1])
    daemon.docker("tag", "busybox", where).ok()
    wherry(daemon, "push", where)
    daemon.docker("rmi", where).ok()
    wherry(daemon, "pull", where)
    wherry(daemon, "logout", lab.host)


def test_skopeo_copies_every_form(lab: LabHub, name: str, tmp_path: Path) -> None:
    from hublab import INDEX

    image = lab.image(f"forms/{name}", "one", b"forms")
    size = int(lab.ask("HEAD", f"/v2/forms/{name}/manifests/one").headers["Content-Length"])
    member = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image, "size": size,
        "platform": {"os": "linux", "architecture": "amd64"},
    }  # fmt: skip
    lab.manifest(f"forms/{name}", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [member]}, "all")
    source = f"docker://{lab.host}/forms/{name}:all"
    flags = ("--src-tls-verify=false", "--dest-tls-verify=false", f"--src-creds={':'.join(ADMIN)}")
    creds = f"--dest-creds={':'.join(ADMIN)}"
    skopeo("copy", "--all", *flags, creds, source, f"docker://{lab.host}/forms/{name}-copy:all")
    skopeo(
        "copy", "--all", *flags, creds, "--format", "v2s2", source, f"docker://{lab.host}/forms/{name}-d:all"
    )
    listed = skopeo(
        "list-tags", "--tls-verify=false", f"--creds={':'.join(ADMIN)}", source.rpartition(":")[0]
    )
    assert json.loads(listed)["Tags"] == ["all", "one"]
    got = lab.ask("GET", f"/v2/forms/{name}-d/manifests/all").expect(200)
    assert got.headers["Content-Type"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    skopeo("copy", *flags, f"{source.rpartition(':')[0]}:one", f"dir:{tmp_path / 'back'}")
    skopeo("delete", "--tls-verify=false", f"--creds={':'.join(ADMIN)}", f"{source.rpartition(':')[0]}:one")
    lab.ask("GET", f"/v2/forms/{name}/manifests/one").expect(404)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_over_tls(name: str, tmp_path: Path) -> None:
    """Large blobs, whole and by ranges, on a connection the kernel cannot write to by itself."""
    import hashlib
    import os
    import ssl
    import urllib.request

    from hublab import basic

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2",
         "-keyout", str(key), "-out", str(cert), "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, timeout=patiently(30),
    )  # fmt: skip
    with hub("--tls-cert", str(cert), "--tls-key", str(key)) as secure:
        data = os.urandom(5_000_000)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        context = ssl.create_default_context(cafile=str(cert))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

        def ask(
            method: str, path: str, body: bytes | None = None, **headers: str
        ) -> tuple[bytes, dict[str, str]]:
            request = urllib.request.Request(
                f"https://{secure.host}{path}",
                body,
                {"Authorization": basic(*ADMIN), **headers},
                method=method,
            )
            with opener.open(request, timeout=patiently(30)) as answer:
                return answer.read(), dict(answer.headers)

        ask("POST", f"/v2/tls/{name}/blobs/uploads/?digest={digest}", data)
        assert ask("GET", f"/v2/tls/{name}/blobs/{digest}")[0] == data
        part, headers = ask("GET", f"/v2/tls/{name}/blobs/{digest}", Range="bytes=1000000-4000000")
        assert part == data[1_000_000:4_000_001]
        assert headers["Content-Range"] == "bytes 1000000-4000000/5000000"


def test_a_daemon_pulls_by_way_of_a_mirror(daemon: LabDaemon, lab: LabHub, name: str) -> None:
    """``FROM name`` and ``docker pull name`` reach Docker Hub by the hub that ``--registry-mirror`` names;
    here another hub plays Docker Hub, and is asked for each blob once."""
    where = f"{lab.host}/library/{name}:1"
    wherry(daemon, "login", "-u", ADMIN[0], "--password-stdin", lab.host, stdin=ADMIN[1])
    daemon.docker("tag", "busybox", where).ok()
    wherry(daemon, "push", where)
    wherry(daemon, "logout", lab.host)
    lab.command("repository", "publish", f"library/{name}")
    with hub() as mirror:
        mirror.command("proxy", "add", "--mirror", f"http://{lab.host}", "--public")
        mirrored = LabDaemon(new_base(), "--registry-mirror", f"http://{mirror.host}")
        try:
            mirrored.start()
            assert f"Downloaded newer image for {name}:1" in mirrored.docker("pull", f"{name}:1").ok()
            asked = lab.ask("GET", "/metrics").body.decode()
            mirrored.docker("rmi", f"{name}:1").ok()
            mirrored.docker("pull", f"{name}:1").ok()
            want = 'wherry_hub_requests_total{kind="blob",method="GET"'
            assert _counted(lab.ask("GET", "/metrics").body.decode(), want) == _counted(asked, want) > 0
        finally:
            mirrored.destroy()


def _counted(metrics: str, what: str) -> int:
    return sum(int(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(what))
