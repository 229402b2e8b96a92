"""The client's HTTP: bodies both ways, split reads, upgrades, broken peers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakedaemon import Exchange, FakeDaemon, Reply, Route

from wherry import errors
from wherry.client.api import Api, filters, quote
from wherry.client.endpoint import CannotConnect, DaemonEndpoint, Tls
from wherry.client.http import ConnectionLost, HttpConnection


def peer(pieces: list[bytes]) -> HttpConnection:
    """A connection whose other end sends ``pieces`` one by one and closes."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        # A test may have seen enough, and close its end first.
        with theirs, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                theirs.sendall(piece)

    threading.Thread(target=send).start()
    return HttpConnection(ours)


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize("split", [lambda d: [d], bytewise])
def test_reads_a_chunked_body_however_it_is_split(split) -> None:
    raw = (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;ext=1\r\n!\r\n0\r\nTrailer: x\r\n\r\nREST"
    )
    connection = peer(split(raw))
    response = connection.response("GET")
    assert response.read_all() == b"hello!"
    assert response.finished
    assert connection.take(4)[:1] == b"R"
    connection.close()


@pytest.mark.parametrize("split", [lambda d: [d], bytewise])
def test_reads_a_body_of_known_length_and_no_further(split) -> None:
    connection = peer(split(HEAD + b"Content-Length: 5\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\n"))
    first = connection.response("GET")
    assert (first.read_all(), first.finished, connection.reusable) == (b"hello", True, True)
    assert connection.response("DELETE").status == 204
    connection.close()


def test_reads_until_the_end_without_a_length() -> None:
    connection = peer([HEAD + b"\r\n", b"abc", b"def"])
    response = connection.response("GET")
    assert response.read_all() == b"abcdef"
    assert not connection.reusable
    connection.close()


def test_passes_over_interim_answers() -> None:
    connection = peer([b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n"])
    assert connection.response("POST").status == 200
    connection.close()


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"Content-Length: 10\r\n\r\nshort",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nCont",
        b"",
    ],
)
def test_a_connection_that_ends_early_is_an_error(raw: bytes) -> None:
    connection = peer([raw] if raw else [])
    with pytest.raises(ConnectionLost):
        connection.response("GET").read_all()
    connection.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        HEAD + b"Content-Length: x\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1234567890\r\n" * 10_000 + b"\r\n",
    ],
)
def test_what_is_no_http_is_refused(raw: bytes) -> None:
    connection = peer([raw])
    with pytest.raises(errors.Internal):
        connection.response("GET").read_all()
    connection.close()


def test_never_sends_a_line_break_in_a_path() -> None:
    connection = peer([])
    with pytest.raises(errors.Internal):
        connection.send("GET", "/a\r\nX: y", {})
    connection.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[FakeDaemon, Api]]:
    routes = {
        "GET /json": lambda x: {"query": x.request.query},
        "POST /echo": lambda x: Reply(x.request.body),
        "POST /same": lambda x: Reply(b"", 304),
        "GET /stream": lambda x: iter([b"a" * 70_000, b"b"]),
        "POST /hijack": hijack,
        **{f"GET /{code}": failing(code) for code in CODES},
        "GET /plain": lambda x: Reply(b"just text", 500),
        "GET /closed": lambda x: Reply(b"{}", headers={"Connection": "close"}),
    }
    with FakeDaemon(tmp_path / "s.sock", routes) as daemon, Api(DaemonEndpoint(daemon.host)) as api:
        yield daemon, api


CODES = {
    400: errors.InvalidArgument,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    500: errors.Internal,
    501: errors.NotImplemented_,
    503: errors.Unavailable,
}


def failing(code: int) -> Route:
    return lambda x: Reply({"message": f"m{code}"}, code)


def hijack(exchange: Exchange) -> None:
    exchange.upgrade()
    exchange.sock.sendall(b"early")
    data = exchange.read_to_end()
    exchange.sock.sendall(data[::-1])
    exchange.sock.close()


def test_one_connection_serves_many_requests(api: tuple[FakeDaemon, Api]) -> None:
    daemon, session = api
    assert session.json("GET", "/json", query={"a": "x y&é", "b": True, "c": None, "d": ["1", "2"]}) == {
        "query": {"a": "x y&é", "b": "1", "d": "2"}
    }
    session.json("GET", "/json")
    assert daemon.connections == 1
    assert [r.target.partition("?")[0] for r in daemon.requests] == ["/_ping", "/v1.56/json", "/v1.56/json"]


def test_sends_a_stream_chunked(api: tuple[FakeDaemon, Api]) -> None:
    _, session = api
    pieces = [b"x" * 300_000, b"", b"end"]
    response = session.request("POST", "/echo", data=iter(pieces))
    assert response.read_all() == b"".join(pieces)


def test_reads_a_stream_as_it_comes(api: tuple[FakeDaemon, Api]) -> None:
    _, session = api
    response = session.request("GET", "/stream")
    assert len(response.read(10)) == 10
    assert len(response.read_all()) == 69_991
    assert response.finished


