"""The table at the end of the fault runs, from the reports of tests that pass, fail and are skipped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from faulttable import FaultTable


def report(nodeid: str, row: list[str], outcome: str, *, when: str = "call", seconds: float = 1.0) -> Any:
    return SimpleNamespace(
        nodeid=nodeid,
        user_properties=[("fault", row), ("another", 1)],
        duration=seconds,
        when=when,
        failed=outcome == "failed",
        passed=outcome == "passed",
    )


def test_rows() -> None:
    table = FaultTable(shown=True)
    cuts, disk, cluster = ["power cuts", "40 cuts"], ["a full disk", ""], ["a cluster", ""]
    for one in (
        report("cuts", cuts, "passed", when="setup", seconds=60),
        report("cuts", cuts, "passed", seconds=1.6),
        report("disk[a]", disk, "passed"),
        report("disk[b]", disk, "failed"),
        report("disk[b]", disk, "passed", when="teardown"),
        report("cluster", cluster, "skipped", when="setup", seconds=0),
    ):
        table.pytest_runtest_logreport(one)
    assert list(table.lines()) == [
        "what         how many  result   time",
        "power cuts   40 cuts   passed   1:02",
        "a full disk  2 tests   failed   0:03",
        "a cluster    1 test    not run  0:00",
    ]
