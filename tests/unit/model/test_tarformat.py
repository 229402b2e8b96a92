"""The tar reader and writer against each other, against Python's, and against noise."""

from __future__ import annotations

import io
import tarfile
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.model import tarformat as tf
from wherry.model.tarformat import BadTar, Buffered, Entry, TarLimits, TarReader
from wherry.model.tarwriter import TarMember, archive
from wherry.storage.confined.child.decompress import Mapped

names = st.binary(min_size=1, max_size=300).filter(lambda b: b"\0" not in b and not b.endswith(b"/"))
times = st.integers(-(10**18), 4 * 10**18)
members = st.builds(
    TarMember,
    name=names,
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime=times,
    xattrs=st.dictionaries(
        st.binary(min_size=1, max_size=20).filter(lambda b: b"=" not in b and b"\0" not in b),
        st.binary(max_size=50),
        max_size=3,
    ),
)


def read(data: bytes, pieces: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    stream = io.BytesIO(data)
    reader = TarReader(Buffered(lambda: stream.read(pieces)), TarLimits())
    return [(entry, b"".join(reader.data())) for entry in reader]


@given(st.lists(st.tuples(members, st.binary(max_size=1500)), max_size=5), st.integers(1, 2000))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read(wanted: list[tuple[TarMember, bytes]], pieces: int) -> None:
    import dataclasses

    sized = [(dataclasses.replace(member, size=len(data)), data) for member, data in wanted]
    found = read(archive(sized), pieces)
    assert len(found) == len(sized)
    for (member, data), (entry, content) in zip(sized, found, strict=True):
        assert (entry.name, content) == (member.name, data)
        assert (entry.mode, entry.uid, entry.gid) == (member.mode, member.uid, member.gid)
        assert entry.mtime == member.mtime
        assert entry.xattrs == (dict(member.xattrs) or None)


@given(st.lists(st.tuples(members, st.binary(max_size=600)), max_size=3))
@settings(max_examples=60, deadline=None)
def test_python_reads_what_is_written(wanted: list[tuple[TarMember, bytes]]) -> None:
    import dataclasses

    sized = [(dataclasses.replace(member, size=len(data)), data) for member, data in wanted]
    with tarfile.open(fileobj=io.BytesIO(archive(sized)), encoding="utf-8", errors="surrogateescape") as tar:
        for (member, data), info in zip(sized, tar.getmembers(), strict=True):
            assert info.name.encode("utf-8", "surrogateescape").rstrip(b"/") == member.name.rstrip(b"/")
            extracted = tar.extractfile(info)
            assert extracted is not None
            assert extracted.read() == data


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=150), st.binary(max_size=600)), max_size=4),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@settings(max_examples=100, deadline=None)
def test_what_python_writes_is_read(wanted: list[tuple[str, bytes]], style: int) -> None:
    buffer = io.BytesIO()
    written = []
    with tarfile.open(fileobj=buffer, mode="w", format=style, errors="surrogateescape") as tar:
        for name, data in wanted:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_600_000_000
            try:
                encoded = name.encode()
                tar.addfile(info, io.BytesIO(data))
            except (ValueError, UnicodeError):
                continue
            if "\0" in name or name.endswith("/"):
                return
            written.append((encoded, data))
    found = [(entry.name, data) for entry, data in read(buffer.getvalue())]
    assert found == written


@given(st.binary(max_size=3000))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused_cleanly(data: bytes) -> None:
    try:
        found = read(data)
    except BadTar:
        return
    assert sum(len(content) for _, content in found) <= len(data), "nothing is made up"


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_archive_never_escapes_the_one_error(draw: st.DataObject) -> None:
    sparse = TarMember(name=b"s", size=9000, sparse=((0, 10), (5000, 20)), xattrs={b"user.a": b"1"})
    good = archive(
        [
            (TarMember(name=b"x" * 200, size=5), b"hello"),
            (sparse, bytes(30)),
            (TarMember(name=b"y", type=b"2"), b""),
        ]
    )
    data = bytearray(good)
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    for start in range(0, len(data) - 511, 512):  # most changes would only break a checksum
        block = data[start : start + 512]
        block[148:156] = b"        "
        data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    try:
        read(bytes(data))
    except BadTar:
        pass


