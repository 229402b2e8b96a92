"""Teams, robots, identities of CI systems, tags that end, images that must be signed, Docker Hub's pages of
tags."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hublab import CONFIG, INDEX, MANIFEST, LabHub, hub, sha
from patience import until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("hub-people")]
SECRET = "a password of theirs"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabHub]:
    with hub("--collect-every", "1s") as made:
        for name in ("olga", "ben"):
            made.add_account(name, SECRET)
        yield made


@pytest.fixture
def org(lab: LabHub, name: str) -> str:
    lab.command("org", "add", name, "olga")
    return name


OLGA, BEN = ("olga", SECRET), ("ben", SECRET)


def reads(lab: LabHub, repository: str, user: tuple[str, str]) -> bool:
    by_basic = lab.ask("GET", f"/v2/{repository}/tags/list", user=user).status == 200
    token = {"Authorization": lab.token(f"repository:{repository}:pull", user)}
    by_token = lab.ask("GET", f"/v2/{repository}/tags/list", None, token).status == 200
    assert by_basic == by_token
    return by_basic


def writes(lab: LabHub, repository: str, user: tuple[str, str]) -> bool:
    return lab.ask("POST", f"/v2/{repository}/blobs/uploads/", b"", user=user).status == 202


def test_a_team_is_given_what_its_members_have(lab: LabHub, org: str) -> None:
    for repository in ("app", "other"):
        lab.image(f"{org}/{repository}", "v1")
    assert not reads(lab, f"{org}/app", BEN)
    lab.command("team", "add", f"{org}/dev")
    lab.command("team", "member", f"{org}/dev", "ben")
    lab.command("team", "grant", f"{org}/dev", f"{org}/app", "write")
    assert reads(lab, f"{org}/app", BEN) and writes(lab, f"{org}/app", BEN)
    assert not reads(lab, f"{org}/other", BEN)
    catalog = lab.ask("GET", "/v2/_catalog", user=BEN).json["repositories"]
    assert [one for one in catalog if one.startswith(f"{org}/")] == [f"{org}/app"]
    lab.command("team", "grant", f"{org}/dev", "*", "read")
    assert reads(lab, f"{org}/other", BEN) and not writes(lab, f"{org}/other", BEN)
    assert lab.command("team", "ls", org).splitlines()[1].split() == [
        "dev",
        "ben",
        "*:read",
        f"{org}/app:write",
    ]
    held = {"Authorization": lab.token(f"repository:{org}/app:pull", BEN)}
    lab.command("team", "member", f"{org}/dev", "ben", "--remove")
    assert not reads(lab, f"{org}/app", BEN)
    path = f"/v2/{org}/app/tags/list"
    until(lambda: lab.ask("GET", path, None, held).status == 401, "the bearer token ends", seconds=10)
    for words, why in (
        (("team", "add", f"{org}/dev"), "already"),
        (("team", "grant", f"{org}/dev", "other/app", "read"), "does not belong to"),
        (("team", "member", f"{org}/nobody", "ben"), "no such team"),
        (("team", "add", "nowhere/dev"), "no such organisation"),
    ):
        assert why in lab.command(*words, status=1)


def test_a_robot_has_a_token_and_no_password(lab: LabHub, org: str) -> None:
    lab.image(f"{org}/app", "v1")
    lab.image(f"{org}/other", "v1")
    robot = f"{org}+ci"
    token = lab.command("robot", "add", robot, "--level", "write", "--repository", f"{org}/app").strip()
    mine = (robot, token)
    assert reads(lab, f"{org}/app", mine) and writes(lab, f"{org}/app", mine)
    assert not reads(lab, f"{org}/other", mine) and not writes(lab, "elsewhere/app", mine)
    for wrong in ("", SECRET, "wht_" + "x" * 49):
        lab.ask("GET", f"/v2/{org}/app/tags/list", user=(robot, wrong)).expect(401)
    assert lab.command("robot", "ls", org).splitlines()[1].split() == [robot, "write"]
    lab.command("robot", "rm", robot)
    lab.ask("GET", f"/v2/{org}/app/tags/list", user=mine).expect(401)


class Issuer:
    """What a CI system publishes, and the tokens it gives its jobs."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(outer.pages().get(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def pages(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        return {
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/keys"},
            "/keys": {"keys": [{**public, "kid": "one", "alg": "ES256", "use": "sig"}]},
        }

    def token(self, key: Any = None, kid: str = "one", algorithm: str = "ES256", **claims: Any) -> str:
        usual = {"iss": self.url, "aud": "the-hub", "sub": "repo:me/app:main", "exp": int(time.time()) + 60}
        wanted = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(wanted, key or self.key, algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_job_is_let_in_by_its_identity(lab: LabHub, org: str, issuer: Issuer) -> None:
    lab.image(f"{org}/app", "v1")
    robot = f"{org}+ci"
    lab.command("robot", "add", robot, "--level", "write", "--no-token")
    trust = lab.command(
        "trust", "add", robot, issuer.url, "--subject", "repo:me/app:*", "--audience", "the-hub"
    ).split()[1]
    good = issuer.token()
    assert reads(lab, f"{org}/app", (robot, good)) and writes(lab, f"{org}/app", (robot, good))
    stranger = ec.generate_private_key(ec.SECP256R1())
    public = issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header, claims, _ = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"one"}').decode().rstrip("=")
    wrong = {
        "another key": issuer.token(key=stranger),
        "an unknown key": issuer.token(kid="two"),
        "another audience": issuer.token(aud="elsewhere"),
        "no audience": issuer.token(aud=None),
        "another subject": issuer.token(sub="repo:you/app:main"),
        "another issuer": issuer.token(iss="https://elsewhere.example"),
        "expired": issuer.token(exp=int(time.time()) - 3600),
        "no expiry": issuer.token(exp=None),
        "not yet": issuer.token(nbf=int(time.time()) + 3600),
        "the public key as a secret": _hmac(header, claims, public),
        "not signed": f"{none}.{claims}.",
        "cut": good[:-4],
        "no claims": f"{header}..x",
    }
    for why, token in wrong.items():
        assert lab.ask("GET", f"/v2/{org}/app/tags/list", user=(robot, token)).status == 401, why
    lab.ask("GET", f"/v2/{org}/app/tags/list", user=("olga", good)).expect(401)
    held = {"Authorization": lab.token(f"repository:{org}/app:pull", (robot, issuer.token()))}
    lab.command("trust", "rm", trust)
    lab.ask("GET", f"/v2/{org}/app/tags/list", user=(robot, good)).expect(401)
    path = f"/v2/{org}/app/tags/list"
    until(lambda: lab.ask("GET", path, None, held).status == 401, "what it held ends", seconds=10)
    refused = lab.command(
        "trust", "add", robot, "http://ci.example", "--subject", "*", "--audience", "x", status=1
    )
    assert "invalid issuer" in refused


