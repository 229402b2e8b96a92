"""stats and top over containers against a fake daemon, and what they draw."""

from __future__ import annotations

import json

from statreadings import reading

from conftest import Run, Serve
from wherry.cli.commands.stats import HISTORY, Histories
from wherry.cli.commands.top import TopView
from wherry.cli.render.usage import ContainerUsage, cpu_percent, sparkline

ID = "a" * 64


def test_arithmetic() -> None:
    usage = ContainerUsage(reading("web", cpu=250))
    assert (usage.cpu, usage.memory, usage.pids) == (50.0, (1 << 20) - 4096, 3)
    assert (usage.received, usage.sent, usage.block_read, usage.block_write) == (1001, 2001, 5, 6)
    first = reading("web", cpu=250)
    first["precpu_stats"] = {"cpu_usage": {"total_usage": 0}}
    assert cpu_percent(first) == 0.0
    nothing = ContainerUsage({"id": ID, "name": "/x", "memory_stats": {}})
    assert (nothing.cpu, nothing.memory, nothing.memory_percent) == (0.0, 0.0, 0.0)


def test_stats_once(serve: Serve, wherry: Run) -> None:
    daemon = serve({"GET /containers/stats": lambda x: [reading("web", cpu=250), reading("db")]})
    assert wherry(daemon, "stats", "--no-stream")[:2] == (
        0,
        "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O     BLOCK I/O   PIDS\n"
        "dddddddddddd   db        0.00%     1020KiB / 1GiB      0.10%     1kB / 2kB   5B / 6B     3\n"
        "wwwwwwwwwwww   web       50.00%    1020KiB / 1GiB      0.10%     1kB / 2kB   5B / 6B     3\n",
    )
    assert daemon.asked("GET /containers/stats")[0].query == {"stream": "0"}
    code, out, _ = wherry(
        daemon, "container", "stats", "-a", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}"
    )
    assert (code, out) == (0, "db 0.00%\nweb 50.00%\n")
    assert daemon.asked("GET /containers/stats")[1].query == {"all": "1", "stream": "0"}
    code, out, _ = wherry(daemon, "stats", "--no-stream", "--format", "json")
    assert json.loads(out.splitlines()[0])["PIDs"] == "3"


def test_stats_of_some(serve: Serve, wherry: Run) -> None:
    daemon = serve(
        {
            "GET /containers/web/json": lambda x: {"Id": "w" * 64},
            "GET /containers/stats": lambda x: [reading("web"), reading("db")],
        }
    )
    assert wherry(daemon, "stats", "--no-stream", "--format", "{{.Name}}", "web")[1] == "web\n"
    assert wherry(daemon, "stats", "nope")[0] == 1


def test_names_are_made_harmless(serve: Serve, wherry: Run) -> None:
    daemon = serve({"GET /containers/stats": lambda x: [reading("w\x1b[2J\tx")]})
    out = wherry(daemon, "stats", "--no-stream")[1]
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2
    assert "\x1b" not in "".join(TopView("cpu").lines([ContainerUsage(reading("w\x1b[2J\nx"))]))


def test_top_without_a_container_is_sorted(serve: Serve, wherry: Run) -> None:
    found = [reading("a", memory=9 << 20), reading("b", cpu=500), reading("c", cpu=250)]
    daemon = serve({"GET /containers/stats": lambda x: found})

    def order(*arguments: str) -> list[str]:
        return [line.split()[1] for line in wherry(daemon, "top", *arguments)[1].splitlines()[1:]]

    assert order() == ["b", "c", "a"]
    assert order("--sort", "memory", "--all") == ["a", "b", "c"]
    assert wherry(daemon, "top", "--sort", "colour")[0] == 1


def test_top_of_one_and_of_several(serve: Serve, wherry: Run) -> None:
    daemon = serve(
        {
            "GET /containers/web/top": lambda x: {"Titles": ["PID", "CMD"], "Processes": [["1", "sh"]]},
            "GET /containers/web/json": lambda x: {"Id": "w" * 64},
            "GET /containers/db/json": lambda x: {"Id": "d" * 64},
            "GET /containers/stats": lambda x: [reading("web"), reading("db"), reading("x")],
        }
    )
    assert "sh" in wherry(daemon, "top", "web")[1]
    wherry(daemon, "top", "web", "-o", "pid,comm")
    wherry(daemon, "top", "web", "aux")
    assert [x.query for x in daemon.asked("GET /containers/web/top")] == [
        {},
        {"ps_args": "-o pid,comm"},
        {"ps_args": "aux"},
    ]
    out = wherry(daemon, "top", "web", "db")[1]
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["db", "web"]


def test_keys_change_the_order() -> None:
    view = TopView("cpu")
    usages = [ContainerUsage(reading("a", cpu=1, memory=9 << 20)), ContainerUsage(reading("b", cpu=2))]

    def order() -> list[str]:
        return [line.split()[1] for line in view.lines(usages)[4:]]

    assert order() == ["b", "a"]
    assert view.key("m") and order() == ["a", "b"]
    assert view.key("r") and order() == ["b", "a"]
    assert view.key("n") and order() == ["a", "b"]
    assert view.key("x") and not view.key("q")


def test_history_grows_by_readings_not_by_drawing() -> None:
    histories = Histories()
    for cpu in range(HISTORY + 5):
        usages = [ContainerUsage(reading("a", cpu=cpu * 10))]
        histories.take(usages)
        histories.take(usages)
    line = histories.lines(usages)[1]
    assert line.count("█") >= 1
    histories.take([ContainerUsage(reading("b"))])
    assert list(histories._cpu) == [("", "b" * 64)]


def test_sparklines() -> None:
    assert sparkline([0, 50, 100], 5, 1) == "  ▁▅█"
    assert sparkline([1, 1], 2, 100) == "▁▁"
    assert sparkline([1, 2, 3, 4], 2, 1) == "▇█"
