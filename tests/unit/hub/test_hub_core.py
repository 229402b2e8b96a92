"""Names, ranges, patterns, digests, rights, secrets: what the hub knows without asking anybody."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.errors import InvalidArgument
from wherry.hub.auth import login, secrets
from wherry.hub.cli import config
from wherry.hub.core import digests, globs, manifests, names, ranges, rights
from wherry.hub.core.refusals import STATUS, Refusal
from wherry.hub.core.rights import Principal
from wherry.hub.registry import paths
from wherry.hub.registry import ranges as asked
from wherry.hub.registry.addresses import Trusted, network_of, networks
from wherry.hub.registry.limits import Limit, RequestLimits, limit


@pytest.mark.parametrize(
    ("pattern", "text", "want"),
    [
        ("a", "a", True), ("a", "ab", False), ("*", "", True), ("*", "x/y", True), ("a*", "a", True),
        ("a*", "b", False), ("*a", "ba", True), ("a*a", "a", False), ("a*a", "aa", True),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c-b", False), ("team/*", "team/a/b", True),
        ("team/*", "teams/a", False), ("**", "x", True),
        ("v*.*", "v1.2", True), ("v*.*", "v1", False), (".", "x", False), ("[a]", "a", False),
    ],
)  # fmt: skip
def test_globs(pattern: str, text: str, want: bool) -> None:
    assert globs.matches(pattern, text) is want


@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=4), st.lists(st.text("ab"), max_size=3))
def test_globs_match_what_they_are_made_of(pieces: list[str], between: list[str]) -> None:
    text = "".join(a + b for a, b in zip(pieces, [*between, "", "", "", ""], strict=False))
    joined = "".join(
        piece + ("*" if i < len(pieces) - 1 or i < len(between) else "") for i, piece in enumerate(pieces)
    )
    assert globs.matches(joined, text)


def test_a_hostile_glob_is_quick() -> None:
    assert not globs.matches("a*" * 120 + "b", "a" * 100_000)


@pytest.mark.parametrize("name", ["a", "a/b", "a.b/c_d/e__f/g-h/i---j", "0/1", "x" * 255])
def test_names(name: str) -> None:
    assert names.check_repository(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "a/", "/a", "a//b", ".a", "a.", "a..b", "a___b", "a b", "a\n", "ä", "x" * 256]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Refusal) as refused:
        names.check_repository(name)
    assert refused.value.code == "NAME_INVALID"


@pytest.mark.parametrize(
    ("tag", "fine"),
    [
        ("a", True),
        ("_", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("-a", False),
        (".a", False),
        ("", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_tags(tag: str, fine: bool) -> None:
    assert names.is_tag(tag) is fine


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("0-9", (0, 9)),
        ("bytes 5-9/*", (5, 9)),
        ("bytes 5-9/20", (5, 9)),
        ("bytes=5-9", (5, 9)),
        (" 1-1 ", (1, 1)),
    ],
)
def test_ranges_of_chunks(text: str, want: tuple[int, int]) -> None:
    assert ranges.of_chunk(text) == want


@pytest.mark.parametrize("text", ["", "-", "1-", "-1", "9-1", "a-b", "1-2,3-4", "1" * 30 + "-2", "٣-٤"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        ranges.of_chunk(text)
    assert refused.value.status == 416


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_what_a_range_gives_is_there(size: int, first: int, last: int) -> None:
    for text in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        try:
            span = asked.asked(text, size)
        except Refusal as e:
            assert e.status == 416 and e.headers["Content-Range"] == f"bytes */{size}"
            continue
        assert span is not None and 0 <= span[0] <= span[1] < size, text


def test_every_code_has_a_status() -> None:
    assert all(400 <= status < 600 for status in STATUS.values())


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("/v2/", paths.RequestPath(paths.BASE)),
        ("/v2/_catalog", paths.RequestPath(paths.CATALOG)),
        ("/v2/a/b/tags/list", paths.RequestPath(paths.TAGS, "a/b")),
        ("/v2/a/manifests/v1", paths.RequestPath(paths.MANIFEST, "a", "v1")),
        ("/v2/manifests/manifests/manifests", paths.RequestPath(paths.MANIFEST, "manifests", "manifests")),
        ("/v2/a/blobs/uploads/", paths.RequestPath(paths.UPLOADS, "a")),
        ("/v2/a/blobs/uploads", paths.RequestPath(paths.UPLOADS, "a")),
        ("/v2/a/blobs/uploads/x", paths.RequestPath(paths.UPLOAD, "a", "x")),
        ("/v2/blobs/uploads/blobs/uploads/x", paths.RequestPath(paths.UPLOAD, "blobs/uploads", "x")),
        ("/v2/a/referrers/d", paths.RequestPath(paths.REFERRERS, "a", "d")),
        ("/v2/a", None),
        ("/v2/a/what/x", None),
        ("/v2/a/manifests/", None),
    ],
)
def test_paths(path: str, want: paths.RequestPath | None) -> None:
    assert paths.place(path) == want


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    try:
        manifests.parse(data, "")
    except Refusal as e:
        assert e.code in ("MANIFEST_INVALID", "DIGEST_INVALID")


_KEYS = "schemaVersion mediaType config layers manifests digest size subject annotations".split()
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inside, max_size=6),
    max_leaves=20,
)  # fmt: skip


@given(_JSON)
def test_any_json_is_a_manifest_or_refused(value: object) -> None:
    data = json.dumps(value).encode()
    try:
        found = manifests.parse(data, "")
    except Refusal:
        return
    for _, descriptor in found.blobs:
        assert digests.is_digest(descriptor.digest) and descriptor.size >= 0


def test_rights_are_cut_down_by_the_credential() -> None:
    full = Principal(account=1)
    assert rights.limited(full, "a/b", rights.ADMIN, public=False) == rights.ADMIN
    reader = Principal(account=1, scope="read")
    assert rights.limited(reader, "a/b", rights.ADMIN, public=False) == rights.READ
    public = Principal(account=1, scope="public_read")
    assert rights.limited(public, "a/b", rights.ADMIN, public=False) == rights.NOTHING
    assert rights.limited(public, "a/b", rights.ADMIN, public=True) == rights.READ
    narrow = Principal(account=1, patterns=("a/x*",))
    assert rights.limited(narrow, "a/b", rights.ADMIN, public=False) == rights.NOTHING
    assert rights.limited(narrow, "a/b", rights.ADMIN, public=True) == rights.READ
    assert rights.limited(narrow, "a/xy", rights.ADMIN, public=False) == rights.ADMIN


def test_secrets() -> None:
    made = secrets.make()
    assert secrets.is_one(made) and made.startswith("wht_")
    assert not secrets.is_one(made[:-1] + ("a" if made[-1] != "a" else "b"))
    assert not secrets.is_one(made[4:]) and not secrets.is_one("")
    assert secrets.hashed(made) != secrets.hashed(secrets.make())


@pytest.mark.parametrize("value", ["", "x", "eA==", "gICA", "YQBiOmM=", "ü"])
def test_basic_of_the_wrong_form(value: str) -> None:
    with pytest.raises(login.Wrong):
        login.basic(value)


def test_basic_keeps_colons_of_the_password() -> None:
    assert login.basic("YTpiOmM=") == login.Basic("a", "b:c")


def test_networks() -> None:
    assert network_of("192.0.2.77") == "192.0.2.0/24"
    assert network_of("::ffff:192.0.2.77") == "192.0.2.0/24"
    assert network_of("2001:db8:1:2ff::1") == "2001:db8:1:200::/56"
    assert network_of("nothing") == "nothing"
    with pytest.raises(InvalidArgument):
        networks(["10.0.0.1/8"])


class _Transport:
    def __init__(self, peer: str) -> None:
        self._peer = peer

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return self._peer, 1


class _Request:
    scheme = "http"

    def __init__(self, peer: str, **headers: str) -> None:
        self.transport = _Transport(peer)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.mark.parametrize(
    ("peer", "forwarded", "want"),
    [
        ("198.51.100.1", "203.0.113.5", "198.51.100.1"),  # no proxy of ours: it may say what it likes
        ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.5, 10.0.0.2", "203.0.113.5"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "evil, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_forwarded_addresses(peer: str, forwarded: str, want: str) -> None:
    trusted = Trusted(networks(["10.0.0.0/8"]))
    request = _Request(peer, X_Forwarded_For=forwarded)
    assert trusted.client(request) == want  # type: ignore[arg-type]


def test_the_base_is_the_proxys_word_only_if_trusted() -> None:
    said = {"Host": "hub:5000", "X_Forwarded_Proto": "https", "X_Forwarded_Host": "hub.example"}
    trusted = Trusted(networks(["10.0.0.0/8"]))
    assert trusted.base(_Request("10.0.0.1", **said)) == "https://hub.example"  # type: ignore[arg-type]
    assert trusted.base(_Request("192.0.2.1", **said)) == "http://hub:5000"  # type: ignore[arg-type]
    hostile = _Request("192.0.2.1", Host='x",realm="evil')
    assert trusted.base(hostile) == "http://localhost"  # type: ignore[arg-type]


def test_limits() -> None:
    assert limit("100/6h") == Limit(100, 21600) and limit("10/s") == Limit(10, 1) and limit("") is None
    for text in ("100", "0/h", "1/0h", "x/h", "-1/h"):
        with pytest.raises(InvalidArgument):
            limit(text)
    limits = RequestLimits(Limit(2, 3600))
    somebody = Principal()
    limits.take(somebody, "192.0.2.1", 1)
    limits.take(somebody, "192.0.2.200", 1)
    with pytest.raises(Refusal):
        limits.take(somebody, "192.0.2.3", 1)
    assert limits.take(somebody, "198.51.100.1", 1)["RateLimit-Remaining"] == "1;w=3600"
    assert limits.take(Principal(account=1), "192.0.2.1", 1) == {}


def test_durations() -> None:
    assert [config.duration(t) for t in ("90", "90s", "15m", "24h", "7d")] == [90, 90, 900, 86400, 604800]
    assert config.duration_or_never("never") is None
    for text in ("", "-1", "1w", "1.5h", "soon"):
        with pytest.raises(InvalidArgument):
            config.duration(text)
