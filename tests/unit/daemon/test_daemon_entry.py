"""How the daemon is imported: little of it before the first answer, and TLS works as ever afterwards."""

from __future__ import annotations

import http.server
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patiently

IMPORT = """
import os, sys
from wherry.daemon.entry import imported
imported()
"""


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT + code],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("SSL_CERT")}, **environment},
        capture_output=True,
        text=True,
        timeout=patiently(30),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_builds_need_comes_later() -> None:
    rooms = "('wherry.dockerfile', 'wherry.solver', 'wherry.engine.builds.service', 'wherry.buildkit')"
    assert run(f"print(*(one for one in {rooms} if one in sys.modules))").strip() == ""


@pytest.mark.parametrize("given", [{}, {"SSL_CERT_FILE": "/a", "SSL_CERT_DIR": "/b"}])
def test_the_environment_is_as_before(given: dict[str, str]) -> None:
    said = run("print({k: v for k, v in os.environ.items() if k.startswith('SSL_CERT')})", **given)
    assert said.strip() == str(given)


def test_no_certificate_is_read() -> None:
    said = run(
        "from aiohttp import connector\n"
        "print(*(one.cert_store_stats()['x509_ca'] for one in "
        "(connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED)))"
    )
    assert said.split() == ["0", "0"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of HTTPS, and the file with its certificate."""
    request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    whose = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    where = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    subprocess.run(["openssl", *request, *whose, *where], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{running.server_port}/file", tmp_path / "cert"
        running.shutdown()


DOWNLOAD = """
import asyncio
from wherry.errors import WherryError
from wherry.registry.download import KnownDownload, download
got = bytearray()
try:
    asyncio.run(download(%r, got.extend, known=KnownDownload(), limit=1000))
    print(got.decode())
except WherryError as e:
    print(e.message)
"""


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_downloads_trust_whom_the_host_trusts(server: tuple[str, Path]) -> None:
    url, certificate = server
    assert run(DOWNLOAD % url, SSL_CERT_FILE=str(certificate)).strip() == "ok"
    assert "certificate" in run(DOWNLOAD % url)