def _hmac(_header: str, claims: str, public: bytes) -> str:
    """The old trick: a token "signed" with what everybody knows."""
    import hashlib
    import hmac

    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"one","typ":"JWT"}').decode().rstrip("=")
    mac = hmac.new(public, f"{head}.{claims}".encode(), hashlib.sha256).digest()
    return f"{head}.{claims}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def test_a_tag_goes_when_its_time_has_come(lab: LabHub, name: str) -> None:
    image = lab.image(f"{name}/app", "soon")
    lab.image(f"{name}/app", "later")
    lab.command("tag", "expire", f"{name}/app:soon", "0s")
    lab.command("tag", "expire", f"{name}/app:later", "1d")
    until(
        lambda: lab.ask("GET", f"/v2/{name}/app/tags/list").json["tags"] == ["later"], "the tag goes",
        seconds=30,
    )  # fmt: skip
    lab.command("tag", "revert", f"{name}/app:soon", image)
    lab.command("tag", "expire", f"{name}/app:later", "never")
    assert "no tag" in lab.command("tag", "expire", f"{name}/app:nothing", "1d", status=1)
    assert lab.ask("GET", f"/v2/{name}/app/tags/list").json["tags"] == ["later", "soon"]
    rule = lab.command("rule", "immutable", f"{name}/app", "--tags", "soon").split()[1]
    assert "immutable" in lab.command("tag", "expire", f"{name}/app:soon", "1d", status=1)
    lab.command("rule", "rm", rule)


