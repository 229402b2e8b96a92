"""Who may do what: accounts, tokens, private repositories, and what the security list of a registry names."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator

import pytest
from hublab import ADMIN, MANIFEST, LabHub, basic, hub, sha
from patience import patiently, until

pytestmark = [pytest.mark.xdist_group("hub-access")]

ALICE, BOB = ("alice", "alice's password"), ("bob", "bob's password")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabHub]:
    with hub() as made:
        made.add_account(*ALICE)
        made.add_account(*BOB)
        yield made


@pytest.fixture
def mine(lab: LabHub, name: str) -> str:
    """A private repository of alice's with an image ``v1``."""
    repository = f"alice/{name}"
    lab.image(repository, "v1", user=ALICE)
    return repository


def test_a_private_repository_is_as_if_it_were_not_there(lab: LabHub, mine: str) -> None:
    bearer = {"Authorization": lab.token(f"repository:{mine}:pull", BOB)}
    absent = {"Authorization": lab.token("repository:alice/none:pull", BOB)}
    for path in ("manifests/v1", "tags/list", f"blobs/{sha(b'x')}", f"referrers/{sha(b'x')}"):
        for user, headers, other in ((BOB, {}, {}), (None, {}, {}), (None, bearer, absent)):
            there = lab.ask("GET", f"/v2/{mine}/{path}", user=user, headers=headers)
            nowhere = lab.ask("GET", f"/v2/alice/none/{path}", user=user, headers=other)
            assert there.status == nowhere.status and there.status in (401, 404), path
            assert there.codes == nowhere.codes
            lab.ask("GET", f"/v2/{mine}/{path}", user=ALICE).expect(200, 404)
    for path in ("blobs/uploads/", f"manifests/{sha(b'')}"):
        method = "POST" if "uploads" in path else "PUT"
        assert lab.ask(method, f"/v2/{mine}/{path}", b"", user=BOB).expect(403).codes == ["DENIED"]
    lab.ask("DELETE", f"/v2/{mine}/manifests/v1", user=BOB).expect(403)
    assert mine not in lab.ask("GET", "/v2/_catalog", user=BOB).json["repositories"]
    assert mine not in lab.ask("GET", "/v2/_catalog", user=None).json["repositories"]
    assert mine in lab.ask("GET", "/v2/_catalog", user=ALICE).json["repositories"]
    for user, found in ((ALICE, 1), (BOB, 0), (None, 0)):
        answer = lab.ask("GET", f"/v1/search?q={mine.partition('/')[2]}", user=user)
        assert answer.json["num_results"] == found


def test_public_repositories_are_everybodys_to_read(lab: LabHub, mine: str) -> None:
    lab.command("repository", "publish", mine)
    lab.ask("GET", f"/v2/{mine}/manifests/v1", user=None).expect(200)
    lab.ask("GET", f"/v2/{mine}/manifests/v1", user=BOB).expect(200)
    token = {"Authorization": lab.token(f"repository:{mine}:pull,push", None)}
    lab.ask("GET", f"/v2/{mine}/manifests/v1", user=None, headers=token).expect(200)
    lab.ask("POST", f"/v2/{mine}/blobs/uploads/", b"", user=None, headers=token).expect(401)
    lab.ask("POST", f"/v2/{mine}/blobs/uploads/", b"", user=BOB).expect(403)


def test_organisations(lab: LabHub, name: str) -> None:
    lab.command("org", "add", name, "alice")
    app = f"{name}/app"
    lab.ask("POST", f"/v2/{app}/blobs/uploads/", b"", user=BOB).expect(403)
    lab.image(app, "v1", user=ALICE)
    manifest = f"/v2/{app}/manifests/v1"
    for role, reads, pushes, deletes in (
        ("none", 404, 403, 403),
        ("member", 200, 403, 403),
        ("editor", 200, 202, 403),
        ("owner", 200, 202, 404),
    ):
        lab.command("org", "member", name, "bob", role)
        lab.ask("GET", manifest, user=BOB).expect(reads)
        listed = lab.ask("GET", "/v2/_catalog", user=BOB).json["repositories"]
        assert (app in listed) is (reads == 200), role
        lab.ask("POST", f"/v2/{app}/blobs/uploads/", b"", user=BOB).expect(pushes)
        lab.ask("POST", f"/v2/{name}/new-{role}/blobs/uploads/", b"", user=BOB).expect(pushes)
        lab.ask("DELETE", f"/v2/{app}/manifests/nope", user=BOB).expect(deletes)
    lab.ask("GET", manifest, user=None).expect(401)
    lab.command("org", "member", name, "bob", "none")
    assert "no owner" in lab.command("org", "member", name, "alice", "none", status=1)
    lab.ask("GET", manifest, user=BOB).expect(404)
    assert lab.command("org", "members", name).splitlines()[1].split() == ["alice", "owner"]
    for taken in ("alice", name, "al1ce"):
        lab.command("org", "add", taken, "alice", status=1)


