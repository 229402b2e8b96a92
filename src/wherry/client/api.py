"""A session with one daemon: version negotiation, requests, and errors as :mod:`wherry.errors`.

    api = Api(DaemonEndpoint("unix:///run/wherry/wherry.sock"))
    api.json("GET", "/containers/json", query={"all": "1"})

Every request goes to ``/v<version>/…`` with the lower of our version and the daemon's, which one ``HEAD
/_ping`` tells (Engine API, "Versioning"). One idle connection is kept. A stream has its own connection; if it
is not read to its end, the connection is closed with the session.
"""

from __future__ import annotations

from wherry import errors
from wherry.client import jsonwire
from wherry.client.endpoint import CannotConnect, DaemonEndpoint
from wherry.client.http import HttpConnection, Response
from wherry.client.transport import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Any

    from wherry.client.transport import Stream

    Query = Mapping[str, str | int | bool | Iterable[str] | None]

VERSION = "1.56"
VERSION_MIN = "1.40"
ERROR_SIZE_MAX = 1 << 20
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_BY_STATUS: dict[int, type[errors.WherryError]] = {
    400: errors.InvalidArgument,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.NotImplemented_,
    503: errors.Unavailable,
}


class Ping:
    """The answer of ``/_ping``: the daemon's highest API version and the operating system of
    its containers."""

    __slots__ = ("api_version", "builder_version", "experimental", "os_type")

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.api_version = headers.get("api-version", "")
        self.os_type = headers.get("ostype", "")
        self.experimental = headers.get("docker-experimental", "") == "true"
        self.builder_version = headers.get("builder-version", "")


class Hijacked:
    """An upgraded connection: ``stream`` both ways, ``early`` bytes that came with the answer's head."""

    __slots__ = ("early", "stream")

    def __init__(self, stream: Stream, early: bytes) -> None:
        self.stream, self.early = stream, early

    def __enter__(self) -> Hijacked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()