@pytest.mark.parametrize(("code", "kind"), CODES.items())
def test_an_error_becomes_its_class(api: tuple[FakeDaemon, Api], code: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"Error response from daemon: m{code}"):
        api[1].json("GET", f"/{code}")


def test_an_error_without_json_keeps_its_text(api: tuple[FakeDaemon, Api]) -> None:
    with pytest.raises(errors.Internal, match="just text"):
        api[1].json("GET", "/plain")


def test_what_is_already_so_is_a_success(api: tuple[FakeDaemon, Api]) -> None:
    api[1].call("POST", "/same")
    api[1].call("POST", "/same")
    assert api[0].connections == 1


def test_opens_a_new_connection_when_the_daemon_closed_the_old_one(api: tuple[FakeDaemon, Api]) -> None:
    daemon, session = api
    session.json("GET", "/closed")
    session.json("GET", "/json")
    assert daemon.connections == 2


def test_a_hijacked_stream_half_closes(api: tuple[FakeDaemon, Api]) -> None:
    with api[1].hijack("POST", "/hijack", body={"a": 1}) as connection:
        stream = connection.stream
        stream.send(b"abc")
        stream.shutdown(socket.SHUT_WR)
        received = connection.early
        while piece := stream.recv(100):
            received += piece
    assert received == b"earlycba"
    request = api[0].asked("POST /hijack")[0]
    assert (request.headers["upgrade"], request.headers["connection"]) == ("tcp", "Upgrade")


@pytest.mark.parametrize(
    ("theirs", "spoken"), [("1.56", "1.56"), ("1.99", "1.56"), ("1.44", "1.44"), ("1.5", None)]
)
def test_speaks_the_lower_version(tmp_path: Path, theirs: str, spoken: str | None) -> None:
    with (
        FakeDaemon(tmp_path / "s", {}, api_version=theirs) as daemon,
        Api(DaemonEndpoint(daemon.host)) as session,
    ):
        if spoken is None:
            with pytest.raises(
                errors.InvalidArgument, match=r"too new\. Maximum supported API version is 1.5"
            ):
                _ = session.version
        else:
            assert session.version == spoken


def test_a_given_version_is_not_negotiated(tmp_path: Path) -> None:
    routes = {"GET /x": lambda x: {}}
    with (
        FakeDaemon(tmp_path / "s", routes) as daemon,
        Api(DaemonEndpoint(daemon.host), version="1.41") as session,
    ):
        session.json("GET", "/x")
        assert [r.target for r in daemon.requests] == ["/v1.41/x"]


def test_nobody_there_is_said_with_the_address(tmp_path: Path) -> None:
    with pytest.raises(CannotConnect) as caught:
        Api(DaemonEndpoint(f"unix://{tmp_path}/none")).json("GET", "/x")
    assert caught.value.message == (
        f"Cannot connect to the wherry daemon at unix://{tmp_path}/none. Is the wherry daemon running?"
    )


TLS = Path(__file__).parent / "tls"


def upload_and_echo() -> dict[str, Route]:
    return {
        "GET /x": lambda x: {"a": 1},
        "POST /echo": lambda x: Reply(x.request.body),
        "POST /hijack": hijack,
    }


def exercise(session: Api) -> None:
    assert session.json("GET", "/x") == {"a": 1}
    data = b"0123456789" * 100_000
    assert session.request("POST", "/echo", data=iter([data, data])).read_all() == data * 2
    with session.hijack("POST", "/hijack") as connection:
        connection.stream.send(b"abc")
        connection.stream.shutdown(socket.SHUT_WR)
        received = connection.early
        while piece := connection.stream.recv(100):
            received += piece
        assert received == b"earlycba"


def test_tcp_is_spoken_too() -> None:
    with FakeDaemon(None, upload_and_echo()) as daemon, Api(DaemonEndpoint(daemon.host)) as session:
        exercise(session)


def test_tls_is_verified_and_half_closes() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    with FakeDaemon(None, upload_and_echo(), tls=context) as daemon:
        with Api(DaemonEndpoint(daemon.host, Tls(ca=str(TLS / "cert.pem")))) as session:
            exercise(session)
        with Api(DaemonEndpoint(daemon.host, Tls(verify=False))) as session:
            assert session.json("GET", "/x") == {"a": 1}
        with pytest.raises(CannotConnect, match="certificate verify failed"):
            Api(DaemonEndpoint(daemon.host, Tls())).json("GET", "/x")
        with pytest.raises(CannotConnect, match="No such file"):
            Api(DaemonEndpoint(daemon.host, Tls(ca="/nonexistent"))).json("GET", "/x")
        with pytest.raises(CannotConnect):
            Api(DaemonEndpoint(daemon.host)).json("GET", "/x")


def test_quoting_and_filters() -> None:
    assert quote("a/b c:é") == "a%2Fb%20c%3A%C3%A9"
    assert quote("reg:5000/a@b", keep="/:@") == "reg:5000/a@b"
    assert filters({}) is None
    assert filters({"label": ["a=b", "c"]}) == '{"label":{"a=b":true,"c":true}}'
