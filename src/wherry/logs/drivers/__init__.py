"""Log drivers that send what containers print elsewhere, each as a :class:`~.base.Sink`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wherry.logs.drivers import fluentd, gelf, journald, jsonfile, syslog
from wherry.logs.drivers.base import Retry, Sink, Target


def check(driver: str, options: Mapping[str, str]) -> None:
    """Everything that can be found wrong before the container starts.

    :raises InvalidArgument: a value that makes no sense. :raises Unavailable: nobody here to send to.
    """
    if driver == "syslog":
        syslog.Settings.of(options).check()
    elif driver == "gelf":
        gelf.Settings.of(options)
    elif driver == "fluentd":
        fluentd.Settings.of(options)
    elif driver == "journald":
        journald.check()


def make(driver: str, options: Mapping[str, str], target: Target, json_path: Path) -> tuple[Sink, Retry]:
    """The sink of a container whose options were checked, and how often to try again."""
    if driver == "syslog":
        return syslog.SyslogSink(syslog.Settings.of(options), target), Retry()
    if driver == "gelf":
        of_gelf = gelf.Settings.of(options)
        return gelf.GelfSink(of_gelf, target), of_gelf.retry
    if driver == "fluentd":
        of_fluentd = fluentd.Settings.of(options)
        return fluentd.FluentdSink(of_fluentd, target), of_fluentd.retry
    if driver == "journald":
        return journald.JournalSink(target), Retry()
    assert driver == "json-file", driver
    return jsonfile.JsonFileSink(json_path, jsonfile.Settings.of(options), target), Retry()
