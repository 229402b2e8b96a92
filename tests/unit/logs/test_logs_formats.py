"""What log drivers send, byte for byte, and how messages are made of records."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.errors import InvalidArgument, NotImplemented_, Unavailable
from wherry.logs import drivers
from wherry.logs.drivers import fluentd, gelf, journald, syslog
from wherry.logs.drivers.base import LogTarget, Retry, split_time
from wherry.logs.drivers.transport import LogAddress
from wherry.logs.messages import MAX, LinePart, LogMessage, MessageAssembler
from wherry.logs.reader import Position
from wherry.logs.records import Record
from wherry.logs.tags import ContainerFacts

STAMP = b"2026-03-04T05:06:07.123456789Z"
SECONDS = 1772600767
ID = "0123456789abcdef" * 4
FACTS = ContainerFacts(ID, "web", "busybox:1", "sha256:" + "ab" * 32, "sh -c x", SECONDS * 10**9)
TARGET = LogTarget(FACTS, "web/0123", {"app": "shop", "my.key-1": "v"}, "host")


def message(text: bytes = b"hello", *, stderr: bool = False, part: LinePart | None = None) -> LogMessage:
    return LogMessage(STAMP, stderr, text, True, part)


# ---- messages --------------------------------------------------------------------------------------------


def placed(records: list[Record]) -> list[tuple[Position, Record]]:
    return [(Position(1, n), r) for n, r in enumerate(records)]


def test_records_become_lines() -> None:
    records = [
        Record(b"1", False, b"one "),
        Record(b"2", True, b"other\n"),
        Record(b"3", False, b"line\n"),
        Record(b"4", False, b"no end"),
    ]
    assembler = MessageAssembler()
    found = assembler.feed(placed(records))
    assert [(m.stamp, m.line) for m in found] == [(b"2", b"other"), (b"1", b"one line")]
    assert [(m.line, m.ended, m.part) for m in assembler.flush()] == [(b"no end", False, None)]


def test_a_long_line_comes_in_parts() -> None:
    text = bytes(range(65, 91)) * 2000
    pieces = [text[n : n + 8192] for n in range(0, len(text), 8192)]
    records = [Record(b"1", False, p) for p in pieces[:-1]] + [Record(b"1", False, pieces[-1] + b"\n")]
    found = MessageAssembler().feed(placed(records))
    assert b"".join(m.line for m in found) == text
    assert [len(m.line) for m in found[:-1]] == [MAX] * (len(found) - 1)
    parts = [m.part for m in found if m.part is not None]
    assert [p.ordinal for p in parts] == list(range(1, len(found) + 1))
    assert [p.last for p in parts] == [False] * (len(found) - 1) + [True]
    assert len({p.id for p in parts}) == 1
    assert [m.ended for m in found] == [False] * (len(found) - 1) + [True]


records_ = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(0, 40)).map(
        lambda t: Record(b"t", t[0], b"x" * t[2] + (b"\n" if t[1] else b""))
    ),
    max_size=20,
)


@settings(max_examples=300, deadline=None)
@given(records=records_, stop=st.integers(0, 20))
def test_going_on_after_a_stop_delivers_each_message_once(records: list[Record], stop: int) -> None:
    """Wherever a daemon stopped, what it delivered and what the next one does are all messages, once."""
    whole = MessageAssembler()
    expected = [*whole.feed(placed(records)), *whole.flush()]
    stop = min(stop, len(records))
    first = MessageAssembler()
    delivered = first.feed(placed(records)[:stop])
    place = first.resume(Position(1, stop))
    second = MessageAssembler(place.skip)
    delivered += second.feed(placed(records)[place.position.offset :])
    # A second stop at the very end changes nothing.
    again = second.resume(Position(1, len(records)))
    third = MessageAssembler(again.skip)
    delivered += third.feed(placed(records)[again.position.offset :])
    assert [*delivered, *third.flush()] == expected


# ---- syslog ----------------------------------------------------------------------------------------------


def test_split_time() -> None:
    assert split_time(STAMP) == (SECONDS, 123456789)


def formatted(format_: str, **options: Any) -> bytes:
    chosen = syslog.SyslogSettings.of({"syslog-address": "udp://h:1", "syslog-format": format_, **options})
    pid = str(__import__("os").getpid()).encode()
    return syslog.formatter(chosen, TARGET)(message()).replace(pid, b"PID")


def test_syslog_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert formatted("") == b"<30>Mar  4 05:06:07 web/0123[PID]: hello"
    assert formatted("rfc3164") == b"<30>Mar  4 05:06:07 host web/0123[PID]: hello"
    assert formatted("rfc5424") == b"<30>1 2026-03-04T05:06:07Z host web/0123 PID web/0123 - hello"
    assert formatted("rfc5424micro").startswith(b"<30>1 2026-03-04T05:06:07.123456Z host ")
    assert formatted("", **{"syslog-facility": "local7"}).startswith(b"<190>")
    assert formatted("", **{"syslog-facility": "4"}).startswith(b"<38>")
    error = syslog.formatter(syslog.SyslogSettings.of({}), TARGET)(message(stderr=True))
    assert error.startswith(b"<27>")


def test_syslog_names_are_kept_within_what_the_rfc_allows() -> None:
    target = LogTarget(FACTS, "a tag\nwith blanks " + "x" * 99, {}, "ho st")
    chosen = syslog.SyslogSettings.of({"syslog-format": "rfc5424"})
    fields = syslog.formatter(chosen, target)(message()).split(b" ")
    assert fields[2] == b"ho_st"
    assert len(fields[3]) == 48 and len(fields[5]) == 32


# ---- gelf ------------------------------------------------------------------------------------------------


def test_gelf_documents() -> None:
    document = json.loads(gelf.encode(message(stderr=True), gelf.fixed_fields(TARGET)))
    assert document == {
        "version": "1.1",
        "host": "host",
        "short_message": "hello",
        "timestamp": 1772600767.123,
        "level": 3,
        "_container_id": ID,
        "_container_name": "web",
        "_image_id": FACTS.image_id,
        "_image_name": "busybox:1",
        "_command": "sh -c x",
        "_tag": "web/0123",
        "_created": "2026-03-04T05:06:07Z",
        "_app": "shop",
        "_my.key-1": "v",
    }


@given(st.integers(0, 60_000))
def test_gelf_chunks(size: int) -> None:
    document = bytes(n & 0xFF for n in range(size))
    found = gelf.chunks(document)
    assert all(len(c) <= 1420 for c in found)
    if len(found) == 1:
        assert found == [document]
        return
    assert {c[:10] for c in found} == {found[0][:10]} and found[0][:2] == b"\x1e\x0f"
    assert [c[10] for c in found] == list(range(len(found)))
    assert {c[11] for c in found} == {len(found)}
    assert b"".join(c[12:] for c in found) == document


def test_gelf_compression() -> None:
    for kind, unpack in (("gzip", gzip.decompress), ("zlib", zlib.decompress), ("none", bytes)):
        chosen = gelf.GelfSettings.of({"gelf-address": "udp://h:1", "gelf-compression-type": kind})
        assert unpack(gelf.GelfSink(chosen, TARGET)._compress(b"text" * 99)) == b"text" * 99


# ---- fluentd ---------------------------------------------------------------------------------------------


def test_fluentd_messages() -> None:
    chosen = fluentd.FluentdSettings.of({"fluentd-sub-second-precision": "true"})
    assert chosen.address == LogAddress("tcp", "127.0.0.1", 24224)
    long = message(b"long", part=LinePart("1-2", 3, last=False))
    tag, entries, option = msgspec.msgpack.decode(fluentd.encode([message(), long], TARGET, chosen, "chunk"))
    assert (tag, option) == ("web/0123", {"size": 2, "chunk": "chunk"})
    (moment, record), (_, partial) = entries
    assert moment == msgspec.msgpack.Ext(0, SECONDS.to_bytes(4, "big") + (123456789).to_bytes(4, "big"))
    assert record == {
        "container_id": ID, "container_name": "/web", "source": "stdout", "log": "hello", "app": "shop",
        "my.key-1": "v",
    }  # fmt: skip
    assert {k: v for k, v in partial.items() if k.startswith("partial")} == {
        "partial_message": "true", "partial_id": "1-2", "partial_ordinal": "3", "partial_last": "false",
    }  # fmt: skip
    plain = msgspec.msgpack.decode(fluentd.encode([message()], TARGET, fluentd.FluentdSettings.of({})))
    assert plain[1][0][0] == SECONDS


# ---- journald --------------------------------------------------------------------------------------------


def test_journal_entries() -> None:
    fixed = journald.JournalSink(TARGET)._fixed
    data = journald.entry(message(b"two\nlines", stderr=True), fixed)
    assert data.startswith(b"MESSAGE\n" + (9).to_bytes(8, "little") + b"two\nlines\nPRIORITY=3\n")
    assert b"CONTAINER_ID=0123456789ab\n" in data and b"CONTAINER_NAME=web\n" in data
    assert b"APP=shop\n" in data and b"MY_KEY_1=v\n" in data
    assert b"CONTAINER_TAG=web/0123\n" in data and b"SYSLOG_IDENTIFIER=web/0123\n" in data
    partial = journald.entry(message(part=LinePart("1-2", 1, last=False)), b"")
    assert b"CONTAINER_PARTIAL_MESSAGE=true\n" in partial


# ---- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("syslog", {"syslog-address": "http://h:1"}, "begins with none of udp, tcp"),
        ("syslog", {"syslog-address": "udp://"}, "not SCHEME://HOST:PORT"),
        ("syslog", {"syslog-address": "udp://h:99999"}, "invalid syslog-address"),
        ("syslog", {"syslog-address": "unix://relative"}, "no absolute path"),
        ("syslog", {"syslog-address": "udp://h:1", "syslog-facility": "x"}, "invalid syslog facility"),
        ("syslog", {"syslog-address": "udp://h:1", "syslog-format": "rfc1"}, "syslog-format"),
        ("syslog", {"syslog-address": "tcp+tls://h:1", "syslog-tls-ca-cert": "/no"}, "TLS options"),
        ("gelf", {}, "gelf-address is a required parameter"),
        ("gelf", {"gelf-address": "tcp://h:1", "gelf-compression-type": "gzip"}, "only supported on UDP"),
        ("gelf", {"gelf-address": "udp://h:1", "gelf-tcp-max-reconnect": "1"}, "only supported on TCP"),
        ("gelf", {"gelf-address": "udp://h:1", "gelf-compression-level": "10"}, "compression-level"),
        ("fluentd", {"fluentd-address": "ftp://h"}, "invalid fluentd-address"),
        ("fluentd", {"fluentd-async-reconnect-interval": "1h"}, "100ms to 10s"),
    ],
)
def test_wrong_options(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        drivers.check(driver, options)


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotImplemented_, match="fluentd-async=false"):
        drivers.check("fluentd", {"fluentd-async": "false"})
    monkeypatch.setattr(syslog, "LOCAL", ("/nonexistent",))
    with pytest.raises(Unavailable, match="name a server with syslog-address"):
        drivers.check("syslog", {})


def test_retries() -> None:
    options = {"gelf-address": "tcp://h:1", "gelf-tcp-max-reconnect": "3", "gelf-tcp-reconnect-delay": "20"}
    assert gelf.GelfSettings.of(options).retry == Retry(20, 20, 3)
    options = {"fluentd-retry-wait": "500ms", "fluentd-max-retries": "2"}
    assert fluentd.FluentdSettings.of(options).retry == Retry(0.5, 10.0, 2)
