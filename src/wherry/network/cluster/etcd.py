"""etcd by its own JSON gateway (etcd.io, "gRPC gateway"): ranges, transactions, leases, watches.

Every call is one HTTP request on its own connection, to the first member that answers; a watch is a request
that does not end. Keys and values are text here and base64 on the wire; numbers are text on the wire.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from wherry.errors import InvalidArgument, Unavailable

_TIMEOUT = 5.0
"""Seconds to wait for a member's answer."""
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 3), (socket.TCP_KEEPCNT, 3))
"""A watch receives nothing while nothing changes: TCP keepalive detects a lost peer."""


@dataclass(frozen=True)
class EtcdAddress:
    host: str
    port: int


@dataclass(frozen=True)
class Pair:
    key: str
    value: str
    modified: int


@dataclass(frozen=True)
class KeyChange:
    """``value`` is None if the key was deleted."""

    key: str
    value: str | None


class Compacted(Exception):
    """A watch asked for changes that are too old: the store has discarded them."""


def parse_places(text: str) -> tuple[EtcdAddress, ...]:
    """``etcd://host:port[,host:port…]``.

    :raises InvalidArgument: malformed.
    """
    if not text.startswith("etcd://"):
        raise InvalidArgument(f"invalid cluster store {text[:80]!r}: expected etcd://host:port[,host:port]")
    places = []
    for part in text.removeprefix("etcd://").rstrip("/").split(","):
        host, colon, port = part.removeprefix("etcd://").rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise InvalidArgument(f"invalid cluster store {text[:80]!r}: {part[:80]!r} is not host:port")
        places.append(EtcdAddress(host.strip("[]"), int(port)))
    return tuple(places)


class Etcd:
    """Safe to use from any thread."""

    def __init__(self, places: Sequence[EtcdAddress], context: ssl.SSLContext | None = None) -> None:
        """:param context: for TLS; None speaks plain HTTP."""
        self._places = list(places)
        self._context = context
        self.name = "etcd://" + ",".join(f"{p.host}:{p.port}" for p in places)

    def range(self, prefix: str) -> tuple[list[Pair], int]:
        """Every key that begins with ``prefix``, and the store's revision."""
        answer = self._call("/v3/kv/range", {"key": _b64(prefix), "range_end": _b64(after(prefix))})
        pairs = [
            Pair(_text(kv["key"]), _text(kv.get("value", "")), int(kv.get("mod_revision", 0)))
            for kv in answer.get("kvs") or ()
        ]
        return pairs, int(answer["header"]["revision"])

    def transact(self, conditions: Sequence[Any], changes: Sequence[Any]) -> bool:
        """Apply all changes if all conditions hold. :returns: whether they did."""
        body = {"compare": list(conditions), "success": list(changes)}
        return bool(self._call("/v3/kv/txn", body).get("succeeded"))

    def grant(self, seconds: int) -> str:
        """A new lease."""
        return str(self._call("/v3/lease/grant", {"TTL": str(seconds)})["ID"])

    def keep(self, lease: str) -> bool:
        """Renew a lease. :returns: False if it has ended."""
        answer = self._call("/v3/lease/keepalive", {"ID": lease})
        return int((answer.get("result") or {}).get("TTL", 0)) > 0

    def watch(
        self, prefix: str, revision: int, opened: list[http.client.HTTPConnection]
    ) -> Iterator[list[KeyChange]]:
        """Changes from ``revision`` on, as they arrive. An empty first item says that the watch is
        established.

        :param opened: gets the connection; another thread may close it to end the watch.
        :raises Unavailable: the connection is lost. :raises Compacted: see there.
        """
        create = {
            "key": _b64(prefix),
            "range_end": _b64(after(prefix)),
            "start_revision": str(revision),
        }
        connection, response = self._request("/v3/watch", {"create_request": create})
        opened[:] = [connection]
        with closing(connection):
            if connection.sock is not None:
                connection.sock.settimeout(None)
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in _KEEPALIVE:
                    connection.sock.setsockopt(socket.IPPROTO_TCP, option, value)
            yield []
            while True:
                try:
                    line = response.readline()
                    answer = json.loads(line)["result"] if line else None
                except (OSError, http.client.HTTPException, ValueError, KeyError, AttributeError) as e:
                    raise Unavailable(f"the watch on {self.name} is broken: {e}") from e
                if answer is None:
                    raise Unavailable(f"the watch on {self.name} has ended")
                if int(answer.get("compact_revision", 0)):
                    raise Compacted
                if answer.get("canceled"):
                    raise Unavailable(f"the watch on {self.name} was ended by the store")
                changes = [_change(event) for event in answer.get("events") or ()]
                if changes:
                    yield changes

    def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection, response = self._request(path, body)
        with closing(connection):
            try:
                line = response.readline()
                answer: dict[str, Any] = json.loads(line)
            except (OSError, http.client.HTTPException, ValueError) as e:
                raise Unavailable(f"cannot read the answer of {self.name}: {e}") from e
        if "error" in answer:
            raise Unavailable(
                f"the cluster store {self.name} refuses: {answer.get('message') or answer['error']}"
            )
        return answer

    def _request(self, path: str, body: dict[str, Any]) -> tuple[Any, http.client.HTTPResponse]:
        """Ask the members in turn; the next request starts with the one that answered."""
        data = json.dumps(body).encode()
        failure: Exception | None = None
        for place in list(self._places):
            connection = self._connection(place)
            try:
                connection.request("POST", path, body=data, headers={"Content-Type": "application/json"})
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as e:
                failure = _refusal(connection, e) if self._context is not None else e
                connection.close()
                continue
            if self._places[0] != place:
                with suppress(ValueError):
                    self._places.remove(place)
                    self._places.insert(0, place)
            if response.status >= 500:
                connection.close()
                failure = Unavailable(f"HTTP {response.status}")
                continue
            return connection, response
        raise Unavailable(f"cannot reach the cluster store {self.name}: {failure}") from failure

    def _connection(self, place: EtcdAddress) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(place.host, place.port, timeout=_TIMEOUT)
        return http.client.HTTPSConnection(place.host, place.port, timeout=_TIMEOUT, context=self._context)