def test_rights_end_within_seconds(lab: LabHub, mine: str) -> None:
    lab.command("repository", "grant", mine, "bob", "read")
    token = {"Authorization": lab.token(f"repository:{mine}:pull", BOB)}
    lab.ask("GET", f"/v2/{mine}/manifests/v1", user=None, headers=token).expect(200)
    lab.ask("GET", f"/v2/{mine}/manifests/v1", user=BOB).expect(200)
    lab.command("repository", "grant", mine, "bob", "none")
    lab.ask("GET", f"/v2/{mine}/manifests/v1", user=BOB).expect(404)
    until(
        lambda: lab.ask("GET", f"/v2/{mine}/manifests/v1", user=None, headers=token).status == 401,
        "the token has ended",
        seconds=5,
    )


def test_a_token_is_for_what_it_lists_alone(lab: LabHub, mine: str) -> None:
    lab.image("alice/other", "v1", user=ALICE)
    token = {"Authorization": lab.token(f"repository:{mine}:pull", ALICE)}
    lab.ask("GET", f"/v2/{mine}/manifests/v1", user=None, headers=token).expect(200)
    for method, path in (
        ("GET", "/v2/alice/other/manifests/v1"),
        ("GET", f"/v2/{mine}x/manifests/v1"),
        ("POST", f"/v2/{mine}/blobs/uploads/"),
        ("DELETE", f"/v2/{mine}/manifests/v1"),
        ("GET", "/v2/_catalog"),
    ):
        answer = lab.ask(method, path, b"" if method == "POST" else None, user=None, headers=token)
        assert answer.expect(401).codes == ["UNAUTHORIZED"]
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"], path


def _forged(token: str, **changes: object) -> str:
    head, claims, signature = token.removeprefix("Bearer ").split(".")
    padded = json.loads(base64.urlsafe_b64decode(head + "=="))
    padded.update(changes)
    new = base64.urlsafe_b64encode(json.dumps(padded).encode()).rstrip(b"=").decode()
    return f"Bearer {new}.{claims}.{'' if changes.get('alg') == 'none' else signature}"


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"kid": "other"},
        {"kid": None},
        {"jwk": {"kty": "EC"}},
        {"kid": ["x"]},
    ],
    ids=str,
)
def test_forged_tokens(lab: LabHub, mine: str, changes: dict[str, object]) -> None:
    token = _forged(lab.token(f"repository:{mine}:pull", ALICE), **changes)
    answer = lab.ask("GET", f"/v2/{mine}/manifests/v1", user=None, headers={"Authorization": token})
    assert answer.expect(401).codes == ["UNAUTHORIZED"]


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer x", "Basic", "Basic !!", "Basic " + "eA==", "Digest x", "x" * 9000]
)
def test_credentials_of_the_wrong_form(lab: LabHub, value: str) -> None:
    lab.ask("GET", "/v2/", user=None, headers={"Authorization": value}).expect(401)


def test_passwords(lab: LabHub) -> None:
    lab.ask("GET", "/v2/", user=("alice", "wrong")).expect(401)
    lab.ask("GET", "/v2/", user=("nobody", "wrong")).expect(401)
    lab.ask("GET", "/token", user=("alice", "wrong")).expect(401)
    lab.add_account("carol", "carol's first one")
    lab.ask("GET", "/v2/", user=("carol", "carol's first one")).expect(200)
    lab.command("account", "password", "carol", "--password-stdin", stdin="carol's second one")
    lab.ask("GET", "/v2/", user=("carol", "carol's first one")).expect(401)
    lab.ask("GET", "/v2/", user=("carol", "carol's second one")).expect(200)
    lab.command("account", "block", "carol")
    lab.ask("GET", "/v2/", user=("carol", "carol's second one")).expect(401)
    refused = lab.command("account", "add", "d", "--password-stdin", stdin="x", status=1)
    assert "a password has 8 to" in refused
    for name in ("admin", "library", "UPPER", "a/b", "x-", "alice", "al1ce", "a-lice"):
        lab.command("account", "add", name, "--password-stdin", stdin="a long password", status=1)


def test_guessing_a_password_is_stopped(lab: LabHub) -> None:
    lab.add_account("dave", "dave's password")
    codes = [lab.ask("GET", "/v2/", user=("dave", f"guess {i}")).status for i in range(22)]
    assert codes == [401] * 20 + [429] * 2
    assert lab.ask("GET", "/v2/", user=("dave", "dave's password")).headers["Retry-After"]
    lab.ask("GET", "/v2/", user=ALICE).expect(200)


