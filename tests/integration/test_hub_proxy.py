"""Images of another registry by way of a hub: fetched once, kept, served while the other is away."""

from __future__ import annotations

import concurrent.futures
import http.server
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator

import hubstores
import pytest
from hublab import CONFIG, LAYER, MANIFEST, LabHub, hub, sha
from patience import patiently, until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("hub-proxy")]


class Upstream:
    """A registry of one repository, which counts what it is asked and can be made to misbehave.

    :ivar status: what it answers to everything; 0: what is right.
    :ivar hold: while it is not set, blobs stop in the middle.
    :ivar lies: whether a blob's bytes are others.
    :ivar breaks: how often it breaks a blob off in the middle.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.asked: Counter[str] = Counter()
        self.seen: list[tuple[str, str]] = []
        self.status, self.lies, self.breaks, self.realm, self.redirect = 0, False, 0, "", ""
        self.hold = threading.Event()
        self.hold.set()
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, bytes] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.server.server_port}"

    def image(self, tag: str, size: int = 3_000_000) -> dict[str, object]:
        layer, config = os.urandom(size), json.dumps({"os": "linux", "n": os.urandom(4).hex()}).encode()
        for data in (layer, config):
            self.blobs[sha(data)] = data
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": sha(config), "size": len(config)},
            "layers": [{"mediaType": LAYER, "digest": sha(layer), "size": len(layer)}],
        }
        self.tags[tag] = json.dumps(document).encode()
        return document

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path, method = request.path, request.command
        self.asked[f"{method} {path}"] += 1
        self.seen.append((path, request.headers.get("Authorization", "")))
        if self.status:
            return self.send(request, self.status, b"", {"Retry-After": "7"})
        if self.realm and "Bearer" not in request.headers.get("Authorization", ""):
            challenge = f'Bearer realm="{self.realm}",service="there"'
            return self.send(request, 401, b"", {"WWW-Authenticate": challenge})
        kind, _, reference = path.removeprefix("/v2/app/").partition("/")
        by_digest = {sha(body): body for body in self.tags.values()}
        if kind == "manifests" and (body := self.tags.get(reference) or by_digest.get(reference)):
            return self.send(
                request, 200, body, {"Content-Type": MANIFEST, "Docker-Content-Digest": sha(body)}
            )
        if kind == "tags":
            return self.send(request, 200, json.dumps({"name": "app", "tags": sorted(self.tags)}).encode())
        if kind == "blobs" and reference in self.blobs:
            if self.redirect:
                return self.send(request, 307, b"", {"Location": self.redirect})
            return self.send_blob(request, self.blobs[reference])
        return self.send(request, 404, b"{}")

    def send(
        self, request: http.server.BaseHTTPRequestHandler, status: int, body: bytes,
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        request.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def send_blob(self, request: http.server.BaseHTTPRequestHandler, data: bytes) -> None:
        if self.lies:
            data = bytes(len(data))
        first = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        request.send_response(206 if first else 200)
        request.send_header("Content-Length", str(len(data) - first))
        request.end_headers()
        if request.command == "HEAD":
            return
        middle = max(first, len(data) // 2)
        request.wfile.write(data[first:middle])
        request.wfile.flush()
        if self.breaks and first < len(data) // 2:
            self.breaks -= 1
            request.close_connection = True
            request.connection.close()
            return
        if self.hold.wait(patiently(20)):
            request.wfile.write(data[middle:])
        else:  # whoever waits for the whole of it gets nothing
            request.close_connection = True
            request.connection.close()


@pytest.fixture
def other() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.hold.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module", params=["files", "s3"])
def lab(request: pytest.FixtureRequest) -> Iterator[LabHub]:
    known = "--proxy-networks", "127.0.0.9/32"
    if request.param == "files":
        with hub(*known) as made:
            yield made
    else:
        with hubstores.s3() as objects, hub(*known, "--objects", objects.bucket(), env=objects.env) as made:
            yield made


@pytest.fixture
def space(lab: LabHub, other: Upstream, name: str) -> Iterator[str]:
    """The namespace of a public proxy of the other registry."""
    lab.command("proxy", "add", name, other.url, "--public", "--ttl", "1h")
    yield name
    lab.command("proxy", "rm", name)


def layer_of(document: dict[str, object]) -> str:
    return str(document["layers"][0]["digest"])  # type: ignore[index]


def test_an_image_is_fetched_once_and_served_while_the_other_is_away(
    lab: LabHub, other: Upstream, space: str
) -> None:
    document = other.image("v1")
    for _ in range(2):
        got = lab.ask("GET", f"/v2/{space}/app/manifests/v1", user=None).expect(200)
        assert got.body == other.tags["v1"] and got.headers["Content-Type"] == MANIFEST
        for digest in (layer_of(document), document["config"]["digest"]):  # type: ignore[index]
            blob = lab.ask("GET", f"/v2/{space}/app/blobs/{digest}", user=None).expect(200)
            assert sha(blob.body) == digest
    assert set(other.asked.values()) == {1}, other.asked
    assert lab.ask("GET", f"/v2/{space}/app/tags/list", user=None).json["tags"] == ["v1"]
    other.status = 503
    by_digest = lab.ask("GET", f"/v2/{space}/app/manifests/{sha(other.tags['v1'])}", user=None).expect(200)
    assert by_digest.body == other.tags["v1"]
    lab.ask("GET", f"/v2/{space}/app/blobs/{layer_of(document)}", user=None).expect(200)
    assert lab.ask("GET", f"/v2/{space}/app/tags/list", user=None).json["tags"] == ["v1"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_tag_that_cannot_be_asked_after_is_served_as_it_was(
    lab: LabHub, other: Upstream, name: str, status: int
) -> None:
    lab.command("proxy", "add", name, other.url, "--public", "--ttl", "0")
    other.image("v1")
    lab.ask("GET", f"/v2/{name}/app/manifests/v1", user=None).expect(200)
    other.status = status
    got = lab.ask("GET", f"/v2/{name}/app/manifests/v1", user=None).expect(200)
    assert got.body == other.tags["v1"] and got.headers["Warning"].startswith('299 - "')
    nothing = lab.ask("GET", f"/v2/{name}/app/manifests/v2", user=None)
    assert nothing.status == (429 if status == 429 else 502) and nothing.headers["Retry-After"]
    other.status = 0
    other.image("v1")
    moved = lab.ask("GET", f"/v2/{name}/app/manifests/v1", user=None).expect(200)
    assert moved.body == other.tags["v1"] and "Warning" not in moved.headers
    del other.tags["v1"]
    assert lab.ask("GET", f"/v2/{name}/app/manifests/v1", user=None).expect(404).codes == ["MANIFEST_UNKNOWN"]
    lab.command("proxy", "rm", name)


def test_fifty_pulls_at_once_are_one_at_the_other(lab: LabHub, other: Upstream, space: str) -> None:
    document = other.image("v1", 8_000_000)
    other.hold.clear()

    def pull(_number: int) -> bytes:
        lab.ask("GET", f"/v2/{space}/app/manifests/v1", user=None).expect(200)
        return lab.ask("GET", f"/v2/{space}/app/blobs/{layer_of(document)}", user=None).expect(200).body

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        pulls = [pool.submit(pull, number) for number in range(50)]
        path = f"GET /v2/app/blobs/{layer_of(document)}"
        until(lambda: other.asked[path], "the blob is asked for")
        other.hold.set()
        assert {sha(one.result()) for one in pulls} == {layer_of(document)}
    assert other.asked[path] == 1 and other.asked["GET /v2/app/manifests/v1"] == 1


def test_bytes_come_before_the_blob_is_whole(lab: LabHub, other: Upstream, space: str) -> None:
    import http.client

    document = other.image("v1", 8_000_000)
    other.hold.clear()
    connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=60)
    connection.request("GET", f"/v2/{space}/app/blobs/{layer_of(document)}")
    answer = connection.getresponse()
    assert answer.status == 200 and answer.headers["Content-Length"] == "8000000"
    first = answer.read(1_000_000)
    assert not other.hold.is_set()
    other.hold.set()
    assert sha(first + answer.read()) == layer_of(document)
    connection.close()


def test_a_broken_blob_is_gone_on_with(lab: LabHub, other: Upstream, space: str) -> None:
    document = other.image("v1", 8_000_000)
    other.breaks = 1
    got = lab.ask("GET", f"/v2/{space}/app/blobs/{layer_of(document)}", user=None).expect(200)
    assert sha(got.body) == layer_of(document)
    assert other.asked[f"GET /v2/app/blobs/{layer_of(document)}"] == 2


def test_wrong_bytes_are_nobodys(lab: LabHub, other: Upstream, space: str) -> None:
    import http.client

    document = other.image("v1")
    other.lies = True
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        lab.ask("GET", f"/v2/{space}/app/blobs/{layer_of(document)}", user=None)
    other.lies = False
    got = lab.ask("GET", f"/v2/{space}/app/blobs/{layer_of(document)}", user=None).expect(200)
    assert sha(got.body) == layer_of(document)


def test_ranges_and_heads(lab: LabHub, other: Upstream, space: str) -> None:
    document = other.image("v1")
    path = f"/v2/{space}/app/blobs/{layer_of(document)}"
    head = lab.ask("HEAD", path, user=None).expect(200)
    assert head.headers["Content-Length"] == "3000000"
    part = lab.ask("GET", path, None, {"Range": "bytes=5-9"}, user=None).expect(206)
    assert part.body == other.blobs[layer_of(document)][5:10]
    lab.ask("GET", f"/v2/{space}/app/blobs/{sha(b'nowhere')}", user=None).expect(404)
    lab.ask("GET", f"/v2/{space}/nowhere/manifests/v1", user=None).expect(404)


def test_nobody_pushes_into_copies(lab: LabHub, other: Upstream, space: str) -> None:
    other.image("v1")
    lab.ask("GET", f"/v2/{space}/app/manifests/v1", user=None).expect(200)
    for repository in ("app", "new"):
        lab.ask("POST", f"/v2/{space}/{repository}/blobs/uploads/", b"").expect(403)
    assert "already exists" in lab.command(
        "account", "add", space, "--password-stdin", stdin="a long password", status=1
    )


def test_a_proxy_that_is_not_public_is_for_accounts(lab: LabHub, other: Upstream, name: str) -> None:
    lab.command("proxy", "add", name, other.url)
    other.image("v1")
    for _ in range(2):  # before anything is copied, and afterwards
        lab.ask("GET", f"/v2/{name}/app/manifests/v1", user=None).expect(401)
        lab.ask("GET", f"/v2/{name}/app/manifests/v1").expect(200)
    bearer = {"Authorization": lab.token(f"repository:{name}/app:pull")}
    lab.ask("GET", f"/v2/{name}/app/manifests/v1", None, bearer).expect(200)
    lab.command("proxy", "rm", name)
    lab.ask("GET", f"/v2/{name}/app/manifests/v1").expect(404)


def test_a_quota_lets_bytes_through_and_keeps_none(lab: LabHub, other: Upstream, space: str) -> None:
    document = other.image("v1")
    lab.command("repository", "quota", space, "1000")
    path = f"GET /v2/app/blobs/{layer_of(document)}"
    for count in (1, 2):
        got = lab.ask("GET", f"/v2/{space}/app/blobs/{layer_of(document)}", user=None).expect(200)
        assert sha(got.body) == layer_of(document)
        assert other.asked[path] >= count


def test_a_mirror_answers_for_what_is_not_here(lab: LabHub, other: Upstream, name: str) -> None:
    lab.command("proxy", "add", "--mirror", other.url, "--public")
    try:
        other.image("v1")
        assert lab.ask("GET", "/v2/app/manifests/v1", user=None).expect(200).body == other.tags["v1"]
        lab.image(f"{name}/app", "mine")
        lab.ask("GET", f"/v2/{name}/app/manifests/mine").expect(200)
        lab.ask("GET", f"/v2/{name}/app/manifests/mine", user=None).expect(401)
        lab.ask("GET", f"/v2/{name}/app/manifests/other").expect(404)
    finally:
        lab.command("proxy", "rm", "--mirror")


def test_a_password_goes_to_its_registry_alone(lab: LabHub, other: Upstream, name: str) -> None:
    """A registry that names another token service later, or redirects, does not get it sent there."""
    thief = Upstream()
    try:
        lab.command(
            "proxy", "add", name, other.url, "--username", "me", "--password-stdin", "--public",
            stdin="a secret",
        )  # fmt: skip
        document = other.image("v1")
        lab.ask("GET", f"/v2/{name}/app/manifests/v1", user=None).expect(200)
        assert any(credentials.startswith("Basic") for _, credentials in other.seen)
        for address in ("127.0.0.1", "127.0.0.9", "localhost"):
            other.redirect = f"http://{address}:{thief.server.server_port}/there"
            lab.ask("GET", f"/v2/{name}/app/blobs/{layer_of(document)}", user=None).expect(404, 502)
        other.redirect, other.realm = "", f"http://127.0.0.1:{thief.server.server_port}/token"
        lab.ask("GET", f"/v2/{name}/app/manifests/v2", user=None).expect(404, 502)
        assert all(not credentials for _, credentials in thief.seen)
        # It is not even asked: nothing that only the hub can reach is.
        assert thief.seen == []
    finally:
        thief.server.shutdown()
        thief.server.server_close()
        lab.command("proxy", "rm", name)


def test_bytes_that_lie_elsewhere_are_fetched_there(lab: LabHub, other: Upstream, name: str) -> None:
    """As with registries that keep their objects in a store of their own: without the credentials."""
    store = Upstream("127.0.0.9")
    try:
        lab.command(
            "proxy", "add", name, other.url, "--username", "me", "--password-stdin", "--public",
            stdin="a secret",
        )  # fmt: skip
        document = other.image("v1")
        store.blobs = other.blobs
        other.redirect = f"{store.url}/v2/app/blobs/{layer_of(document)}"
        got = lab.ask("GET", f"/v2/{name}/app/blobs/{layer_of(document)}", user=None).expect(200)
        assert sha(got.body) == layer_of(document)
        assert [credentials for _, credentials in store.seen] == [""]
    finally:
        store.server.shutdown()
        store.server.server_close()
        lab.command("proxy", "rm", name)


def test_copies_that_nobody_pulls_go(other: Upstream) -> None:
    """And those that are pulled stay whole, as their blobs stay with them."""
    with hub("--proxy-keep", "2s", "--grace", "1s", "--trash", "0s", "--collect-every", "1s") as lab:
        lab.command("proxy", "add", "there", other.url, "--public", "--ttl", "1h")
        document = other.image("v1")
        lab.ask("GET", "/v2/there/app/manifests/v1", user=None).expect(200)
        lab.ask("GET", f"/v2/there/app/blobs/{layer_of(document)}", user=None).expect(200)
        objects = lab.base / "root" / "objects"
        assert [path for path in objects.glob("*/*") if path.is_file()]
        until(lambda: not [p for p in objects.glob("*/*") if p.is_file()], "the copy goes", seconds=60)
        lab.ask("GET", f"/v2/there/app/blobs/{layer_of(document)}", user=None).expect(200)
