"""Log drivers that send container output elsewhere, each as a :class:`~.base.Sink`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wherry.logs.drivers import fluentd, gelf, journald, jsonfile, syslog
from wherry.logs.drivers.base import LogTarget, Retry, Sink


def check(driver: str, options: Mapping[str, str]) -> None:
    """Report every error that can be found before the container starts.

    :raises InvalidArgument: an invalid value. :raises Unavailable: the local receiver does not exist.
    """
    if driver == "syslog":
        syslog.SyslogSettings.of(options).check()
    elif driver == "gelf":
        gelf.GelfSettings.of(options)
    elif driver == "fluentd":
        fluentd.FluentdSettings.of(options)
    elif driver == "journald":
        journald.check()


def make(driver: str, options: Mapping[str, str], target: LogTarget, json_path: Path) -> tuple[Sink, Retry]:
    """The sink of a container with checked options, and its retry times."""
    if driver == "syslog":
        return syslog.SyslogSink(syslog.SyslogSettings.of(options), target), Retry()
    if driver == "gelf":
        of_gelf = gelf.GelfSettings.of(options)
        return gelf.GelfSink(of_gelf, target), of_gelf.retry
    if driver == "fluentd":
        of_fluentd = fluentd.FluentdSettings.of(options)
        return fluentd.FluentdSink(of_fluentd, target), of_fluentd.retry
    if driver == "journald":
        return journald.JournalSink(target), Retry()
    assert driver == "json-file", driver
    return jsonfile.JsonFileSink(json_path, jsonfile.JsonFileSettings.of(options), target), Retry()
