"""A client that walks through the whole distribution specification as a conformance program does: every kind
of content by every operation, and then its own clean-up.

It stays on one connection, so an answer whose length is wrong breaks the next one. It answers challenges like
a client: it asks the token service for exactly the scope of the challenge.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from hublab import ADMIN, CONFIG, INDEX, LAYER, MANIFEST, Answer, LabHub, basic, sha
from patience import patiently

EMPTY = "application/vnd.oci.empty.v1+json"
OCTETS = {"Content-Type": "application/octet-stream"}
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
CODES = frozenset(
    "BLOB_UNKNOWN BLOB_UPLOAD_INVALID BLOB_UPLOAD_UNKNOWN DIGEST_INVALID MANIFEST_BLOB_UNKNOWN"
    " MANIFEST_INVALID MANIFEST_UNKNOWN NAME_INVALID NAME_UNKNOWN SIZE_INVALID UNAUTHORIZED DENIED"
    " UNSUPPORTED TOOMANYREQUESTS".split()
)
"""The codes of the specification's table."""


class Walker:
    """:param bearer: whether it answers challenges with tokens, or sends the password at once."""

    def __init__(self, lab: LabHub, *, bearer: bool, user: tuple[str, str] = ADMIN) -> None:
        self._lab, self._bearer, self._user = lab, bearer, user
        self._connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=patiently(60))
        self._tokens: dict[str, str] = {}

    def close(self) -> None:
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; a second one with a token if the first one is challenged."""
        name = re.sub(r"/(manifests|blobs|tags|referrers)/.*", "", path)
        send = dict(headers or {})
        if not self._bearer:
            send["Authorization"] = basic(*self._user)
        elif name in self._tokens:
            send["Authorization"] = self._tokens[name]
        streamed = body is not None and not isinstance(body, bytes)
        pieces = list(body) if streamed else []  # type: ignore[arg-type]
        answer = self._once(method, path, iter(pieces) if streamed else body, send)
        if answer.status == 401 and self._bearer:
            send["Authorization"] = self._tokens[name] = self._token(answer)
            answer = self._once(method, path, iter(pieces) if streamed else body, send)
        if 400 <= answer.status < 500 and method != "HEAD":
            for one in answer.json["errors"]:
                assert re.fullmatch(r"[A-Z_]+", one["code"]), one
        return answer

    def _once(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None, headers: Mapping[str, str]
    ) -> Answer:
        self._connection.request(method, path, body, dict(headers))
        answer = self._connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())

    def _token(self, challenged: Answer) -> str:
        challenge = challenged.headers["WWW-Authenticate"]
        found = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        assert challenge.startswith("Bearer ") and found["realm"].endswith("/token"), challenge
        query = f"service={quote(found['service'])}&scope={quote(found.get('scope', ''))}"
        credentials = {"Authorization": "Basic " + base64.b64encode(":".join(self._user).encode()).decode()}
        answer = self._once("GET", f"/token?{query}", None, credentials).expect(200)
        return f"Bearer {answer.json['token']}"

    # ---- blobs -----------------------------------------------------------------------------------------

    def begin(self, repo: str, query: str = "") -> tuple[str, int]:
        """Where an upload goes on, and the smallest chunk."""
        path = f"/v2/{repo}/blobs/uploads/{query}"
        answer = self.ask("POST", path, b"", {"Content-Length": "0"}).expect(202)
        return answer.headers["Location"], int(answer.headers.get("OCI-Chunk-Min-Length", "1024"))

    def post_put(self, repo: str, data: bytes, digest: str, sent: bytes | None = None) -> Answer:
        place, _ = self.begin(repo)
        return self.ask("PUT", with_digest(place, digest), data if sent is None else sent, OCTETS)

    def post_only(self, repo: str, data: bytes, digest: str, sent: bytes | None = None) -> Answer:
        path = f"/v2/{repo}/blobs/uploads/?digest={digest}"
        return self.ask("POST", path, data if sent is None else sent, OCTETS)

    def streamed(self, repo: str, data: bytes, digest: str, sent: bytes | None = None) -> Answer:
        place, _ = self.begin(repo, algorithm_query(digest))
        whole = data if sent is None else sent
        pieces = iter([whole[at : at + 700] for at in range(0, len(whole), 700)])
        done = self.ask("PATCH", place, pieces, OCTETS).expect(202)
        return self.ask("PUT", with_digest(done.headers["Location"], digest), b"", {"Content-Length": "0"})

    def chunked(self, repo: str, data: bytes, digest: str, sent: bytes | None = None) -> Answer:
        return self._chunked(repo, data if sent is None else sent, digest, last_by_put=False)

    def chunked_put(self, repo: str, data: bytes, digest: str, sent: bytes | None = None) -> Answer:
        return self._chunked(repo, data if sent is None else sent, digest, last_by_put=True)

    def _chunked(self, repo: str, data: bytes, digest: str, *, last_by_put: bool) -> Answer:
        place, least = self.begin(repo, algorithm_query(digest))
        chunks = [(at, data[at : at + least]) for at in range(0, len(data), least)] or [(0, b"")]
        last = chunks.pop() if last_by_put else (0, b"")
        for at, chunk in chunks:
            end = max(0, at + len(chunk) - 1)
            send = OCTETS if not chunk else {**OCTETS, "Content-Range": f"{at}-{end}"}
            done = self.ask("PATCH", place, chunk, send).expect(202)
            assert done.headers["Range"] == f"0-{end}"
            place = done.headers["Location"]
        more = {"Content-Range": f"{last[0]}-{last[0] + len(last[1]) - 1}"} if last[1] else {}
        return self.ask("PUT", with_digest(place, digest), last[1], {**OCTETS, **more})

    def verified(self, repo: str, data: bytes, digest: str, done: Answer) -> None:
        """The answer to a push is right, and the blob is there."""
        done.expect(201)
        assert done.headers["Docker-Content-Digest"] == digest
        assert self.ask("GET", done.headers["Location"]).expect(200).body == data
        for method in ("HEAD", "GET"):
            got = self.ask(method, f"/v2/{repo}/blobs/{digest}").expect(200)
            assert got.headers["Docker-Content-Digest"] == digest
            assert got.headers["Content-Length"] == str(len(data))
            assert got.body == (data if method == "GET" else b"")

    def delete(self, repo: str, kind: str, reference: str) -> None:
        """It is deleted at once, and cannot be deleted twice."""
        path = f"/v2/{repo}/{kind}/{reference}"
        self.ask("DELETE", path).expect(202)
        for method in ("HEAD", "GET", "DELETE"):
            self.ask(method, path).expect(404)


def with_digest(place: str, digest: str) -> str:
    return f"{place}{'&' if '?' in place else '?'}digest={digest}"


def algorithm_query(digest: str) -> str:
    algorithm = digest.partition(":")[0]
    return "" if algorithm == "sha256" else f"?digest-algorithm={algorithm}"


# ---- content -------------------------------------------------------------------------------------------


@dataclass
class Document:
    """A manifest to push. ``tag``: it is pushed under this tag as well."""

    body: bytes
    digest: str
    tag: str = ""

    @property
    def value(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def media_type(self) -> str:
        return str(self.value.get("mediaType", MANIFEST))

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.body), **more}


@dataclass
class Content:
    """What is pushed together: blobs, then manifests in this order."""

    algorithm: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)

    def blob(self, kind: str, content: bytes, **more: Any) -> dict[str, Any]:
        """Its descriptor."""
        digest = sha(content, self.algorithm)
        self.blobs[digest] = content
        return {"mediaType": kind, "digest": digest, "size": len(content), **more}

    def document(self, value: dict[str, Any], tag: str = "") -> Document:
        body = json.dumps({"schemaVersion": 2, **value}).encode()
        made = Document(body, sha(body, self.algorithm), tag)
        self.documents.append(made)
        return made

    def image(self, tag: str = "", layers: int = 2, kind: str = LAYER, **more: Any) -> Document:
        config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {}, "id": os.urandom(8).hex()})
        return self.document(
            {
                "mediaType": MANIFEST,
                "config": self.blob(CONFIG, config.encode()),
                "layers": [self.blob(kind, os.urandom(1500)) for _ in range(layers)],
                **more,
            },
            tag,
        )

    def artifact(self, kind: str, tag: str = "", **more: Any) -> Document:
        empty = self.blob(EMPTY, b"{}")
        layers = [self.blob("text/plain", os.urandom(50).hex().encode())]
        value = {"mediaType": MANIFEST, "artifactType": kind, "config": empty, "layers": layers, **more}
        return self.document(value, tag)

    def index(self, *members: Document, tag: str = "", **more: Any) -> Document:
        manifests = [
            one.descriptor(platform={"os": "linux", "architecture": machine})
            for one, machine in zip(members, ("amd64", "arm64", "s390x"), strict=False)
        ]
        return self.document({"mediaType": INDEX, "manifests": manifests, **more}, tag)


def _image(made: Content) -> None:
    made.image("image")


def _uncompressed(made: Content) -> None:
    made.image("uncompressed", kind="application/vnd.oci.image.layer.v1.tar")


def _large(made: Content) -> None:
    made.image("large", annotations={f"org.example.{i}": "x" * 10_000 for i in range(390)})


def _index(made: Content) -> None:
    made.index(made.image(), made.image(), tag="index")


def _nested(made: Content) -> None:
    inner = [made.index(made.image(), made.image()) for _ in range(2)]
    made.index(*inner, tag="nested")


def _empty_index(made: Content) -> None:
    made.index(tag="empty")


def _artifact(made: Content) -> None:
    made.artifact("application/vnd.example.artifact", "artifact")


def _artifact_index(made: Content) -> None:
    made.index(
        made.artifact("application/vnd.example.one"),
        made.artifact("application/vnd.example.two"),
        tag="artifacts",
        artifactType="application/vnd.example.list",
    )


def _no_layers(made: Content) -> None:
    made.image("no-layers", layers=0)
    made.document(
        {
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.example.bare",
            "config": made.blob(EMPTY, b"{}"),
            "layers": [made.blob(EMPTY, b"{}")],
        },
        "bare",
    )


def _subjects(made: Content) -> None:
    image = made.image("subject")
    _refer(made, image)


def _index_subject(made: Content) -> None:
    _refer(made, made.index(made.image(), made.image(), tag="index-subject"))


def _refer(made: Content, image: Document) -> None:
    subject = image.descriptor()
    notes = {"org.opencontainers.image.created": "2026-01-01T00:00:00Z", "org.example.format": "json"}
    made.artifact("application/vnd.example.sbom", subject=subject, annotations=notes)
    made.artifact("application/vnd.example.signature", f"signed-{image.tag}", subject=subject)
    made.image(subject=subject, annotations={"org.example.kind": "image"})  # its type is its config's
    made.index(made.image(), subject=subject, annotations=notes)  # it has no type
    made.index(made.image(), subject=subject, artifactType="application/vnd.example.sbom")


def _missing_subject(made: Content) -> None:
    body = os.urandom(20)
    subject = {"mediaType": MANIFEST, "digest": sha(body, made.algorithm), "size": len(body)}
    made.artifact("application/vnd.example.sbom", "early", subject=subject)


def _custom_fields(made: Content) -> None:
    config = made.blob(CONFIG, json.dumps({"os": "linux", "org.example": {"a": [1]}}).encode())
    made.document(
        {
            "mediaType": MANIFEST,
            "config": {**config, "org.example.more": "value"},
            "layers": [{**made.blob(LAYER, os.urandom(99)), "org.example.more": {"deep": [None, True, 1.5]}}],
            "org.example.field": {"nested": ["value"]},
        },
        "custom",
    )


def _data_field(made: Content) -> None:
    inline = base64.b64encode(b"{}").decode()
    image = made.document(
        {
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.example.inline",
            "config": made.blob(EMPTY, b"{}", data=inline),
            "layers": [made.blob(EMPTY, b"{}", data=inline)],
        },
    )
    member = image.descriptor(data=base64.b64encode(image.body).decode())
    made.document({"mediaType": INDEX, "manifests": [member]}, "inline")


def _nondistributable(made: Content) -> None:
    far = os.urandom(40)
    elsewhere = {
        "mediaType": NONDISTRIBUTABLE,
        "digest": sha(far, made.algorithm),
        "size": len(far),
        "urls": ["https://store.example.com/layer"],
    }
    bare = {**elsewhere, "digest": sha(far + b".", made.algorithm)}
    del bare["urls"]
    config = made.blob(CONFIG, b'{"os":"linux"}')
    value = {"mediaType": MANIFEST, "config": config, "layers": [elsewhere, bare]}
    made.document(value, "nondistributable")


def _untyped(made: Content) -> None:
    made.document({"config": made.blob(CONFIG, b'{"os":"linux","untyped":1}'), "layers": []}, "untyped")


def _empty_blob(made: Content) -> None:
    nothing = made.blob(CONFIG, b"")
    made.document({"mediaType": MANIFEST, "config": nothing, "layers": [made.blob(LAYER, b"")]}, "nothing")


def _docker(made: Content) -> None:
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    config = made.blob("application/vnd.docker.container.image.v1+json", b'{"os":"linux","docker":1}')
    image = made.document(
        {"mediaType": docker, "config": config, "layers": [made.blob(kind, os.urandom(80))]}, "docker"
    )
    many = "application/vnd.docker.distribution.manifest.list.v2+json"
    made.document({"mediaType": many, "manifests": [image.descriptor()]}, "docker-list")


_MAKERS = (
    _image, _uncompressed, _large, _index, _nested, _empty_index, _artifact, _artifact_index, _no_layers,
    _subjects, _index_subject, _missing_subject, _custom_fields, _data_field, _nondistributable, _untyped,
    _empty_blob, _docker,
)  # fmt: skip
KINDS = {maker.__name__[1:]: maker for maker in _MAKERS}


def content(kind: str, algorithm: str) -> Content:
    """New content of a kind."""
    made = Content(algorithm)
    KINDS[kind](made)
    return made
