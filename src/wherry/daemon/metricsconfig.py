"""The options of metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wherry.errors import InvalidArgument

_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]/]*)):(?P<port>[0-9]{1,5})", re.ASCII)


@dataclass(frozen=True)
class MetricsConfig:
    """Where metrics are served; and which containers have their own, with which labels."""

    address: tuple[str, int]
    containers: str = "all"
    labels: tuple[str, ...] = ()


def configured(m: Mapping[str, Any]) -> MetricsConfig | None:
    """:raises InvalidArgument: not ``HOST:PORT``, or the other options without it."""
    labels, containers = tuple(m["metrics_labels"] or ()), m["metrics_containers"]
    if not m["metrics_addr"]:
        if labels or containers:
            raise InvalidArgument("metrics-labels and metrics-containers need metrics-addr")
        return None
    match = _ADDRESS.fullmatch(m["metrics_addr"])
    if match is None or not 0 <= int(match["port"]) <= 65535:
        raise InvalidArgument(f"invalid metrics-addr {m['metrics_addr']!r}: expected HOST:PORT")
    if "" in labels or containers == "":
        raise InvalidArgument("invalid metrics-labels or metrics-containers: empty")
    host = match["six"] or match["host"] or "0.0.0.0"
    return MetricsConfig((host, int(match["port"])), containers or "all", labels)
