"""Many streams in one archive: as long as they come, and half of it is refused."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from wherry.errors import InvalidArgument
from wherry.storage import bundle

STREAMS = {"about": b"{}", "empty": b"", "a/one": os.urandom(9 << 20), "a/two": b"x" * (4 << 20), "b": b"y"}


def written() -> bytes:
    out = io.BytesIO()
    writer = bundle.BundleWriter(out)
    for name, data in STREAMS.items():
        with writer.stream(name) as pieces:
            for at in range(0, len(data), 700_001):
                pieces.write(data[at : at + 700_001])
    writer.close()
    return out.getvalue()


def test_what_was_written_is_read() -> None:
    data = written()
    found = {s.name: s.read(limit=1 << 30) for s in bundle.read(io.BytesIO(data).read)}
    assert found == STREAMS
    assert list(found) == list(STREAMS)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:  # any program takes it apart
        assert archive.getnames()[-1] == "end"


def test_what_is_not_read_is_passed_over() -> None:
    seen = []
    for stream in bundle.read(io.BytesIO(written()).read):
        seen.append(stream.name)
        if stream.name == "a/one":
            assert next(iter(stream))
    assert seen == list(STREAMS)


def test_a_stream_that_is_too_long_to_hold() -> None:
    with pytest.raises(InvalidArgument, match="a/one has more than 1000 bytes"):
        for stream in bundle.read(io.BytesIO(written()).read):
            stream.read(limit=1000)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99, 0.9999])
def test_half_of_one(part: float) -> None:
    data = written()
    cut = io.BytesIO(data[: int((len(data) - 1024) * part)])
    with pytest.raises(InvalidArgument, match="cannot read the archive"):
        for stream in bundle.read(cut.read):
            for _piece in stream:
                pass


def test_what_fails_while_it_is_written_does_not_look_whole() -> None:
    out = io.BytesIO()
    writer = bundle.BundleWriter(out)
    with pytest.raises(KeyError), writer.stream("a") as pieces:
        pieces.write(b"x")
        raise KeyError
    with pytest.raises(InvalidArgument):
        list(bundle.read(io.BytesIO(out.getvalue()).read))
