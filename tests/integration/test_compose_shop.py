"""A web shop of ten services, as people run them; and a hundred services at once."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemonlab import LabDaemon
from freeports import free_port
from patience import until
from projectlab import ProjectLab

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.patient(900)]
SHOP = Path(__file__).parents[1] / "data" / "shop"
ORDERS = 40


@pytest.fixture
def lab(daemon: LabDaemon, tmp_path: Path, name: str) -> Iterator[ProjectLab]:
    made = ProjectLab(daemon, tmp_path, name)
    yield made
    made.end()


def ask(port: int, path: str = "/", order: str = "") -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=order.encode() or None)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_a_shop(lab: ProjectLab) -> None:
    shutil.copytree(SHOP, lab.where, dirs_exist_ok=True)
    port = free_port()
    (lab.where / ".env").write_text(f"PORT={port}\nSHOP_PASSWORD=a password\n")
    lab.daemon.wherry("image", "bootstrap", "debian:bookworm-slim", timeout=600).ok()
    lab.run("up", "-d", "--build", "--wait")
    running = {name: one for name, one in lab.containers().items() if one["State"] == "running"}
    assert len(running) == 10 and lab.containers()["migrate-1"]["ExitCode"] == 0
    for number in range(ORDERS):
        assert ask(port, order=f"shoe {number}") == {"queued": f"shoe {number}"}
    until(lambda: ask(port) == {"orders": ORDERS}, "all orders are booked", 60)
    assert sum(ask(port, "/metrics").values()) == ORDERS
    until(lambda: lab.run("logs", "--no-log-prefix", "mailer").count("mail: shoe") == ORDERS)

    lab.run("down", "-t", "5")  # the volume stays
    lab.run("up", "-d", "--no-build", "--wait", "db")
    booked = "select count(*) from orders"
    psql = ("exec", "-T", "-e", "PGPASSWORD=a password", "db", "psql", "-h", "127.0.0.1", "-tAc", booked)
    assert lab.run(*psql).strip() == str(ORDERS)


def test_a_hundred_services(lab: ProjectLab) -> None:
    """Sixteen at a time: with 64 the daemon's loop may wait a tenth of a second for the disk."""
    services = "".join(
        f"  s{number}: {{image: busybox, init: true, command: [sleep, '1000']"
        + (f", depends_on: [s{number // 10 * 10}]" if number % 10 else "")
        + "}\n"
        for number in range(100)
    )
    lab.file(f"services:\n{services}")
    lab.run("--parallel", "16", "up", "-d", "--wait")
    before = {name: one["ID"] for name, one in lab.containers().items()}
    assert len(before) == 100
    lab.run("up", "-d")
    assert {name: one["ID"] for name, one in lab.containers().items()} == before
    lab.run("down", "-t", "0")
    assert lab.containers() == {}
