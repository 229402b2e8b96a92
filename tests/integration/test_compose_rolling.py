"""``wherry compose up --rolling`` under load: no request is lost, and failures are undone."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon
from freeports import free_port
from patience import until
from projectlab import ProjectLab
from requestload import SERVER, RequestLoad

pytestmark = [pytest.mark.kernel, pytest.mark.patient(180)]


class Shop(ProjectLab):
    """``web`` with a published port and a health check, and ``client``, which asks it by its name."""

    port: int

    def write(
        self, page: str, *, healthy: bool = True, scale: int = 1, first: str = "", more: str = ""
    ) -> None:
        """:param first: a shell command before the server. :param more: a line of the service."""
        check = "wget -qO- localhost/cgi-bin/page" if healthy else "exit 1"
        ports = f'ports: ["{self.port}:80"]' if scale == 1 else "ports: []"
        command = (first + SERVER.format(page=page)).replace("$", "$$")
        self.file(
            f"""services:
  web:
    image: busybox
    init: true
    command: {json.dumps(["sh", "-c", command])}
    {ports}
    stop_grace_period: 20s
    deploy: {{replicas: {scale}}}
    healthcheck: {{test: ["CMD-SHELL", "{check}"], interval: 300ms, retries: 2, start_period: 0s}}
    volumes: ["count:/c"]
    {more}
  client: {{image: busybox, init: true, command: [sleep, "1000"]}}
volumes: {{count: {{}}}}
"""
        )

    def ids(self) -> dict[str, str]:
        return {name: one["ID"] for name, one in self.containers().items()}

    def asks(self) -> list[str]:
        """What ``web`` answers to ``client``."""
        return self.run("exec", "-T", "client", "wget", "-qO-", "http://web/cgi-bin/page").split()


@pytest.fixture
def shop(daemon: LabDaemon, tmp_path: Path, name: str) -> Iterator[Shop]:
    made = Shop(daemon, tmp_path, name)
    made.port = free_port()
    yield made
    made.end()


def test_no_request_is_lost(shop: Shop) -> None:
    shop.write("one")
    shop.run("up", "-d", "--wait")
    before = shop.ids()
    with RequestLoad(shop.port).running() as load:
        load.await_answers(8)
        shop.write("two")
        shop.run("up", "--rolling")
        load.await_answers(8)
    assert load.failures == []
    assert set(load.answers) == {"one", "two"} and load.answers[-1] == "two"
    after = shop.ids()
    assert set(after) == {"web-1", "client-1"}
    assert after["client-1"] == before["client-1"] and after["web-1"] != before["web-1"]
    assert shop.asks() == ["two"]
    shop.run("up", "--rolling")
    assert shop.ids() == after


def test_what_does_not_get_healthy_is_taken_back(shop: Shop) -> None:
    shop.write("one")
    shop.run("up", "-d", "--wait")
    before = shop.ids()
    with RequestLoad(shop.port).running() as load:
        load.await_answers(4)
        shop.write("two", healthy=False)
        shop.run("up", "--rolling", code=1)
        load.await_answers(4)
    assert "service web: container" in shop.errors and "is unhealthy" in shop.errors
    assert "its former containers run on" in shop.errors
    assert load.failures == [] and set(load.answers) == {"one"}
    assert shop.ids() == before
    assert shop.asks() == ["one"]


def test_three_of_which_the_last_fails_all_come_back(shop: Shop) -> None:
    shop.write("one", scale=3)
    shop.run("up", "-d", "--wait")
    before = shop.ids()
    shop.write("two", scale=3, first="echo >> /c/n; test $(wc -l < /c/n) -lt 3 || exit 3; ")
    shop.run("up", "--rolling", code=1)
    assert "its former containers run on" in shop.errors
    assert shop.ids() == before
    assert all(one["State"] == "running" for one in shop.containers().values())
    assert shop.asks() == ["one"]


def test_a_killed_client_is_followed_by_a_plain_up(shop: Shop) -> None:
    shop.write("one")
    shop.run("up", "-d", "--wait")
    shop.write("two")
    process = shop.popen("up", "--rolling")
    until(lambda: any(name.endswith("_" + shop.name + "-web-1") for name in _all_names(shop)))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    shop.run("up", "-d", "--wait")
    assert RequestLoad(shop.port).ask() == "two"
    assert set(shop.ids()) == {"web-1", "client-1"}
    assert shop.asks() == ["two"]


def test_a_killed_client_is_followed_by_another_rolling_one(shop: Shop) -> None:
    shop.write("one")
    shop.run("up", "-d", "--wait")
    shop.write("two")
    with RequestLoad(shop.port).running() as load:
        load.await_answers(4)
        process = shop.popen("up", "--rolling")
        until(lambda: any(name.endswith("_" + shop.name + "-web-1") for name in _all_names(shop)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        shop.run("up", "--rolling")
        load.await_answers(4)
    assert load.failures == [] and load.answers[-1] == "two"
    assert set(shop.ids()) == {"web-1", "client-1"}


def _all_names(shop: Shop) -> list[str]:
    listed = shop.daemon.api("GET", "/containers/json?all=1").json
    return [name.removeprefix("/") for one in listed for name in one["Names"]]


def test_interrupted_while_it_waits(shop: Shop) -> None:
    shop.write("one")
    shop.run("up", "-d", "--wait")
    before = shop.ids()
    shop.write("two", more='entrypoint: ["sleep", "600"]')
    process = shop.popen("up", "--rolling")
    until(lambda: any(name.endswith("_" + shop.name + "-web-1") for name in _all_names(shop)))
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert shop.ids() == before and shop.asks() == ["one"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("mac_address: 02:42:ac:11:00:09", "services.web.mac_address"),
        ("network_mode: host", "services.web.network_mode: host"),
        ("networks: {default: {ipv4_address: 10.97.3.9}}", "services.web.networks.default.ipv4_address"),
    ],
)
def test_what_cannot_stand_beside_each_other_is_refused(shop: Shop, more: str, words: str) -> None:
    shop.write("one", scale=2)
    shop.run("up", "-d", "--wait", "web")
    before = shop.ids()
    shop.write("two", scale=2, more=more)
    shop.run("up", "--rolling", "web", code=1)
    assert words in shop.errors
    assert shop.ids() == before


@pytest.mark.parametrize(
    "flags", [("--no-start",), ("--no-recreate",), ("--watch",), ("--abort-on-container-exit",)]
)
def test_flags_that_contradict(shop: Shop, flags: tuple[str, ...]) -> None:
    shop.write("one")
    shop.run("up", "--rolling", *flags, code=1)
    assert "--rolling" in shop.errors
