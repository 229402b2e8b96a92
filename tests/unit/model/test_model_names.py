from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.errors import InvalidArgument
from wherry.model import digest, oci, reference
from wherry.model.base import decode
from wherry.model.container import ContainerConfig

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("a/b", "docker.io/a/b", "a/b"),
        ("docker.io/library/x", "docker.io/library/x", "x"),
        ("index.docker.io/x", "docker.io/library/x", "x"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("host:5000/x:t", "host:5000/x:t", "host:5000/x:t"),
        ("HOST/x", "HOST/x", "HOST/x"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        (f"x@sha256:{HEX}", f"docker.io/library/x@sha256:{HEX}", f"x@sha256:{HEX}"),
        (f"x:t@sha256:{HEX}", f"docker.io/library/x:t@sha256:{HEX}", f"x:t@sha256:{HEX}"),
    ],
)
def test_references(text: str, full: str, short: str) -> None:
    ref = reference.parse(text)
    assert (str(ref), ref.familiar()) == (full, short)
    assert reference.parse(str(ref)) == ref
    assert reference.parse(short) == ref


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "UPPER", "a//b", "a/", "/a", "a:", "a:-", "a@", "a@sha256:0", "a b", "a\n", "-a", "a__-b"),
        *("a" * 256, HEX, "a:" + "t" * 129, "a.b/", "ä", "a@sha512:" + "0" * 128, "host:port/x"),
    ],
)
def test_bad_references(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid re"):
        reference.parse(text)


@given(st.text(alphabet="ab./:@-_A1", max_size=30))
def test_what_parses_reads_back(text: str) -> None:
    try:
        ref = reference.parse(text)
    except InvalidArgument:
        return
    assert reference.parse(str(ref)) == ref


def test_tags() -> None:
    assert str(reference.parse("a").with_default_tag()).endswith(":latest")
    assert reference.parse("a:b").with_default_tag().tag == "b"
    assert reference.parse(f"a@sha256:{HEX}").with_default_tag().tag is None
    for bad in ("", "-x", "a b", "a\n", "ä"):
        with pytest.raises(InvalidArgument):
            reference.parse("a").with_tag(bad)


def test_digests() -> None:
    assert digest.of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest.parse(f"sha256:{HEX}") == f"sha256:{HEX}"
    for bad in (
        "",
        "sha256:",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX}0",
        f"sha256:{HEX}\n",
        f"md5:{HEX}",
        "../x",
    ):
        with pytest.raises(InvalidArgument):
            digest.parse(bad)
    with pytest.raises(InvalidArgument, match="sha512"):
        digest.parse("sha512:" + "0" * 128)
    one, two = digest.of(b"1"), digest.of(b"2")
    assert digest.chain_id(None, one) == one
    assert digest.chain_id(one, two) == digest.of(f"{one} {two}".encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/aarch64/v8", "linux/arm64"),
        ("x86_64", "linux/amd64"),
    ],
)
def test_platforms(text: str, expected: str) -> None:
    assert str(oci.parse_platform(text)) == expected


@pytest.mark.parametrize("text", ["", "/", "a/b/c/d", "linux/"])
def test_bad_platforms(text: str) -> None:
    with pytest.raises(InvalidArgument):
        oci.parse_platform(text)


def test_decoding() -> None:
    assert decode('{"Env": null, "Odd": 1, "Tty": true}', ContainerConfig) == ContainerConfig(tty=True)
    for bad in ("{", "[]", "1", '{"Tty": 1}', '{"StopTimeout": 9223372036854775808}', "[" * 100_000, b"\xff"):
        with pytest.raises(InvalidArgument, match="invalid JSON"):
            decode(bad, ContainerConfig)
