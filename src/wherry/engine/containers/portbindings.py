"""``PortBindings`` that change after creation: what an update adds and removes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wherry.errors import InvalidArgument
from wherry.model.container import PortBinding
from wherry.model.ports import check_port, decimal
from wherry.network.types import PROTOCOLS, Proto, PublishedPort

Bindings = dict[str, list[PortBinding] | None]
Wanted = tuple[str, int, Proto]
"""Host address (``""`` for any), host port, protocol."""


def parse_published(text: str) -> Wanted:
    """``[address:]port[/protocol]``, a published port as a user writes it.

    :raises InvalidArgument: malformed.
    """
    place, _, protocol = text.partition("/")
    address, _, number = place.rpartition(":")
    try:
        port = decimal(number)
    except ValueError as e:
        raise InvalidArgument(f"invalid published port: {text[:64]!r}") from e
    proto: Proto | None = next((p for p in PROTOCOLS if p == (protocol or "tcp")), None)
    if proto is None or not 0 < port < 65536:
        raise InvalidArgument(f"invalid published port: {text[:64]!r}")
    return address.strip("[]"), port, proto


def select(wanted: Wanted, published: Iterable[PublishedPort]) -> list[PublishedPort]:
    """The ports that ``wanted`` selects; there can be several if it has no address."""
    address, number, proto = wanted
    return [
        p
        for p in published
        if (p.host_port, p.proto) == (number, proto) and (not address or p.host_ip == address)
    ]


def added(bindings: Bindings | None, more: Bindings) -> Bindings:
    """Both together, without duplicates."""
    out = _single(bindings)
    for key, new in _single(more).items():
        present = out.get(key) or []
        out[key] = [*present, *(b for b in new or [PortBinding()] if b not in present)]
    return out


def removed(bindings: Bindings | None, gone: Sequence[PublishedPort]) -> Bindings:
    """Without the bindings that caused ``gone``.

    :raises InvalidArgument: no binding asked for this port: it was published by ``--publish-all``.
    """
    out = _single(bindings)
    taken: set[tuple[int, Proto, int]] = set()
    for port in sorted(gone, key=lambda p: ":" in p.host_ip):
        here = (port.container_port, port.proto, port.host_port)
        if here in taken and ":" in port.host_ip:
            continue  # one binding without an address publishes a port of each family, the IPv4 one first
        taken.add(here)
        key = f"{port.container_port}/{port.proto}"
        binding = _responsible(out.get(key) or [], port)
        if binding is None:
            raise InvalidArgument(
                f"cannot unpublish {port.host_ip}:{port.host_port}: it was published with all exposed ports"
            )
        out[key] = [b for b in out[key] or [] if b is not binding]
        if not out[key]:
            del out[key]
    return out


def drop(bindings: Bindings | None, wanted: Wanted) -> Bindings | None:
    """Without the bindings to a host port of a container that does not run; None if there is none."""
    address, number, proto = wanted
    out = _single(bindings)
    found = False
    for key, present in list(out.items()):
        if not key.endswith(f"/{proto}"):
            continue
        kept = [
            b
            for b in present or []
            if not _covers(b, number) or not b.host_port or (address and b.host_ip != address)
        ]
        if len(kept) != len(present or []):
            found = True
            out[key] = kept
            if not kept:
                del out[key]
    return out if found else None


def _single(bindings: Bindings | None) -> Bindings:
    """One key per port and protocol, because one port cannot be removed from a range."""
    out: Bindings = {}
    for text, present in (bindings or {}).items():
        low, high, proto = check_port(text)
        for port in range(low, high + 1):
            out[f"{port}/{proto}"] = [*(out.get(f"{port}/{proto}") or []), *(present or [PortBinding()])]
    return out


def _responsible(bindings: Sequence[PortBinding], port: PublishedPort) -> PortBinding | None:
    """The binding that this port belongs to: one that names the port, else one that accepts any."""
    fitting = [b for b in bindings if _covers(b, port.host_port) and b.host_ip in ("", port.host_ip)]
    return min(fitting, key=lambda b: (not b.host_port, "-" in b.host_port, not b.host_ip), default=None)


def _covers(binding: PortBinding, number: int) -> bool:
    low, dash, high = binding.host_port.partition("-")
    if not low:
        return True
    return int(low) <= number <= int(high) if dash else int(low) == number