def test_personal_tokens(lab: LabHub, mine: str) -> None:
    def token(*words: str) -> tuple[str, str]:
        return "alice", lab.command("token", "create", "alice", *words).strip()

    lab.image("alice/second", "v1", user=ALICE)
    reads, writes = token("--scope", "read"), token("--scope", "write", "--repository", "alice/second")
    public = token("--scope", "public_read")
    manifest = f"/v2/{mine}/manifests/v1"
    lab.ask("GET", manifest, user=reads).expect(200)
    lab.ask("POST", f"/v2/{mine}/blobs/uploads/", b"", user=reads).expect(403)
    lab.ask("GET", manifest, user=writes).expect(404)
    lab.ask("POST", "/v2/alice/second/blobs/uploads/", b"", user=writes).expect(202)
    lab.ask("DELETE", "/v2/alice/second/manifests/v1", user=writes).expect(403)
    lab.ask("GET", manifest, user=public).expect(404)
    bearer = {"Authorization": lab.token(f"repository:{mine}:pull,push,delete", reads)}
    lab.ask("GET", manifest, user=None, headers=bearer).expect(200)
    lab.ask("POST", f"/v2/{mine}/blobs/uploads/", b"", user=None, headers=bearer).expect(401)
    assert "alice/second" not in lab.ask("GET", "/v2/_catalog", user=public).json["repositories"]
    listed = lab.command("token", "ls", "alice")
    assert reads[1] not in listed and reads[1][:10] in listed
    number = next(line.split()[0] for line in listed.splitlines() if reads[1][:10] in line)
    lab.command("token", "rm", "alice", number)
    lab.ask("GET", manifest, user=reads).expect(401)
    until(
        lambda: lab.ask("GET", manifest, user=None, headers=bearer).status == 401,
        "bearers end too",
        seconds=5,
    )
    lab.ask("GET", "/v2/", user=("bob", writes[1])).expect(401)


def test_oauth2(lab: LabHub, mine: str) -> None:
    from urllib.parse import urlencode

    form = {
        "grant_type": "password", "username": ALICE[0], "password": ALICE[1], "service": "wherry-hub",
        "scope": f"repository:{mine}:pull", "access_type": "offline", "client_id": "tests",
    }  # fmt: skip
    answer = lab.ask("POST", "/token", urlencode(form).encode(), user=None).expect(200).json
    bearer = {"Authorization": f"Bearer {answer['access_token']}"}
    lab.ask("GET", f"/v2/{mine}/manifests/v1", user=None, headers=bearer).expect(200)
    form = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"], "scope": form["scope"]}
    again = lab.ask("POST", "/token", urlencode(form).encode(), user=None).expect(200).json
    assert again["refresh_token"] == answer["refresh_token"] and again["expires_in"] >= 60
    wrong = {**form, "refresh_token": "wht_" + "x" * 49}
    lab.ask("POST", "/token", urlencode(wrong).encode(), user=None).expect(401)
    lab.ask("POST", "/token", b"grant_type=what", user=None).expect(400)
    lab.ask("POST", "/token", b"\xff=\xfe", user=None).expect(400)
    lab.ask("POST", "/token", b"x" * 100_000, user=None).expect(413)
    lab.ask("GET", "/token?service=other").expect(400)


def test_blobs_are_read_through_repositories_alone(lab: LabHub, mine: str, name: str) -> None:
    """Who knows a digest does not learn whether it is here, nor gets it by mounting."""
    secret = os.urandom(100)
    digest = lab.blob(mine, secret, user=ALICE)
    for query in (f"mount={digest}&from={mine}", f"mount={digest}"):
        lab.ask("POST", f"/v2/bob/{name}/blobs/uploads/?{query}", b"", user=BOB).expect(202)
    lab.ask("GET", f"/v2/bob/{name}/blobs/{digest}", user=BOB).expect(404)
    document = json.dumps(
        {
            "schemaVersion": 2, "layers": [],
            "config": {"mediaType": "x/y", "digest": digest, "size": 100},
        }
    ).encode()  # fmt: skip
    refused = lab.ask("PUT", f"/v2/bob/{name}/manifests/v1", document, {"Content-Type": MANIFEST}, user=BOB)
    assert refused.expect(404).codes == ["MANIFEST_BLOB_UNKNOWN"]
    lab.ask("POST", f"/v2/alice/{name}2/blobs/uploads/?mount={digest}", b"", user=ALICE).expect(201)


