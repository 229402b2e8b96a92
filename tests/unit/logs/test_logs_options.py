"""Log options: Docker's words for what is wrong, and what the right ones mean."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from wherry.errors import InvalidArgument, NotImplemented_, WherryError
from wherry.logs import options, tags, values
from wherry.logs.files import Segment
from wherry.logs.keeper import surplus
from wherry.logs.options import Backlog, LocalLogSize
from wherry.logs.tags import ContainerFacts
from wherry.model.container import LogConfig


def config(driver: str, **given: str) -> LogConfig:
    return LogConfig(type=driver, config={k.replace("_", "-"): v for k, v in given.items()})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (config("nosuch"), 'error looking up logging plugin nosuch: plugin "nosuch" not found'),
        (config("json-file", x="1"), "unknown log opt 'x' for json-file log driver"),
        (config("local", syslog_address="udp://h:1"), "unknown log opt 'syslog-address' for local"),
        (config("local", mode="fast"), "logger: logging mode not supported: fast"),
        (config("local", max_buffer_size="1m"), "only supported with 'mode=non-blocking'"),
        (config("local", max_size="many"), "max-size: 'many' is not a size"),
        (config("local", max_size="0"), "is not a size"),
        (config("local", max_file="0"), "max-file: '0' is not a number"),
        (config("json-file", compress="maybe"), "neither true nor false"),
        (config("json-file", compress="true", max_file="1"), "compress cannot be true"),
        (config("local", labels_regex="("), "labels-regex"),
        (config("local", tag="{{.Nope}}"), "invalid tag template"),
        (config("local", tag="{{.ID"), "is not closed"),
        (config("splunk"), "log driver splunk is not implemented yet"),
    ],
)
def test_refused(asked: LogConfig, words: str) -> None:
    with pytest.raises(WherryError) as refused:
        options.check(asked)
    assert words in refused.value.message
    assert isinstance(refused.value, NotImplemented_ if asked.type == "splunk" else InvalidArgument)


def test_defaults_of_the_daemon_apply_to_its_own_driver_only() -> None:
    default = config("json-file", max_size="1m", labels="a")
    assert options.resolve(LogConfig(), default) == default
    found = options.resolve(config("json-file", labels="b"), default)
    assert found.config == {"max-size": "1m", "labels": "b"}
    assert options.resolve(config("local"), default) == LogConfig(type="local", config={})


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (config("local"), LocalLogSize(20 << 20, 5, True)),
        (config("json-file"), LocalLogSize(20 << 20, 5, False)),
        (config("local", max_size="1.5k", max_file="2", compress="false"), LocalLogSize(1536, 2, False)),
        (config("json-file", max_size="-1"), LocalLogSize(0, 5, False)),
        (config("gelf", cache_max_size="1M", cache_max_file="3"), LocalLogSize(1 << 20, 3, True)),
        (config("gelf", cache_disabled="true"), LocalLogSize(20 << 20, 1, False, readable=False)),
    ],
)
def test_what_is_kept(asked: LogConfig, kept: LocalLogSize) -> None:
    assert options.keep(asked) == kept


def test_modes() -> None:
    assert options.backlog(config("syslog")) == Backlog(True, 1 << 30)
    assert options.backlog(config("syslog", spool_size="5m")) == Backlog(True, 5 << 20)
    assert options.backlog(config("syslog", mode="non-blocking")) == Backlog(False, 1 << 20)
    asked = config("syslog", mode="non-blocking", max_buffer_size="4m")
    assert options.backlog(asked) == Backlog(False, 4 << 20)


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("1m30s", 90.0), ("2h", 7200.0)])
def test_durations(text: str, seconds: float) -> None:
    assert values.duration({"x": text}, "x", 1.0) == pytest.approx(seconds)
    for wrong in ("5", "s", "1s ", "-1s"):
        with pytest.raises(InvalidArgument):
            values.duration({"x": wrong}, "x", 1.0)


def test_tags_and_attributes() -> None:
    facts = ContainerFacts(
        id="0123456789abcdef" * 4,
        name="web",
        image_name="busybox:1",
        image_id="sha256:" + "fedcba9876543210" * 4,
        labels={"app": "shop", "com.tier": "front"},
        env=("USER=bob", "TOKEN=x", "EMPTY="),
    )
    template = "{{.ImageName}}/{{ .Name }}/{{.ID}} {{.ImageID}} {{.DaemonName}}"
    assert tags.render(template, facts) == "busybox:1/web/0123456789ab fedcba987654 docker"
    chosen = {"labels": "app,none", "env": "USER,EMPTY", "labels-regex": "^com"}
    found = tags.attributes(facts, chosen, values.pattern(chosen, "labels-regex"))
    assert found == {"app": "shop", "com.tier": "front", "USER": "bob", "EMPTY": ""}


def test_which_rotated_files_go() -> None:
    files = [Segment(n, Path(f"log.{n}"), n, 100, 0) for n in range(1, 8)]

    def gone(allowed: int, *needs: tuple[int, int]) -> list[int]:
        consumers = [cast(Any, SimpleNamespace(needs=n, bound=b)) for n, b in needs]
        return [s.number for s in surplus(files, allowed, consumers)]

    assert gone(4) == [1, 2, 3]
    assert gone(7) == []
    assert gone(4, (2, 1000)) == [1]
    assert gone(4, (1, 200)) == [1], "the oldest go when more waits than the bound"
    assert gone(4, (1, 0), (3, 1000)) == [1, 2]
    assert gone(0) == [1, 2, 3, 4, 5, 6, 7]
