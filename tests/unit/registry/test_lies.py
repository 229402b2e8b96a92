"""Registries that lie: each is named with reference and reason, and nothing is half there after it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakelab import BIG, LAYER, Lab
from fakeregistry import Asked, FakeRegistry, refuse, serving
from image_tools import descriptor, open_library
from patience import patiently

from wherry.errors import WherryError
from wherry.model import digest as digests
from wherry.model import oci
from wherry.registry.config import PrefixRule, Proxies

pytestmark = pytest.mark.kernel


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    library = open_library(tmp_path / "root")
    with serving(FakeRegistry()) as registry:
        yield Lab(library, registry)
    library.layers.close()


def blob_lie(lab: Lab, data: bytes, **headers: str) -> None:
    wanted = f"/blobs/{digests.of(BIG)}"
    lab.registry.lie = lambda asked: (200, headers, data) if asked.path.endswith(wanted) else None


def stream_lie(lab: Lab, write: Callable[[Any], None]) -> None:
    def raw(asked: Asked, file: Any) -> bool:
        if not asked.path.endswith(f"/blobs/{digests.of(BIG)}"):
            return False
        write(file)
        return True

    lab.registry.raw = raw


def test_the_truth_is_pulled(lab: Lab) -> None:
    assert "Downloaded newer image" in lab.pull()[-1]
    assert "up to date" in lab.pull()[-1]
    assert len(lab.registry.asked("GET", "/blobs/")) == 3


def test_wrong_digest(lab: Lab) -> None:
    blob_lie(lab, bytes(len(BIG)))
    assert "came with the digest" in lab.refused()
    blob_lie(lab, b"short")
    assert f"is to have {len(BIG)} bytes, it sends 5" in lab.refused()


def test_short_body(lab: Lab) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG)
    stream_lie(lab, lambda file: file.write(head + BIG[:1000]))
    assert "the connection broke off" in lab.refused()
    stream_lie(lab, lambda file: file.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BIG[:1000]))
    assert f"of {len(BIG)} bytes" in lab.refused()


def test_endless_body(lab: Lab) -> None:
    def pour(file: Any) -> None:
        file.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            file.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    stream_lie(lab, pour)
    assert f"is longer than {len(BIG)} bytes" in lab.refused()
    # The other layer may have been on its way, and is what it says it is.
    ingest = lab.library.root / "content/ingest"
    assert all(LAYER.startswith(f.read_bytes()) for f in ingest.iterdir())


def test_slow_drip(lab: Lab) -> None:
    def drip(file: Any) -> None:
        file.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG))
        for byte in BIG:
            file.write(bytes([byte]))
            file.flush()
            if stopped.wait(0.1):
                return

    stopped = threading.Event()
    stream_lie(lab, drip)
    try:
        assert "comes too slowly" in lab.refused()
    finally:
        stopped.set()


def test_standing_still_in_the_middle_is_continued_by_range(lab: Lab) -> None:
    half = len(BIG) // 2
    again = threading.Event()
    times = []

    def raw(asked: Asked, file: Any) -> bool:
        if not asked.path.endswith(f"/blobs/{digests.of(BIG)}"):
            return False
        times.append(asked)
        if len(times) > 1:
            again.set()
            return False
        file.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG[:half])
        file.flush()
        again.wait(patiently(30))
        return True

    lab.registry.raw = raw
    lab.pull()
    (continued,) = lab.registry.asked("GET", f"/blobs/{digests.of(BIG)}")
    assert continued.headers["range"] == f"bytes={half}-"


def test_a_prefix_of_another_blob_is_thrown_away(lab: Lab) -> None:
    with lab.library.content.ingest(f"blob {digests.of(BIG)}") as writer:
        writer.write(bytes(1000))
    lab.pull()
    ranges = [a.headers.get("range") for a in lab.registry.asked("GET", f"/blobs/{digests.of(BIG)}")]
    assert ranges == ["bytes=1000-", None]


def test_too_many_requests_are_waited_for(lab: Lab) -> None:
    left = [1]

    def lie(asked: Asked) -> Any:
        if "/blobs/" in asked.path and left.pop():
            left.append(0)
            return refuse(429, "TOOMANYREQUESTS", "slowly", **{"Retry-After": "0"})
        left[:] = [0]
        return None

    lab.registry.lie = lie
    lab.pull()
    lab2_lie = refuse(429, "TOOMANYREQUESTS", "come back tomorrow", **{"Retry-After": "86400"})
    lab.registry.lie = lambda asked: lab2_lie
    with pytest.raises(WherryError, match="come back tomorrow"):
        lab.pull(name=f"{lab.registry.host}/a/c:1")


def test_server_errors(lab: Lab) -> None:
    lab.registry.lie = lambda asked: refuse(500, "", "") if "/blobs/" in asked.path else None
    assert "HTTP status 500" in lab.refused()


def test_redirects(lab: Lab) -> None:
    lab.registry.lie = lambda asked: (307, {"Location": asked.path}, b"") if "/blobs/" in asked.path else None
    assert "it redirects more than 10 times" in lab.refused()
    lab.registry.lie = lambda asked: (307, {"Location": "file:///etc/passwd"}, b"")
    assert "which is not followed" in lab.refused()
    with serving(FakeRegistry()) as other:
        rules = (PrefixRule(prefix=other.host, blocked=True),)
        lab.registry.lie = lambda asked: (307, {"Location": f"http://{other.host}/x"}, b"")
        assert "which is blocked" in lab.refused(rules)
        assert not other.log


@pytest.mark.parametrize(
    ("media_type", "change", "reason"),
    [
        ("text/html", {}, "text/html"),
        (oci.INDEX, {}, "manifest"),
        (oci.MANIFEST, {"mediaType": oci.INDEX}, "manifest"),
        (oci.MANIFEST, {"schemaVersion": 1}, "schema 1"),
        (oci.MANIFEST, {"config": {"size": 5 << 30}}, "configuration"),
        (oci.MANIFEST, {"config": {"mediaType": "application/x"}}, "it is not an image"),
        (oci.MANIFEST, {"layer": {"mediaType": "application/x-layer"}}, "unknown media type"),
        (oci.MANIFEST, {"layer": {"urls": ["http://elsewhere/"]}}, "fetched from elsewhere"),
        (oci.MANIFEST, {"layer": {"digest": "sha256:../../../etc/x"}}, "digest"),
        (oci.MANIFEST, {"layer": {"size": -1}}, "invalid manifest"),
        (oci.MANIFEST, {"layers": []}, "layers"),
    ],
)
def test_documents(lab: Lab, media_type: str, change: dict[str, Any], reason: str) -> None:
    raw = json.loads(json.dumps(lab.raw))
    for key, value in change.items():
        if key == "layer":
            raw["layers"][0].update(value)
        elif isinstance(value, dict):
            raw[key].update(value)
        else:
            raw[key] = value
    lab.publish(raw, media_type)
    assert reason in lab.refused()


def test_documents_that_are_hard_to_read(lab: Lab) -> None:
    text = json.dumps(lab.raw)
    lab.publish(text[:-1].encode() + b', "layers": []}')
    assert "the same member twice" in lab.refused()
    lab.publish(b'{"a":' * 100_000)
    assert "manifest" in lab.refused()
    lab.publish(json.dumps({**lab.raw, "annotations": {"x": "y" * (5 << 20)}}).encode())
    assert "larger than" in lab.refused()


def test_an_index_that_is_not_kept_to(lab: Lab) -> None:
    data = json.dumps(lab.raw).encode()
    digest = lab.registry.manifest("1", oci.MANIFEST, data)
    entry = descriptor(data, oci.MANIFEST, platform={"os": "linux", "architecture": oci.host().architecture})
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [{**entry, "size": 7}]}
    lab.publish(index, oci.INDEX)
    assert "its index says 7" in lab.refused()
    lab.publish({**index, "manifests": [{**entry, "mediaType": oci.DOCKER_MANIFEST}]}, oci.INDEX)
    assert "its index says" in lab.refused()
    lab.registry.manifests[digest] = (oci.MANIFEST, b"{}")
    lab.publish({**index, "manifests": [entry]}, oci.INDEX)
    assert f"manifest {digest}" in lab.refused()


def test_mirrors_rewrites_and_blocks(lab: Lab) -> None:
    mirror = PrefixRule(prefix="reg.example", mirrors=("http://127.0.0.1:9", f"http://{lab.registry.host}"))
    lab.pull((mirror,), "reg.example/a/b:1")
    lab.pull((PrefixRule(prefix="two.example/x", location=f"{lab.registry.host}/a"),), "two.example/x/b:1")
    with pytest.raises(WherryError, match=r"no\.example.*blocks it"):
        lab.pull((PrefixRule(prefix="no.example", blocked=True),), "no.example/a/b:1")
    assert {str(image.names[0]) for image in lab.library.images.list() if image.names} <= {
        "reg.example/a/b:1",
        "two.example/x/b:1",
    }


def test_a_proxy_is_asked_but_for_hosts_that_are_reached_without(lab: Lab) -> None:
    rule = PrefixRule(prefix="reg.example", insecure=True)
    proxies = Proxies(http=f"http://me:secret@{lab.registry.host}", none_for=(".other.example",))
    lab.pull((rule,), "reg.example/a/b:1", proxies)
    asked = lab.registry.asked("GET", "/manifests/1")
    assert {one.headers["host"] for one in asked} == {"reg.example"}
    assert all(one.headers["proxy-authorization"].startswith("Basic ") for one in asked)
    assert not any(one.authorization for one in asked)
    rule = PrefixRule(prefix="x.other.example", insecure=True)
    with pytest.raises(WherryError, match=r"x\.other\.example"):
        lab.pull((rule,), "x.other.example/a/b:1", proxies)
