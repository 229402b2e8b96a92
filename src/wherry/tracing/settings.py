"""Where traces go: OpenTelemetry's environment variables (its specification, "Environment Variables")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from wherry.errors import InvalidArgument

_PREFIX = "OTEL_EXPORTER_OTLP_"
_PROTOCOLS = ("", "http/json")
_TIMEOUT = 10_000


@dataclass(frozen=True)
class TraceSettings:
    """``timeout`` in seconds."""

    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict)
    resource: Mapping[str, str] = field(default_factory=dict)
    timeout: float = _TIMEOUT / 1000


def named(environment: Mapping[str, str]) -> bool:
    """Whether traces are wanted at all."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return False
    return bool(_of(environment, "ENDPOINT"))


def read(environment: Mapping[str, str]) -> TraceSettings:
    """:raises InvalidArgument: a value that cannot be used, by the variable's name."""
    protocol = _of(environment, "PROTOCOL")
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"cannot use {_PREFIX}PROTOCOL={protocol}: traces are sent by http/json")
    exporter = environment.get("OTEL_TRACES_EXPORTER", "otlp")
    if exporter != "otlp":
        raise InvalidArgument(f"cannot use OTEL_TRACES_EXPORTER={exporter}: traces are sent by otlp")
    endpoint = environment.get(f"{_PREFIX}TRACES_ENDPOINT", "")
    if not endpoint:
        endpoint = environment[f"{_PREFIX}ENDPOINT"].rstrip("/") + "/v1/traces"
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f"invalid {_PREFIX}ENDPOINT {endpoint!r}: expected http://HOST:PORT")
    timeout = _of(environment, "TIMEOUT") or str(_TIMEOUT)
    if not timeout.isdecimal() or not int(timeout):
        raise InvalidArgument(f"invalid {_PREFIX}TIMEOUT {timeout!r}: expected milliseconds")
    resource = _pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""), "OTEL_RESOURCE_ATTRIBUTES")
    resource.setdefault("service.name", "wherryd")
    if name := environment.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = name
    headers = _pairs(_of(environment, "HEADERS"), f"{_PREFIX}HEADERS")
    return TraceSettings(endpoint, headers, resource, int(timeout) / 1000)


def _of(environment: Mapping[str, str], name: str) -> str:
    """The variable for traces, else the one for all signals."""
    return environment.get(f"{_PREFIX}TRACES_{name}") or environment.get(f"{_PREFIX}{name}") or ""


def _pairs(text: str, variable: str) -> dict[str, str]:
    """``key=value,…``, percent-encoded (W3C Baggage)."""
    found = {}
    for part in filter(None, map(str.strip, text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise InvalidArgument(f"invalid {variable}: expected KEY=VALUE, not {part!r}")
        found[unquote(key.strip())] = unquote(value.strip())
    return found