def _refusal(connection: http.client.HTTPConnection, failure: Exception) -> Exception:
    """Why a TLS connection failed. In TLS 1.3 the client finishes the handshake before the server checks its
    certificate: so a refusal arrives after a successful handshake, and may be unread when a write fails."""
    if isinstance(failure, ConnectionError | ssl.SSLEOFError) and connection.sock is not None:
        try:
            connection.sock.recv(1)
        except OSError as e:
            failure = e
    if isinstance(failure, ssl.SSLError) and "ALERT" in str(failure) and "CERTIFICATE" in str(failure):
        return Unavailable(f"it does not trust this daemon's certificate (kv.certfile): {failure}")
    if isinstance(failure, ConnectionResetError | BrokenPipeError | ssl.SSLEOFError):
        return Unavailable(
            f"it hung up, and may not trust this daemon's certificate (kv.certfile): {failure}"
        )
    return failure


def put(key: str, value: str, lease: str = "0") -> dict[str, Any]:
    """A change: set a key's value, for as long as the lease lasts (``0``: for ever)."""
    return {"request_put": {"key": _b64(key), "value": _b64(value), "lease": lease}}


def delete(key: str) -> dict[str, Any]:
    return {"request_delete_range": {"key": _b64(key)}}


def absent(key: str) -> dict[str, Any]:
    """A condition: the key does not exist."""
    return {"key": _b64(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}


def nothing_below(prefix: str) -> dict[str, Any]:
    """A condition: no key begins with ``prefix``."""
    return {**absent(prefix), "range_end": _b64(after(prefix))}


def unchanged(pair: Pair | None, key: str) -> dict[str, Any]:
    """A condition: the key is as it was read, or still does not exist."""
    if pair is None:
        return absent(key)
    return {"key": _b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(pair.modified)}


def after(prefix: str) -> str:
    """The first key after all keys that begin with ``prefix``."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _change(event: dict[str, Any]) -> KeyChange:
    kv = event["kv"]
    gone = event.get("type") == "DELETE"
    return KeyChange(_text(kv["key"]), None if gone else _text(kv.get("value", "")))


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(data: str) -> str:
    return base64.b64decode(data).decode(errors="replace")