def raw(kind: bytes, data: bytes, name: bytes = b"x") -> bytes:
    return archive([(TarMember(name=name, type=kind, size=len(data)), data)])[:-1024]


@pytest.mark.parametrize(
    "record",
    [b"10 path=ab\n", b"0 a=b\n", b"9999999 a=b\n", b"12 path=abcd\n", b"-5 a=b\n", b"6 a=b\n7 "],
)
def test_malformed_extended_headers_are_refused(record: bytes) -> None:
    with pytest.raises(BadTar):
        read(raw(b"x", record) + archive([(TarMember(name=b"f"), b"")]))


@pytest.mark.parametrize(
    "text",
    [
        {b"size": b"-1"},
        {b"size": b"99999999999999999999999"},
        {b"uid": b"4294967295"},
        {b"mtime": b"1e9"},
        {b"path": b"a\0b"},
        {b"path": b""},
        {b"GNU.sparse.major": b"7", b"GNU.sparse.realsize": b"1"},
        {b"GNU.sparse.map": b"0,5,3,5", b"GNU.sparse.size": b"10"},
        {b"GNU.sparse.map": b"0,5,3", b"GNU.sparse.size": b"10"},
        {b"GNU.sparse.map": b"0,4", b"GNU.sparse.size": b"2"},
    ],
)
def test_impossible_values_are_refused(text: dict[bytes, bytes]) -> None:
    records = b"".join(_record(k, v) for k, v in text.items())
    with pytest.raises(BadTar):
        read(raw(b"x", records) + archive([(TarMember(name=b"f", size=4), b"data")]))


def _record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(str(length)) + len(key) + len(value) + 3 != length:
        length = len(str(length)) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def test_global_headers_hold_for_all_that_follow() -> None:
    data = raw(b"g", _record(b"mtime", b"5.5")) + archive(
        [(TarMember(name=b"a"), b""), (TarMember(name=b"b"), b"")]
    )
    assert [entry.mtime for entry, _ in read(data)] == [5_500_000_000] * 2


def test_base_256_numbers() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("f")
        info.uid, info.mtime = 3_000_000_000, -1
        tar.addfile(info)
    entry, _ = read(buffer.getvalue())[0]
    assert (entry.uid, entry.mtime) == (3_000_000_000, -1_000_000_000)


def test_an_archive_may_end_without_its_two_zero_blocks() -> None:
    assert len(read(archive([(TarMember(name=b"f", size=3), b"abc")])[:-1024])) == 1
    assert tf.BLOCK == 512


def test_data_that_is_not_read_is_skipped() -> None:
    data = archive([(TarMember(name=b"a", size=700), bytes(700)), (TarMember(name=b"b", size=1), b"x")])
    stream = io.BytesIO(data)
    reader = TarReader(Buffered(lambda: stream.read(100)), TarLimits())
    found = []
    for entry in reader:
        reader.data()
        found.append(entry.name)
    assert found == [b"a", b"b"]


def _mapped(data: bytes) -> list[tuple[bytes, bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        reader = TarReader(Mapped(file.fileno()), TarLimits())
        return [(entry.name, b"".join(reader.data())) for entry in reader]


@pytest.mark.parametrize("pieces", [1, 100, 512, 1 << 20])
@pytest.mark.parametrize("size", [1, 3, 511, 512, 513, 1200])
def test_an_archive_may_end_anywhere_after_its_last_data(size: int, pieces: int) -> None:
    members = [(TarMember(name=b"a", size=5), b"first"), (TarMember(name=b"f", size=size), b"x" * size)]
    data = archive(members)[:-1024]
    wanted = [(b"a", b"first"), (b"f", b"x" * size)]
    padded = len(data)
    least = padded - (-size % 512)
    for end in {least, (least + padded) // 2, padded, padded + 512}:
        cut = (data + bytes(512))[:end]
        assert [(entry.name, content) for entry, content in read(cut, pieces)] == wanted
        assert _mapped(cut) == wanted
    for end in (least - 1, padded - size - (-size % 512) - 1):
        for taken in (lambda: read(data[:end], pieces), lambda: _mapped(data[:end])):  # noqa: B023
            with pytest.raises(BadTar, match="it ends too early"):
                taken()


def test_an_extended_header_needs_its_member() -> None:
    with pytest.raises(BadTar):
        read(raw(b"x", b"12 path=abcd\n")[:-400])
