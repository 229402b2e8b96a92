"""Shippers on real files: what is delivered, what is noted, and what a sink that fails costs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import patiently

from wherry.logs.drivers.base import LogTarget, Retry, Sink
from wherry.logs.drivers.journald import JournalSink
from wherry.logs.drivers.jsonfile import JsonFileSettings, JsonFileSink
from wherry.logs.files import LogFiles
from wherry.logs.keeper import Keeper
from wherry.logs.messages import LogMessage
from wherry.logs.options import Backlog
from wherry.logs.reader import Position
from wherry.logs.shipper import Cursor, Shipper, cut, load_cursor
from wherry.logs.tags import ContainerFacts

TARGET = LogTarget(ContainerFacts("0123456789abcdef" * 4, "web"), "web")


def entry(number: int, text: bytes, tag: bytes = b"F") -> bytes:
    return b"2026-01-02T03:04:05.%09d+00:00 stdout %s %s\n" % (number, tag, text)


class Memory:
    """A sink that fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.got: list[bytes] = []
        self.failures = failures
        self.closed = False
        self.arrived = asyncio.Event()

    async def deliver(self, messages: Sequence[LogMessage]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionRefusedError("refused")
        self.got += [m.line for m in messages]
        self.arrived.set()

    def state(self) -> dict[str, int]:
        return {"delivered": len(self.got)}

    def resume(self, state: Mapping[str, int]) -> None:
        self.resumed = dict(state)

    async def close(self) -> None:
        self.closed = True


class Bench:
    """A log, its keeper and a shipper; ``lost`` is what was reported."""

    def __init__(self, directory: Path, sink: Sink, *, retry: Retry | None = None, **bounds: Any) -> None:
        self.path = directory / "log"
        self.path.touch()
        self.lost: list[int] = []
        self.keeper = Keeper()
        backlog = Backlog(**bounds)
        self.consumer = self.keeper.consume("id", self.path, bound=backlog.bound)
        self.shipper = Shipper(
            "the log",
            files=LogFiles(self.path),
            consumer=self.consumer,
            sink=sink,
            backlog=backlog,
            retry=retry or Retry(0.001, 0.01),
            cursor=directory / "log.cursor",
            report=self.lost.append,
        )

    async def finish(self) -> None:
        """Deliver everything, as after the container's end."""
        self.consumer.ended = True
        async with asyncio.timeout(patiently(10)):
            await self.shipper.run()
        await self.keeper.close()


def test_everything_is_delivered_and_noted(tmp_path: Path) -> None:
    sink = Memory(failures=2)

    async def work() -> None:
        bench = Bench(tmp_path, sink)
        bench.path.write_bytes(entry(1, b"a") + entry(2, b"b ", b"P") + entry(3, b"c") + entry(4, b"d", b"P"))
        await bench.finish()

    asyncio.run(work())
    assert sink.got == [b"a", b"b c", b"d"]
    assert sink.closed
    size = (tmp_path / "log").stat().st_size
    assert load_cursor(tmp_path / "log.cursor") == Cursor(1, size, 0, {"delivered": 3})
    again = Memory()

    async def next_daemon() -> None:
        bench = Bench(tmp_path, again)
        with bench.path.open("ab") as more:
            more.write(entry(5, b"e"))
        await bench.finish()

    asyncio.run(next_daemon())
    assert again.got == [b"e"]
    assert again.resumed == {"delivered": 3}


def test_lines_are_delivered_as_they_come(tmp_path: Path) -> None:
    sink = Memory()

    async def work() -> None:
        bench = Bench(tmp_path, sink)
        bench.keeper.run("id", bench.path, tmp_path / "ctl", bench.keeper._logs["id"].keep)
        task = asyncio.create_task(bench.shipper.run())
        for number in range(3):
            with bench.path.open("ab") as more:
                more.write(entry(number, b"%d" % number))
            async with asyncio.timeout(patiently(10)):
                await sink.arrived.wait()
            sink.arrived.clear()
        task.cancel()
        await asyncio.wait([task])
        await bench.keeper.close()

    asyncio.run(work())
    assert sink.got == [b"0", b"1", b"2"]
    assert load_cursor(tmp_path / "log.cursor").offset == (tmp_path / "log").stat().st_size


def test_a_batch_is_given_up_after_so_many_tries(tmp_path: Path) -> None:
    sink = Memory(failures=3)

    async def work() -> list[int]:
        bench = Bench(tmp_path, sink, retry=Retry(0.001, 0.001, limit=2))
        bench.path.write_bytes(entry(1, b"12345"))
        await bench.finish()
        return bench.lost

    assert asyncio.run(work()) == [5]
    assert sink.got == []


def test_without_blocking_the_backlog_of_a_failing_sink_is_cut(tmp_path: Path) -> None:
    sink = Memory(failures=1)
    line = entry(0, b"x" * 100)

    async def work() -> list[int]:
        bench = Bench(tmp_path, sink, blocking=False, bound=10 * len(line))
        # More than is read at once, so that there is a backlog behind what is being sent.
        bench.path.write_bytes(b"".join(entry(n, b"%0100d" % n) for n in range(5000)))
        await bench.finish()
        return bench.lost

    lost = asyncio.run(work())
    found = [int(text) for text in sink.got]
    assert found == sorted(set(found))
    assert found[-10:] == list(range(4990, 5000))
    assert sum(lost) + len(found) * len(line) == pytest.approx(5000 * len(line), abs=2 * len(line))


def test_where_a_backlog_is_cut(tmp_path: Path) -> None:
    line = entry(0, b"0123456789")
    (tmp_path / "log.1").write_bytes(line * 10)
    (tmp_path / "log").write_bytes(line * 3)
    files = LogFiles(tmp_path / "log")
    size = len(line)
    assert cut(files, Position(1, 0), 13 * size) == (Position(1, 0), 0, frozenset())
    assert cut(files, Position(1, 0), 5 * size) == (Position(1, 8 * size), 8 * size, frozenset())
    assert cut(files, Position(1, 9 * size), 5 * size) == (Position(1, 9 * size), 0, frozenset())
    assert cut(files, Position(1, 2 * size), 2 * size + 5) == (Position(2, size), 9 * size, frozenset())


def test_a_damaged_note_begins_at_the_beginning(tmp_path: Path) -> None:
    note = tmp_path / "log.cursor"
    for damage in (b"", b"{", b"[]", b'{"number": "x"}'):
        note.write_bytes(damage)
        assert load_cursor(note) == Cursor()


def test_a_journal(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        journal.settimeout(patiently(10))

        async def work() -> None:
            bench = Bench(tmp_path, JournalSink(TARGET, tmp_path / "socket"))
            bench.path.write_bytes(entry(1, b"hello"))
            await bench.finish()

        asyncio.run(work())
        got = journal.recv(65536)
    assert got.startswith(b"MESSAGE=hello\nPRIORITY=6\n")
    assert b"CONTAINER_NAME=web\n" in got


# ---- json-file -------------------------------------------------------------------------------------------


def written(directory: Path) -> list[str]:
    files = sorted(directory.glob("j.log*"), key=lambda p: -int(p.suffix[1:]) if p.name != "j.log" else 0)
    return [json.loads(line)["log"] for file in files for line in file.read_bytes().splitlines()]


@settings(max_examples=100, deadline=None)
@given(
    batches=st.lists(st.integers(1, 5), max_size=8),
    saved=st.integers(0, 8),
    size=st.sampled_from([0, 150, 400]),
    torn=st.integers(0, 60),
)
def test_a_killed_daemon_repeats_nothing(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], saved: int, size: int, torn: int
) -> None:
    """The note is older than the file, which may end in the middle of a line; all lines are there once."""
    directory = tmp_path_factory.mktemp("json")
    path = directory / "j.log"
    messages = [
        LogMessage(b"2026-01-02T03:04:05.%09dZ" % n, False, b"line %d" % n, True, None)
        for n in range(sum(batches))
    ]
    chosen = JsonFileSettings(max_size=size, max_file=100, compress=False)

    async def work() -> None:
        first = JsonFileSink(path, chosen, TARGET)
        state, at, saved_at = first.state(), 0, 0
        for number, count in enumerate(batches):
            await first.deliver(messages[at : at + count])
            at += count
            if number < saved:
                state, saved_at = first.state(), at
        await first.close()
        if path.exists():
            # Killed in the middle of its last write, which had not been noted.
            floor = state["size"] if path.stat().st_ino == state["inode"] else 0
            os.truncate(path, max(floor, path.stat().st_size - torn) if saved < len(batches) else floor)
        second = JsonFileSink(path, chosen, TARGET)
        second.resume(state if saved and batches else {})
        if saved_at == 0:
            # Nothing was ever noted: there is no telling, so lines may come twice.
            return
        await second.deliver(messages[saved_at:])
        await second.close()
        assert written(directory) == [f"line {n}\n" for n in range(len(messages))]

    asyncio.run(work())


def test_a_write_that_fails_half_way_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.log"
    messages = [
        LogMessage(b"2026-01-02T03:04:05.000000000Z", False, b"%d" % n, True, None) for n in range(50)
    ]
    real = os.write

    def short(fd: int, data: bytes) -> int:
        if short.calls % 2:  # type: ignore[attr-defined]
            short.calls += 1  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")
        short.calls += 1  # type: ignore[attr-defined]
        return real(fd, bytes(data[:100]))

    short.calls = 0  # type: ignore[attr-defined]

    async def work() -> None:
        sink = JsonFileSink(path, JsonFileSettings(500, 100, False), TARGET)
        monkeypatch.setattr(os, "write", short)
        for _ in range(1000):
            try:
                await sink.deliver(messages)
            except OSError:
                continue
            break
        monkeypatch.setattr(os, "write", real)
        await sink.close()

    asyncio.run(work())
    assert written(tmp_path) == [f"{n}\n" for n in range(50)]


def test_a_cancelled_delivery_keeps_its_file_until_it_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.log"
    line = LogMessage(b"2026-01-02T03:04:05.000000000Z", False, b"x", True, None)
    writing, go_on = threading.Event(), threading.Event()
    real = os.write

    def slow(fd: int, data: bytes) -> int:
        if not go_on.is_set():
            writing.set()
            assert go_on.wait(patiently(10))
        return real(fd, data)

    async def work() -> None:
        sink = JsonFileSink(path, JsonFileSettings(0, 5, False), TARGET)
        # The loop wakes itself by other calls, so only the sink's module is slowed down.
        monkeypatch.setattr("wherry.logs.drivers.jsonfile.os.write", slow)
        delivery = asyncio.create_task(sink.deliver([line]))
        await asyncio.to_thread(writing.wait, 10)
        delivery.cancel()
        closing = asyncio.create_task(sink.close())
        done, _ = await asyncio.wait([closing], timeout=0.05)
        assert not done, "closed under the thread that writes"
        go_on.set()
        await closing
        await asyncio.wait([delivery])

    asyncio.run(work())
    monkeypatch.undo()
    assert written(tmp_path) == ["x\n"]