def test_uploads_belong_to_who_began_them(lab: LabHub, mine: str) -> None:
    place = lab.begin(mine, user=ALICE)
    number = place.rpartition("/")[2]
    lab.command("repository", "grant", mine, "bob", "write")
    lab.ask("GET", place, user=BOB).expect(404)
    lab.ask("PATCH", place, b"x", user=BOB).expect(404)
    lab.ask("GET", f"/v2/alice/elsewhere/blobs/uploads/{number}", user=ALICE).expect(404)
    lab.ask("GET", place, user=ALICE).expect(204)


def test_quotas(lab: LabHub, name: str) -> None:
    lab.add_account(name, "a long password")
    user = (name, "a long password")
    lab.command("repository", "quota", name, "10000")
    lab.blob(f"{name}/a", os.urandom(6000), user=user)
    over = os.urandom(6000)
    place = lab.ask("POST", f"/v2/{name}/a/blobs/uploads/", b"", user=user).expect(202).headers["Location"]
    refused = lab.ask("PUT", f"{place}?digest={sha(over)}", over, user=user).expect(403)
    assert refused.codes == ["DENIED"] and "quota" in refused.json["errors"][0]["message"]
    lab.ask("POST", f"/v2/{name}/a/blobs/uploads/?digest={sha(over)}", over, user=user).expect(403)
    lab.blob(f"{name}/a", os.urandom(3000), user=user)


def test_parallel_pushes_do_not_pass_a_quota(lab: LabHub, name: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    lab.add_account(name, "a long password")
    user = (name, "a long password")
    lab.command("repository", "quota", name, "10000")
    places = [lab.begin(f"{name}/a", user=user) for _ in range(8)]

    def push(place: str) -> int:
        data = os.urandom(3000)
        return lab.ask("PUT", f"{place}?digest={sha(data)}", data, user=user).status

    with ThreadPoolExecutor(8) as threads:
        codes = sorted(threads.map(push, places))
    assert codes == [201] * 3 + [403] * 5


def _raw(lab: LabHub, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", lab.port), patiently(20)) as connection:
        connection.sendall(text)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_requests_that_two_parsers_could_read_differently(lab: LabHub) -> None:
    head = f"POST /v2/x/y/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(*ADMIN)}\r\n"
    both = head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert b" 400 " in _raw(lab, both.encode()).split(b"\r\n")[0]
    twice = head + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"
    assert b" 400 " in _raw(lab, twice.encode()).split(b"\r\n")[0]
    large = head + "X-Large: " + "x" * 40_000 + "\r\n\r\n"
    assert b" 400 " in _raw(lab, large.encode()).split(b"\r\n")[0]


def test_who_waits_for_leave_gets_it_or_a_refusal(lab: LabHub, name: str) -> None:
    """``Expect: 100-continue``: nothing is sent before we have said that it may be."""
    digest = sha(b"waited")
    for user, path, want in (
        (ADMIN, f"wait/{name}", b"HTTP/1.1 100 "),
        (BOB, f"alice/{name}", b"HTTP/1.1 403 "),
    ):
        head = (
            f"POST /v2/{path}/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Authorization: {basic(*user)}\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", lab.port), patiently(20)) as connection:
            connection.sendall(head.encode())
            assert connection.recv(13) == want
            if user == ADMIN:
                connection.sendall(b"waited")
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
                assert b"HTTP/1.1 201 " in answer
    lab.ask("HEAD", f"/v2/wait/{name}/blobs/{digest}").expect(200)


def test_a_bomb_stays_small(lab: LabHub, name: str) -> None:
    """A body is what was sent, whatever Content-Encoding says."""
    import gzip

    data = gzip.compress(bytes(10_000_000))
    digest = sha(data)
    place = lab.begin(f"bomb/{name}")
    lab.ask("PUT", f"{place}?digest={digest}", data, {"Content-Encoding": "gzip"}).expect(201)
    assert lab.ask("HEAD", f"/v2/bomb/{name}/blobs/{digest}").headers["Content-Length"] == str(len(data))


def test_nothing_runs_in_a_browser(lab: LabHub, mine: str) -> None:
    page = b"<script>alert(1)</script>"
    answer = lab.ask("GET", f"/v2/{mine}/blobs/{lab.blob(mine, page)}", headers={"Accept": "text/html"})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == "attachment"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_forwarded_addresses_count_from_trusted_proxies_alone(lab: LabHub, mine: str) -> None:
    answer = lab.ask(
        "GET", "/v2/", user=None, headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    )
    assert f'realm="http://{lab.host}/token"' in answer.headers["WWW-Authenticate"]


def test_the_log_has_no_secrets(lab: LabHub, mine: str) -> None:
    lab.token(f"repository:{mine}:pull", ALICE)
    lab.ask("GET", "/v2/", user=("alice", "a wrong secret")).expect(401)
    assert ALICE[1] not in lab.log and "a wrong secret" not in lab.log and "eyJ" not in lab.log
