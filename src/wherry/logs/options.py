"""``LogConfig`` of a container: the drivers, their options, and what these mean.

Error messages are Docker's if Docker refuses the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wherry.errors import InvalidArgument, NotImplemented_
from wherry.logs import drivers, tags, values
from wherry.logs.values import MAX_FILE, MAX_SIZE
from wherry.model.container import LogConfig

DRIVERS = ("fluentd", "gelf", "journald", "json-file", "local", "none", "syslog")
"""The drivers that containers can request, as ``/info`` lists them."""
DEFAULT_SHOWN = "json-file"
"""The name reported to clients if nobody chose a driver: only for this name (and journald) the Docker SDK
returns the output of ``containers.run``."""
_ELSEWHERE = ("awslogs", "etwlogs", "gcplogs", "splunk")

_FILE = {"max-size", "max-file", "compress"}
_ATTRIBUTES = {"labels", "labels-regex", "env", "env-regex", "tag"}
_EVERY = {"mode", "max-buffer-size", "spool-size"}
_CACHE = {"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"}
_OWN: dict[str, set[str]] = {
    "local": _FILE,
    "json-file": _FILE,
    "journald": _CACHE,
    "syslog": _CACHE
    | {
        "syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert",
        "syslog-tls-key", "syslog-tls-skip-verify",
    },
    "gelf": _CACHE
    | {
        "gelf-address", "gelf-compression-type", "gelf-compression-level", "gelf-tcp-max-reconnect",
        "gelf-tcp-reconnect-delay",
    },
    "fluentd": _CACHE
    | {
        "fluentd-address", "fluentd-async", "fluentd-async-reconnect-interval", "fluentd-buffer-limit",
        "fluentd-max-retries", "fluentd-request-ack", "fluentd-retry-wait",
        "fluentd-sub-second-precision", "fluentd-write-timeout",
    },
}  # fmt: skip

MAX_BUFFER, SPOOL = 1 << 20, 1 << 30


@dataclass(frozen=True)
class LocalLogSize:
    """The size of the local copy: ``max_size`` bytes per file (0: no bound), ``max_file`` files."""

    max_size: int = MAX_SIZE
    max_file: int = MAX_FILE
    compress: bool = True
    readable: bool = True


@dataclass(frozen=True)
class Backlog:
    """The limit for undelivered output, in bytes of the local copy.

    ``blocking``: files that are not delivered yet are kept beyond ``max_file``, up to ``bound``. Otherwise,
    if the server does not accept messages, the oldest beyond ``bound`` are dropped.
    """

    blocking: bool = True
    bound: int = SPOOL


def resolve(wanted: LogConfig, default: LogConfig) -> LogConfig:
    """The driver and options of a container: the requested ones, over the daemon's defaults.

    :raises InvalidArgument: an unknown driver or option, or a value that makes no sense.
    :raises NotImplemented_: a driver by name that is not there.
    :raises Unavailable: ``journald`` without a journal, ``syslog`` without a server.
    """
    driver = wanted.type or default.type
    options = dict(wanted.config or {})
    if driver == default.type:
        options = {**(default.config or {}), **options}
    found = LogConfig(type=driver, config=options)
    check(found)
    return found


def check(config: LogConfig) -> None:
    """:raises: as :func:`resolve`."""
    driver, options = config.type, config.config or {}
    if driver in _ELSEWHERE:
        raise NotImplemented_(f"log driver {driver} is not implemented yet")
    if driver not in DRIVERS:
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    if driver == "none":
        return
    known = _OWN[driver] | _ATTRIBUTES | _EVERY
    for name in options:
        if name not in known:
            raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver")
    backlog(config)
    keep(config)
    for name in ("labels-regex", "env-regex"):
        values.pattern(options, name)
    tags.check(options.get("tag", ""))
    drivers.check(driver, options)


def keep(config: LogConfig) -> LocalLogSize:
    """The bounds of the local copy. :raises InvalidArgument: invalid values."""
    options = config.config or {}
    if config.type in ("local", "json-file"):
        compress = values.boolean(options, "compress", default=config.type == "local")
        found = LocalLogSize(_max_size(options, "max-size"), _max_file(options, "max-file"), compress)
        if compress and "compress" in options and (found.max_file < 2 or not found.max_size):
            raise InvalidArgument(
                "compress cannot be true when max-file is less than 2 or max-size is not set"
            )
        if "max-file" in options and found.max_file > 1 and not found.max_size:
            raise InvalidArgument("max-file cannot be more than 1 when max-size is not set")
        return found
    if values.boolean(options, "cache-disabled", default=False):
        return LocalLogSize(max_file=1, compress=False, readable=False)
    return LocalLogSize(
        _max_size(options, "cache-max-size"),
        _max_file(options, "cache-max-file"),
        values.boolean(options, "cache-compress", default=True),
    )


def backlog(config: LogConfig) -> Backlog:
    """:raises InvalidArgument: invalid values."""
    options = config.config or {}
    mode = options.get("mode") or "blocking"
    if mode not in ("blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if mode == "non-blocking":
        return Backlog(False, values.size(options, "max-buffer-size", MAX_BUFFER))
    if "max-buffer-size" in options:
        raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    bound = values.size(options, "spool-size", SPOOL)
    if config.type == "fluentd":
        bound = values.size(options, "fluentd-buffer-limit", bound)
    return Backlog(True, bound)


def is_shipped(config: LogConfig) -> bool:
    """Whether the container's output is delivered anywhere besides the local copy."""
    return config.type not in ("local", "none", "")


def is_kept(config: LogConfig) -> bool:
    """Whether there is a local copy at all."""
    return config.type != "none"


def is_readable(config: LogConfig) -> bool:
    """Whether ``logs`` can answer."""
    return is_kept(config) and not values.boolean(config.config or {}, "cache-disabled", default=False)


def _max_size(options: Mapping[str, str], name: str) -> int:
    if options.get(name) == "-1":
        return 0
    return values.size(options, name, MAX_SIZE)


def _max_file(options: Mapping[str, str], name: str) -> int:
    return values.integer(options, name, MAX_FILE, low=1, high=10_000)
