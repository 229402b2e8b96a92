"""Records as clients read them: a frame a line, whole lines, one time each."""

from __future__ import annotations

import struct

from wherry.engine.logs.encoding import Encoder
from wherry.logs.records import Record


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        stream, size = struct.unpack(">BxxxL", data[:8])
        found.append((stream, data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def test_pieces_of_a_line_become_one_frame_with_one_time() -> None:
    encoder = Encoder(b"a=b ", framed=True, timestamps=True)
    data = encoder.feed(
        [Record(b"T1", False, b"22"), Record(b"T2", True, b"err\n"), Record(b"T3", False, b"60\n")]
    )
    assert frames(data) == [(2, b"T2 a=b err\n"), (1, b"T1 a=b 2260\n")]
    assert encoder.flush() == b""


def test_a_line_whose_end_does_not_come_is_sent_in_part() -> None:
    encoder = Encoder(b"", framed=True, timestamps=True)
    assert encoder.feed([Record(b"T1", False, b"name: ")]) == b""
    assert frames(encoder.flush()) == [(1, b"T1 name: ")]
    assert frames(encoder.feed([Record(b"T2", False, b"bob\n"), Record(b"T3", False, b"x\n")])) == [
        (1, b"bob\n"),
        (1, b"T3 x\n"),
    ]


def test_a_line_without_end_is_not_gathered_for_ever() -> None:
    encoder = Encoder(b"", framed=True, timestamps=False)
    data = encoder.feed([Record(b"T", False, b"y" * 8192)] * 5 + [Record(b"T", False, b"\n")])
    found = frames(data)
    assert len(found) == 3
    assert b"".join(text for _, text in found) == b"y" * 40960 + b"\n"


def test_unframed() -> None:
    encoder = Encoder(b"", framed=False, timestamps=False)
    assert encoder.feed([Record(b"T", False, b"a\r\n"), Record(b"T", True, b"b\n")]) == b"a\r\nb\n"
