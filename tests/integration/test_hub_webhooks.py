"""Webhooks: signed, told again when nobody heard, and never to where only the hub can go."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator

import pytest
from hublab import hub
from patience import until

from wherry.errors import InvalidArgument
from wherry.hub.core.reach import Rules, networks


class Listener(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Listener)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((dict(self.headers), body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        self.wfile.write(b"heard")

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


def test_what_happens_is_told_and_signed(listener: Listener, name: str) -> None:
    rules = {"WHERRY_HUB_WEBHOOK_HTTP": "true", "WHERRY_HUB_WEBHOOK_NETWORKS": "127.0.0.0/8"}
    with hub() as lab:
        lab.stop()
        lab.env = rules
        lab.start()
        url = f"http://127.0.0.1:{listener.server_port}/hook"
        secret = lab.command("webhook", "add", "told/*", url, "--event", "manifest.*").split()[-1]
        listener.answers = [500, 302]
        digest = lab.image(f"told/{name}", "v1")
        lab.image(f"other/{name}", "v1")
        until(lambda: listener.heard, "it is told", seconds=30)
        headers, body = listener.heard[0]
        said = json.loads(body)
        assert (said["action"], said["repository"]) == ("manifest.push", f"told/{name}")
        assert said["detail"]["digest"] == digest and said["detail"]["tags"] == ["v1"]
        signed = f"{headers['X-Wherry-Timestamp']}.".encode() + body
        want = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
        assert headers["X-Wherry-Signature"] == f"sha256={want}"

        def row() -> list[str]:
            return lab.command("webhook", "deliveries", "1").splitlines()[1].split()

        # An error and a redirect, which is not followed, are no success: it is told until somebody hears.
        number = row()[0]
        lab.command("webhook", "redeliver", number)
        until(lambda: row()[3] == "done", "somebody has heard", seconds=60)
        assert len(listener.heard) == 3
        lab.command("webhook", "redeliver", number)
        until(lambda: len(listener.heard) == 4, "it is told once more", seconds=60)
        assert {headers["X-Wherry-Delivery"] for headers, _ in listener.heard} == {number}
        assert secret not in lab.command("webhook", "ls") and secret not in lab.log
        lab.command("webhook", "rm", "1")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1",
     "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "100.64.0.1", "no"],
)  # fmt: skip
def test_addresses_nobody_goes_to(address: str) -> None:
    assert not Rules().allows(address, 443)


def test_addresses_that_are_fine() -> None:
    assert Rules().allows("93.184.215.14", 443) and Rules().allows("2606:4700::1111", 443)
    assert not Rules().allows("93.184.215.14", 22)
    inside = Rules(networks(["10.0.0.0/8"]))
    assert inside.allows("10.0.0.1", 9000) and not inside.allows("192.168.0.1", 443)


@pytest.mark.parametrize(
    "url",
    ["http://example.com/", "ftp://x/", "https://", "https://u:p@example.com/", "https://example.com:22/",
     "https://example.com:x/", "file:///etc/passwd", "x"],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        Rules().check_url(url)
