"""JSON, framing, addresses and the choice of a daemon."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry import errors
from wherry.client import discovery, jsonwire
from wherry.client.endpoint import DEFAULT_HOST, DaemonEndpoint
from wherry.client.streams import Demultiplexer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_json_agrees_with_the_standard_library(value: object) -> None:
    assert json.loads(jsonwire.dumps(value)) == value
    assert jsonwire.loads(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", ["", "{", "[1,", "{} x", "nul", '"abc', "{'a': 1}", "[" * 100_000])
def test_malformed_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        jsonwire.loads(text)


@given(st.lists(JSON, max_size=5), st.integers(1, 7))
def test_a_stream_of_values_survives_any_split(values: list[object], size: int) -> None:
    raw = "\n".join(json.dumps(v) for v in values).encode()
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    assert list(jsonwire.messages(pieces)) == values


def test_values_back_to_back_on_one_line() -> None:
    assert list(jsonwire.messages([b'{"a":1}{"b"', b":2} 3"])) == [{"a": 1}, {"b": 2}, 3]


def test_a_stream_cut_short_is_an_error() -> None:
    with pytest.raises(ValueError):
        list(jsonwire.messages([b'{"a":']))


FRAMES = st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.binary(max_size=50)), max_size=10)


@given(FRAMES, st.integers(1, 20))
def test_frames_are_sorted_however_they_are_split(frames: list[tuple[int, bytes]], size: int) -> None:
    raw = b"".join(bytes((s, 0, 0, 0)) + len(p).to_bytes(4, "big") + p for s, p in frames)
    out, err = bytearray(), bytearray()
    demultiplexer = Demultiplexer(out.extend, err.extend)
    for start in range(0, len(raw), size):
        demultiplexer.feed(raw[start : start + size])
    assert bytes(out) == b"".join(p for s, p in frames if s != 2)
    assert bytes(err) == b"".join(p for s, p in frames if s == 2)


def test_an_unknown_stream_and_the_daemons_own_error() -> None:
    sink = Demultiplexer(lambda p: None, lambda p: None)
    with pytest.raises(errors.Internal, match="Unrecognized input header: 9"):
        sink.feed(b"\x09\0\0\0\0\0\0\x01")
    sink = Demultiplexer(lambda p: None, lambda p: None)
    with pytest.raises(errors.Internal, match="error from daemon in stream: boom"):
        sink.feed(b"\x03\0\0\0\0\0\0\x04boom")


@pytest.mark.parametrize(
    ("given_host", "host", "scheme", "address", "port"),
    [
        ("", DEFAULT_HOST, "unix", "/run/wherry/wherry.sock", 0),
        ("unix:///a/b", "unix:///a/b", "unix", "/a/b", 0),
        ("tcp://h", "tcp://h:2375", "tcp", "h", 2375),
        ("tcp://h:1", "tcp://h:1", "tcp", "h", 1),
        (":99", "tcp://127.0.0.1:99", "tcp", "127.0.0.1", 99),
        ("[::1]:5", "tcp://[::1]:5", "tcp", "::1", 5),
        ("http://h:80/base/", "tcp://h:80/base/", "tcp", "h", 80),
    ],
)
def test_addresses(given_host: str, host: str, scheme: str, address: str, port: int) -> None:
    endpoint = DaemonEndpoint(given_host)
    assert (endpoint.host, endpoint.scheme, endpoint.address, endpoint.port) == (host, scheme, address, port)


@pytest.mark.parametrize("host", ["ftp://x", "tcp://h:99999", "tcp://h:x"])
def test_bad_addresses(host: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        DaemonEndpoint(host)


def context(directory: Path, name: str, host: str, tls: tuple[str, ...] = ()) -> None:
    key = hashlib.sha256(name.encode()).hexdigest()
    place = directory / "contexts/meta" / key
    place.mkdir(parents=True)
    meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
    (place / "meta.json").write_text(json.dumps(meta))
    for file in tls:
        pem = directory / "contexts/tls" / key / "docker" / f"{file}.pem"
        pem.parent.mkdir(parents=True, exist_ok=True)
        pem.touch()


def test_the_order_in_which_a_daemon_is_sought(tmp_path: Path) -> None:
    context(tmp_path, "one", "tcp://one:1")
    context(tmp_path, "two", "tcp://two:2", ("ca", "cert", "key"))
    context(tmp_path, "three", "unix:///three")
    (tmp_path / "config.json").write_text('{"currentContext": "three"}')

    def find(environ: dict[str, str], **wanted: str) -> str:
        return discovery.find(discovery.WantedDaemon(**wanted), environ, str(tmp_path))[0].host

    everything = {"WHERRY_HOST": "tcp://w:1", "DOCKER_HOST": "tcp://d:1", "DOCKER_CONTEXT": "two"}
    assert find(everything, host="unix:///h") == "unix:///h"
    assert find(everything, context="one") == "tcp://one:1"
    assert find(everything) == "tcp://w:1"
    del everything["WHERRY_HOST"]
    assert find(everything) == "tcp://d:1"
    del everything["DOCKER_HOST"]
    assert find(everything) == "tcp://two:2"
    assert find({}) == "unix:///three"
    assert find({}, context="default") == DEFAULT_HOST
    endpoint, is_default = discovery.find(discovery.WantedDaemon(context="two"), {}, str(tmp_path))
    assert (endpoint.context, endpoint.tls is not None, is_default) == ("two", True, False)


def test_the_default_is_known_as_such(tmp_path: Path) -> None:
    assert discovery.find(discovery.WantedDaemon(), {}, str(tmp_path))[1]


def test_what_cannot_be_found(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match=r'context "nope": context not found: open .*/meta.json'):
        discovery.find(discovery.WantedDaemon(context="nope"), {}, str(tmp_path))
    with pytest.raises(errors.InvalidArgument, match="both --host and --context"):
        discovery.find(discovery.WantedDaemon(host="unix:///a", context="b"), {}, str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(errors.InvalidArgument, match="not a JSON object"):
        discovery.read_config(str(tmp_path))


def test_the_configuration_directory() -> None:
    environ = {"HOME": "/h", "DOCKER_CONFIG": "/d", "WHERRY_CONFIG": "/w"}
    assert discovery.config_dir(environ, "/given") == "/given"
    assert discovery.config_dir(environ) == "/w"
    assert discovery.config_dir({"HOME": "/h", "DOCKER_CONFIG": "/d"}) == "/d"
    assert discovery.config_dir({"HOME": "/h"}) == "/h/.docker"


def test_tls_material(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    wanted = discovery.WantedDaemon(host="tcp://h", tls_verify=True, tlskey="/k")
    endpoint = discovery.find(wanted, {}, str(tmp_path))[0]
    assert endpoint.port == 2376 and endpoint.tls is not None
    assert (endpoint.tls.ca, endpoint.tls.cert, endpoint.tls.key) == (f"{tmp_path}/ca.pem", "", "/k")
    assert endpoint.tls.verify