class Api:
    """Requests to one daemon. Not thread-safe: one session serves one command."""

    def __init__(
        self, endpoint: DaemonEndpoint, *, version: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self.endpoint = endpoint
        self._fixed = version
        self._headers = {"Host": endpoint.header_host, **(headers or {})}
        self._idle: HttpConnection | None = None
        self._busy: set[HttpConnection] = set()
        """The connections with an answer that is still being read."""
        self._ping: Ping | None = None

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections except those that were given away as streams."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None
        while self._busy:
            self._busy.pop().close()

    @property
    def ping(self) -> Ping:
        """The daemon's answer to ``/_ping``; it is only asked once."""
        if self._ping is None:
            response = self._exchange("HEAD", f"{self.endpoint.base_path}/_ping")
            self._done(response)
            self._ping = Ping(response.headers)
        return self._ping

    @property
    def version(self) -> str:
        """The API version that both sides speak.

        :raises InvalidArgument: the daemon is too old for this client.
        """
        if self._fixed:
            return self._fixed
        theirs = self.ping.api_version or "1.24"
        if _version(theirs) < _version(VERSION_MIN):
            raise errors.InvalidArgument(
                f"client version {VERSION} is too new. Maximum supported API version is {theirs}"
            )
        return min(VERSION, theirs, key=_version)

    # requests

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        data: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request and return the successful answer, its body unread.

        ``body`` is sent as JSON; ``data`` as it is. The caller reads the response to its end, or closes it
        with :meth:`drop`.

        304 is a success: the object already is in the requested state.

        :raises WherryError: what the daemon answered, by its HTTP status.
        """
        target = f"{self.endpoint.base_path}/v{self.version}{path}{_query(query)}"
        more = dict(headers or {})
        if body is not None:
            data = jsonwire.dumps(body).encode()
            more["Content-Type"] = "application/json"
        response = self._exchange(method, target, more, data)
        if response.status >= 400:
            raise self._error(response)
        return response

    def json(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
    ) -> Any:
        """Send a request and decode its JSON answer; None where it has no body."""
        response = self.request(method, path, query=query, body=body)
        raw = response.read_all()
        try:
            return jsonwire.loads(raw) if raw.strip() else None
        except ValueError as e:
            raise errors.Internal(f"cannot read the daemon's answer: {e}") from e

    def call(self, method: str, path: str, *, query: Query | None = None, body: Any = None) -> None:
        """Send a request whose answer has no body that matters."""
        self.request(method, path, query=query, body=body).read_all()

    def drop(self, response: Response) -> None:
        """Close a response without reading it to its end."""
        self._end(response.abandon())

    def hijack(self, method: str, path: str, *, query: Query | None = None, body: Any = None) -> Hijacked:
        """Turn a request into a raw two-way stream (Engine API, "Attach to a container", hijacking)."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        response = self.request(method, path, query=query, body=body, headers=headers)
        self._busy.discard(response.connection)
        return Hijacked(*response.connection.detach())

    def dial(self) -> Stream:
        """A raw connection to the daemon, for proxies."""
        return connect(self.endpoint)

    # machinery

    def _exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | Iterable[bytes] | None = None,
    ) -> Response:
        connection, self._idle = self._idle, None
        if connection is not None and connection.stale():
            connection.close()
            connection = None
        if connection is None:
            connection = HttpConnection(connect(self.endpoint))
        self._busy.add(connection)
        try:
            connection.send(method, target, {**self._headers, **(headers or {})}, data)
            return connection.response(method, self._done)
        except BaseException:
            self._end(connection)
            raise

    def _done(self, response: Response) -> None:
        """Keep the connection of a response that was read to its end."""
        if response.finished and response.connection.reusable and self._idle is None:
            self._busy.discard(response.connection)
            self._idle = response.connection
        else:
            self._end(response.connection)

    def give_away(self, response: Response) -> None:
        """Leave the connection of an answer to the caller, who closes it; closing this session does not."""
        self._busy.discard(response.connection)

    def _end(self, connection: HttpConnection) -> None:
        self._busy.discard(connection)
        connection.close()

    def _error(self, response: Response) -> errors.WherryError:
        raw = b""
        while piece := response.read():
            raw += piece
            if len(raw) > ERROR_SIZE_MAX:
                self.drop(response)
                break
        message = _message(raw) or (
            f"request returned {response.reason or response.status} for API route and version "
            f"{self.endpoint.host}, check if the server supports the requested API version"
        )
        kind = _BY_STATUS.get(response.status, errors.Internal)
        return kind(f"Error response from daemon: {message}")


def _message(raw: bytes) -> str:
    try:
        decoded = jsonwire.loads(raw)
    except ValueError:
        return raw.decode("utf-8", "replace").strip()
    if isinstance(decoded, dict) and decoded.get("message"):
        return str(decoded["message"]).strip()
    return ""


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    try:
        return int(major), int(minor or "0")
    except ValueError:
        raise errors.InvalidArgument(f"cannot use API version {text!r}: not a version") from None


def _query(query: Query | None) -> str:
    """Encode a query string; None is left out, True is ``1``, False is left out, a list repeats its key."""
    pairs: list[str] = []
    for key, value in (query or {}).items():
        if value is None or value is False:
            continue
        if value is True:
            pairs.append(f"{key}=1")
        elif isinstance(value, (str, int)):
            pairs.append(f"{key}={quote(str(value))}")
        else:
            pairs += [f"{key}={quote(one)}" for one in value]
    return "?" + "&".join(pairs) if pairs else ""


def quote(text: str, keep: str = "") -> str:
    """Percent-encode for a path segment or a query value (RFC 3986); ``keep`` stays as it is."""
    kept = UNRESERVED | frozenset(keep.encode())
    return "".join(chr(b) if b in kept else f"%{b:02X}" for b in text.encode("utf-8", "surrogateescape"))


def filters(given: Mapping[str, Iterable[str]]) -> str | None:
    """Encode filters as the API wants them: ``{"label": {"a=b": true}}`` in JSON; None for none."""
    if not given:
        return None
    return jsonwire.dumps({key: dict.fromkeys(values, True) for key, values in given.items()})


__all__ = ["VERSION", "Api", "CannotConnect", "Hijacked", "Ping", "filters", "quote"]
