"""Log records as clients are sent them: Docker's frames, or bytes alone."""

from __future__ import annotations

import struct

from wherry.logs.records import Record, parse

_HEADER = struct.Struct(">BxxxL")
_FRAME_MAX = 16 << 10
"""A line with this many bytes is sent before its end has arrived, as Docker does."""
_TAG, _TEXT = slice(29, 45), 45
"""In a line of a log's file: where time zone, stream and kind of a record stand; where its text begins."""
_WHOLE = {False: b"+00:00 stdout F ", True: b"+00:00 stderr F "}
"""The tags of whole lines, by whether they are of standard error."""


class _Heads(dict[int, bytes]):
    """By the length of a line without its newline: a newline, and the head of the line's frame."""

    _MOST = 4096

    def __init__(self, *, stderr: bool) -> None:
        super().__init__()
        self._stream = 2 if stderr else 1

    def __missing__(self, length: int) -> bytes:
        head = b"\n" + _HEADER.pack(self._stream, length + 1)
        if length <= self._MOST:
            self[length] = head
        return head


def _parsed(lines: list[bytes]) -> list[Record]:
    return [record for line in lines if (record := parse(line)) is not None]


class Encoder:
    """Encodes records for clients: one frame per line.

    conmon ends a record where its read of the pipe ends. Such pieces are joined again, so that a line has one
    frame and one time. A piece whose rest has not arrived waits for :meth:`flush`.
    """

    def __init__(self, prefix: bytes, *, framed: bool, timestamps: bool) -> None:
        """:param prefix: stands before each line."""
        self._framed, self._timestamps, self._prefix = framed, timestamps, prefix
        self._heads = (_Heads(stderr=False), _Heads(stderr=True))
        self._waiting: dict[bool, bytes] = {}
        self._begun: set[bool] = set()
        """Streams with a line that was sent in part: the rest of that line gets no time."""
        self._torn: set[bool] = set()
        """Streams whose next line may have lost its beginning."""

    def feed(self, records: list[Record]) -> bytes:
        pieces: list[bytes] = []
        waiting, begun = self._waiting, self._begun
        framed, timestamps, prefix, pack = self._framed, self._timestamps, self._prefix, _HEADER.pack
        for moment, stderr, data in records:
            if stderr in self._torn:
                if data.endswith(b"\n"):
                    self._torn.discard(stderr)
                continue
            if stderr in waiting:
                data = waiting.pop(stderr) + data
            elif stderr in begun:
                begun.discard(stderr)
            else:
                if prefix:
                    data = prefix + data
                if timestamps:
                    data = moment + b" " + data
            if not data.endswith(b"\n"):
                if len(data) < _FRAME_MAX:
                    waiting[stderr] = data
                    continue
                begun.add(stderr)
            if framed:
                pieces.append(pack(2 if stderr else 1, len(data)))
            pieces.append(data)
        return b"".join(pieces)

    def feed_lines(self, lines: list[bytes]) -> bytes:
        """As :meth:`feed`, for whole lines of a log's file. Lines that need nothing but a frame are put
        together without a step of the interpreter for each: that is what a flood consists of."""
        tags = [line[_TAG] for line in lines]
        stderr = tags.count(_WHOLE[True]) > tags.count(_WHOLE[False])
        others = [at for at, tag in enumerate(tags) if tag != _WHOLE[stderr]]
        if self._prefix or self._timestamps or len(others) > len(lines) // 8:
            return self.feed(_parsed(lines))
        out: list[bytes] = []
        at = 0
        for other in (*others, len(lines)):
            while at < other and self._is_unfinished(stderr):
                out.append(self.feed(_parsed(lines[at : at + 1])))
                at += 1
            if at < other:
                self._frames(lines[at:other], stderr, out)
            out.append(self.feed(_parsed(lines[other : other + 1])))
            at = other + 1
        return b"".join(out)

    def _is_unfinished(self, stderr: bool) -> bool:
        return stderr in self._waiting or stderr in self._begun or stderr in self._torn

    def _frames(self, lines: list[bytes], stderr: bool, out: list[bytes]) -> None:
        texts = [line[_TEXT:] for line in lines]
        if self._framed:
            # Each head begins with the newline of the line before it.
            pieces = [b""] * (2 * len(texts))
            pieces[::2] = map(self._heads[stderr].__getitem__, map(len, texts))
            pieces[1::2] = texts
            pieces[0] = pieces[0][1:]
            out += pieces
        else:
            out.append(b"\n".join(texts))
        out.append(b"\n")

    def skip(self, files: int) -> bytes:
        """Call this if files were removed before they were read. Lines before and after the gap are not
        joined:
        half a line before the gap is dropped, and so is the first piece of each stream after it."""
        self._waiting.clear()
        torn = b"\n" if self._begun else b""
        self._begun.clear()
        self._torn = {False, True}
        text = torn + b"wherry: skipped %d files of the log: removed before they were read\n" % files
        return (_HEADER.pack(2, len(text)) if self._framed else b"") + text

    def flush(self) -> bytes:
        """Send the pieces that wait for the rest of their line, because the rest does not come now."""
        out = b""
        for stderr, data in self._waiting.items():
            self._begun.add(stderr)
            out += (_HEADER.pack(2 if stderr else 1, len(data)) if self._framed else b"") + data
        self._waiting.clear()
        return out
