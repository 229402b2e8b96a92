"""Databases of dockerd: what is in them, and what is not one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.errors import InvalidArgument
from wherry.migrate.bolt import Bolt, Bucket

ROOTS = Path(__file__).resolve().parents[2] / "data" / "docker"
VOLUMES, NETWORKS = "volumes/metadata.db", "network/files/local-kv.db"
IMAGES = "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db"


@cache
def content(root: str, name: str) -> bytes:
    argv = ["tar", "-xzOf", str(ROOTS / f"{root}.tar.gz"), name]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout


def values(bucket: Bucket, path: tuple[bytes, ...] = ()) -> Iterator[tuple[tuple[bytes, ...], bytes]]:
    for key, value in bucket:
        if isinstance(value, Bucket):
            yield from values(value, (*path, key))
        else:
            yield (*path, key), value


@pytest.mark.parametrize("root", ["20.10", "28-overlay2", "28-containerd"])
def test_volumes(tmp_path: Path, root: str) -> None:
    file = tmp_path / "db"
    file.write_bytes(content(root, VOLUMES))
    with Bolt(str(file)) as bolt:
        found = {path[1]: json.loads(value) for path, value in values(bolt.root)}
        assert found[b"stored"]["Labels"] == {"of": "volume"}
        assert found[b"memory"]["Options"]["type"] == "tmpfs"
        assert bolt.root.bucket(b"volumes", b"stored") is None and bolt.root.bucket(b"nothing") is None


def test_buckets_within_buckets(tmp_path: Path) -> None:
    file = tmp_path / "db"
    file.write_bytes(content("28-containerd", IMAGES))
    with Bolt(str(file)) as bolt:
        target = bolt.root.bucket(b"v1", b"moby", b"images", b"docker.io/library/app:1", b"target")
        assert target is not None
        assert {key for key, _ in target} == {b"digest", b"mediatype", b"size"}


def test_the_other_root_counts_if_one_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "db"
    whole = content("28-overlay2", NETWORKS)
    for page in (0, 4096):
        broken = bytearray(whole)
        broken[page + 40] ^= 0xFF  # within the fields that the checksum covers
        file.write_bytes(broken)
        with Bolt(str(file)) as bolt:
            assert list(values(bolt.root))
    file.write_bytes(bytes(8192) + whole[8192:])
    with pytest.raises(InvalidArgument, match="no valid root"):
        Bolt(str(file))


@pytest.mark.parametrize("data", [b"", b"x" * 100, bytes(100_000)])
def test_what_is_no_database(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "db"
    file.write_bytes(data)
    with pytest.raises(InvalidArgument, match="cannot read"):
        Bolt(str(file))


@settings(max_examples=150, deadline=None)
@given(
    damage=st.lists(st.tuples(st.integers(8192, 65535), st.integers(0, 255)), min_size=1, max_size=8),
    name=st.sampled_from([VOLUMES, NETWORKS]),
)
def test_damage_is_an_error_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]], name: str
) -> None:
    data = bytearray(content("28-overlay2", name))
    for place, value in damage:
        data[place % len(data)] = value
    file = tmp_path_factory.mktemp("bolt") / "db"
    file.write_bytes(data)
    try:
        with Bolt(str(file)) as bolt:
            list(values(bolt.root))
    except InvalidArgument as e:
        assert str(file) in e.message
