"""Registries that want to know who asks: htpasswd over TLS with certificates of both sides, and tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from daemonlab import LabDaemon, new_base
from patience import patiently
from registrylab import LabRegistry, registry, skopeo

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("registry")]

HTPASSWD = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
"""The password is "secret"."""


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        ["openssl", *arguments], input=stdin, capture_output=True, timeout=patiently(30), check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def make_ca(place: Path, name: str) -> None:
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}")
    openssl(*request, "-keyout", str(place / f"{name}.key"), "-out", str(place / f"{name}.crt"))


def make_certificate(place: Path, name: str, ca: str) -> None:
    signed_by = ("-CA", str(place / f"{ca}.crt"), "-CAkey", str(place / f"{ca}.key"), "-days", "2")
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", *signed_by)
    more = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:false")
    openssl(*request, *more, "-keyout", str(place / f"{name}.key"), "-out", str(place / f"{name}.crt"))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pki")
    for name in ("ca", "stranger"):
        make_ca(place, name)
    for name in ("server", "client"):
        make_certificate(place, name, "ca")
    (place / "htpasswd").write_text(HTPASSWD)
    return place


@pytest.fixture
def own() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        (daemon.base / "daemon.json").write_text(json.dumps({"registry-certs": str(daemon.base / "certs.d")}))
        daemon.start().bootstrap()
        yield daemon
    finally:
        daemon.destroy()


def test_htpasswd_over_tls_with_certificates_of_both_sides(own: LabDaemon, pki: Path, name: str) -> None:
    tls = {
        "certificate": str(pki / "server.crt"),
        "key": str(pki / "server.key"),
        "clientcas": [str(pki / "ca.crt")],
    }
    auth = {"htpasswd": {"realm": "lab", "path": str(pki / "htpasswd")}}
    with registry(http={"tls": tls}, auth=auth) as lab:
        place = own.base / "certs.d" / lab.host
        place.mkdir(parents=True)
        where = f"{lab.host}/a/{name}:1"
        login = ("login", "-u", "me", "--password-stdin", lab.host)
        shutil.copy(pki / "stranger.crt", place / "ca.crt")
        assert "failed to verify certificate: x509" in own.docker(*login, input=b"secret").errors
        shutil.copy(pki / "ca.crt", place / "ca.crt")
        assert own.docker(*login, input=b"secret").code == 1  # the registry wants a certificate of ours too
        shutil.copy(pki / "client.crt", place / "client.cert")
        assert f"missing key {place}/client.key" in own.docker(*login, input=b"secret").errors
        shutil.copy(pki / "client.key", place / "client.key")
        assert "unauthorized" in own.docker(*login, input=b"wrong").errors
        assert "Login Succeeded" in own.docker(*login, input=b"secret").ok()
        own.docker("tag", "busybox", where).ok()
        own.docker("push", where).ok()
        own.docker("rmi", where).ok()
        own.docker("pull", where).ok()
        own.docker("logout", lab.host).ok()
        done = own.docker("pull", where)
        assert done.code == 1
        assert "unauthorized: authentication required" in done.errors


class TokenServer:
    """Gives out tokens that the registry takes, as Docker's "Token Authentication Specification" has it."""

    def __init__(self, pki: Path) -> None:
        self.pki = pki
        self.asked: list[tuple[str, dict[str, list[str]], str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                return

            def do_GET(self) -> None:
                outer.answer(self, "GET", parse_qs(urlsplit(self.path).query))

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                outer.answer(self, "POST", parse_qs(self.rfile.read(length).decode()))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/token"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, method: str, query: dict[str, list[str]]) -> None:
        said = handler.headers.get("Authorization", "")
        self.asked.append((method, query, said))
        known = said == "Basic " + base64.b64encode(b"me:secret").decode()
        known = known or query.get("refresh_token") == ["REFRESH"]
        if (said or method == "POST") and not known:
            body, status = {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}, 401
        else:
            scopes = " ".join(query.get("scope", [])).split()
            body, status = self._granted(scopes, known=known, offline="offline_token" in query), 200
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _granted(self, scopes: list[str], *, known: bool, offline: bool) -> dict[str, Any]:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":", 1)[0], scope.split(":", 1)[1].rpartition(":")[0], scope
            wanted = actions.rpartition(":")[2].split(",")
            # Nobody may read what is public; who is known may do everything.
            access.append({"type": kind, "name": name, "actions": wanted if known else ["pull"]})
        token = self._signed(access)
        more = {"refresh_token": "REFRESH"} if offline and known else {}
        return {"token": token, "access_token": token, "expires_in": 300, **more}

    def _signed(self, access: list[dict[str, Any]]) -> str:
        der = openssl("x509", "-in", str(self.pki / "ca.crt"), "-outform", "DER")
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {"iss": "lab", "sub": "me", "aud": "registry", "exp": now + 300, "nbf": now - 10, "iat": now}
        claims |= {"jti": hashlib.sha256(json.dumps(access).encode()).hexdigest(), "access": access}
        signed = f"{_part(json.dumps(head).encode())}.{_part(json.dumps(claims).encode())}"
        signature = openssl("dgst", "-sha256", "-sign", str(self.pki / "ca.key"), stdin=signed.encode())
        return f"{signed}.{_part(signature)}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def tokens(pki: Path) -> Iterator[TokenServer]:
    server = TokenServer(pki)
    yield server
    server.close()


@pytest.fixture
def behind(tokens: TokenServer, pki: Path) -> Iterator[LabRegistry]:
    auth = {
        "realm": tokens.url,
        "service": "registry",
        "issuer": "lab",
        "rootcertbundle": str(pki / "ca.crt"),
    }
    with registry(auth={"token": auth}) as lab:
        yield lab


def test_tokens_and_refresh_tokens(
    daemon: LabDaemon, behind: LabRegistry, tokens: TokenServer, name: str
) -> None:
    where = f"{behind.host}/a/{name}:1"
    daemon.docker("tag", "busybox", where).ok()
    done = daemon.docker("push", where)
    assert done.code == 1
    assert "requested access to the resource is denied" in done.errors or "required" in done.errors
    login = ("login", "-u", "me", "--password-stdin", behind.host)
    assert "wrong password" in daemon.docker(*login, input=b"wrong").errors
    daemon.docker(*login, input=b"secret").ok()
    tokens.asked.clear()
    try:
        daemon.docker("push", where).ok()
        # The password is not kept: what is sent is the refresh token, in a body, once for all requests.
        assert [(method, said) for method, _, said in tokens.asked] == [("POST", "")]
        assert tokens.asked[0][1]["scope"] == [f"repository:a/{name}:pull,push"]
        daemon.docker("push", f"{behind.host}/a/{name}:1").ok()
        other = f"{behind.host}/b/{name}:1"
        daemon.docker("tag", where, other).ok()
        assert f"Mounted from a/{name}" in daemon.docker("push", other).ok()
    finally:
        daemon.docker("logout", behind.host).ok()
    daemon.docker("rmi", where).ok()
    tokens.asked.clear()
    daemon.docker("pull", where).ok()  # anonymously
    assert {(method, said) for method, _, said in tokens.asked} == {("GET", "")}


def test_archives_go_both_ways_with_the_same_digests(daemon: LabDaemon, tmp_path: Path, name: str) -> None:
    daemon.docker("run", "--name", name, "busybox", "sh", "-c", "echo mine > /v").ok()
    daemon.docker("commit", name, f"{name}:1").ok()
    archive = tmp_path / "image.tar"
    daemon.docker("save", "-o", str(archive), f"{name}:1").ok()
    before = json.loads(daemon.docker("image", "inspect", f"{name}:1").ok())[0]
    read = json.loads(skopeo("inspect", f"oci-archive:{archive}"))
    assert read["Digest"] == before["Id"]
    as_docker = json.loads(skopeo("inspect", "--config", "--raw", f"docker-archive:{archive}"))
    assert as_docker["rootfs"]["diff_ids"] == before["RootFS"]["Layers"]
    daemon.docker("rm", name).ok()
    daemon.docker("rmi", f"{name}:1").ok()
    skopeo("copy", "--preserve-digests", f"oci-archive:{archive}", f"oci-archive:{tmp_path}/oci.tar:{name}:1")
    daemon.docker("load", "-i", f"{tmp_path}/oci.tar").ok()
    after = json.loads(daemon.docker("image", "inspect", before["Id"]).ok())[0]
    assert after["RootFS"] == before["RootFS"]
    skopeo("copy", f"docker-archive:{archive}", f"docker-archive:{tmp_path}/docker.tar:{name}:2")
    daemon.docker("load", "-i", f"{tmp_path}/docker.tar").ok()
    loaded = json.loads(daemon.docker("image", "inspect", f"{name}:2").ok())[0]
    assert loaded["RootFS"] == before["RootFS"]