def cosign(lab: LabHub, repository: str, digest: str, key: Any, *, bundle: bool = False) -> None:
    """Sign an image as cosign does."""
    if bundle:
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": digest.partition(":")[2]}}],
        }
        payload, kind = json.dumps(statement).encode(), "application/vnd.in-toto+json"
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
        envelope = {
            "payload": base64.b64encode(payload).decode(), "payloadType": kind,
            "signatures": [{"sig": _sign(key, signed)}],
        }  # fmt: skip
        data = json.dumps({"dsseEnvelope": envelope}).encode()
        layer: dict[str, Any] = {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}
    else:
        image = {"docker-manifest-digest": digest}
        data = json.dumps({"critical": {"image": image, "type": "cosign container image signature"}}).encode()
        layer = {
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "annotations": {"dev.cosignproject.cosign/signature": _sign(key, data)},
        }
    config = b"{}"
    for blob in (data, config):
        lab.blob(repository, blob)
    document: dict[str, Any] = {
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": sha(config), "size": len(config)},
        "layers": [{**layer, "digest": sha(data), "size": len(data)}],
    }  # fmt: skip
    if bundle:
        document["subject"] = {"mediaType": MANIFEST, "digest": digest, "size": 1}
    lab.manifest(repository, document, "" if bundle else f"{digest.replace(':', '-')}.sig")


def _sign(key: Any, data: bytes) -> str:
    return base64.b64encode(key.sign(data, ec.ECDSA(hashes.SHA256()))).decode()


@pytest.mark.parametrize("bundle", [False, True], ids=["tag", "bundle"])
def test_only_signed_images_are_given_away(lab: LabHub, name: str, tmp_path: Path, bundle: bool) -> None:
    key, stranger = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "cosign.pub").write_bytes(public)
    repository = f"{name}/app"
    image = lab.image(repository, "v1")
    lab.image(repository, "nightly")
    lab.command("repository", "publish", repository)
    rule = lab.command(
        "rule", "signed", repository, "--tags", "v*", "--key", str(tmp_path / "cosign.pub")
    ).split()[1]

    def status(reference: str) -> int:
        return lab.ask("GET", f"/v2/{repository}/manifests/{reference}", user=None).status

    assert status("v1") == status(image) == 403 and status("nightly") == 200
    lab.ask("GET", f"/v2/{repository}/manifests/v1").expect(200)  # whoever may push has to read it to sign it
    cosign(lab, repository, image, stranger, bundle=bundle)
    assert status("v1") == 403
    other = lab.image(repository, "v2")
    cosign(lab, repository, other, key, bundle=bundle)
    assert status("v2") == 200 and status("v1") == 403
    cosign(lab, repository, image, key, bundle=bundle)
    assert status("v1") == status(image) == 200
    member = lab.image(repository)
    index = {
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{"mediaType": MANIFEST, "digest": member, "size": 9}],
    }  # fmt: skip
    both = lab.manifest(repository, index, "v3")
    assert status("v3") == status(member) == 403
    cosign(lab, repository, both, key, bundle=bundle)
    assert status("v3") == status(member) == 200
    lab.command("rule", "rm", rule)
    (tmp_path / "none").write_text("x")
    assert "not a public key" in lab.command(
        "rule", "signed", repository, "--key", str(tmp_path / "none"), status=1
    )


def test_tags_by_the_paths_of_docker_hub(lab: LabHub, name: str) -> None:
    images = {f"v{n}": lab.image(f"{name}/app", f"v{n}") for n in range(5)}
    page = (
        lab.ask("GET", f"/v2/repositories/{name}/app/tags?page_size=2&page=2&ordering=name").expect(200).json
    )
    assert page["count"] == 5 and [one["name"] for one in page["results"]] == ["v2", "v3"]
    assert "page=3" in page["next"] and "page=1" in page["previous"]
    last = lab.ask("GET", page["next"].partition(lab.host)[2]).expect(200).json
    assert [one["name"] for one in last["results"]] == ["v4"] and last["next"] is None
    one = lab.ask("GET", f"/v2/namespaces/{name}/repositories/app/tags/v3").expect(200).json
    assert one["digest"] == images["v3"] and one["images"][0]["digest"] == images["v3"]
    assert one["full_size"] > 0 and one["last_updated"].endswith("Z")
    found = lab.ask("GET", f"/v2/repositories/{name}/app/tags/?name=4").json["results"]
    assert [tag["name"] for tag in found] == ["v4"]
    assert lab.ask("GET", f"/v2/repositories/{name}/app/tags?name=%25").json["count"] == 0
    lab.ask("GET", f"/v2/repositories/{name}/app/tags/v9").expect(404)
    lab.ask("GET", f"/v2/repositories/{name}/app/tags?ordering=size").expect(400)
    lab.ask("GET", f"/v2/repositories/{name}/app/tags", user=None).expect(401)
    lab.ask("DELETE", f"/v2/repositories/{name}/app/tags/v1").expect(405)
