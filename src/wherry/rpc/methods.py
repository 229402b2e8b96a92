"""Methods: path, kind, and the types of the messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar


class Message(Protocol):
    """The methods of protobuf's ``Message`` that this room uses."""

    def SerializeToString(self) -> bytes: ...

    def ParseFromString(self, data: bytes, /) -> int: ...


Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """``path`` is ``/package.Service/Name``, ``request`` and ``response`` are generated message classes."""

    path: str
    request: type[Q]
    response: type[A]


class Unary(Method[Q, A]):
    """One request, one response."""

    __slots__ = ()


class ServerStream(Method[Q, A]):
    """One request, any number of responses."""

    __slots__ = ()


class ClientStream(Method[Q, A]):
    """Any number of requests, one response."""

    __slots__ = ()


class BothStream(Method[Q, A]):
    """Any number of messages each way, in any order."""

    __slots__ = ()


AnyMethod = Method[Any, Any]
