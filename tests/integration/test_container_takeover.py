"""A container takes the place of another that runs: start in standby, then ``takeover``."""

from __future__ import annotations

from typing import Any

import pytest
from daemonlab import LabDaemon, wait_until
from freeports import free_port
from requestload import SERVER, RequestLoad

pytestmark = pytest.mark.kernel


def ports(daemon: LabDaemon, name: str) -> dict[str, Any]:
    found = daemon.api("GET", f"/containers/{name}/json").json["NetworkSettings"]["Ports"]
    return {key: sorted({int(one["HostPort"]) for one in value}) for key, value in found.items() if value}


def resolved(daemon: LabDaemon, asker: str, wanted: str) -> list[str]:
    answer = daemon.docker("exec", asker, "nslookup", wanted)
    lines = answer.out.splitlines()
    return sorted(
        line.split()[-1] for line in lines if line.startswith("Address") and "127.0.0.11" not in line
    )


def address(daemon: LabDaemon, name: str, network: str) -> str:
    about = daemon.api("GET", f"/containers/{name}/json").json["NetworkSettings"]["Networks"][network]
    return str(about["IPAddress"])


class Pair:
    """An old container that serves ``web``, and a new one in standby; and one that asks."""

    def __init__(self, daemon: LabDaemon, name: str) -> None:
        self.daemon, self.old, self.new, self.net = daemon, f"{name}-old", f"{name}-new", f"{name}-net"
        self.asker = f"{name}-asker"
        self.port = free_port()
        daemon.docker("network", "create", self.net).ok()
        daemon.docker(
            "run", "-d", "--name", self.asker, "--network", self.net, "busybox", "sleep", "999"
        ).ok()
        self._make(self.old, "old")
        daemon.docker("start", self.old).ok()
        self._make(self.new, "new")

    def _make(self, name: str, page: str) -> None:
        command = SERVER.format(page=page)
        options = ("--network", self.net, "--network-alias", "web", "-h", "shop", "-p", f"{self.port}:80")
        self.daemon.docker("create", "--name", name, *options, "busybox", "sh", "-c", command).ok()

    def standby(self) -> None:
        assert self.daemon.api("POST", f"/containers/{self.new}/start?standby=1").status == 204

    def take_over(self, query: str = "") -> Any:
        return self.daemon.api("POST", f"/containers/{self.new}/takeover?from={self.old}{query}")


@pytest.fixture
def pair(daemon: LabDaemon, name: str) -> Pair:
    return Pair(daemon, name)


def test_in_standby_nobody_finds_it(daemon: LabDaemon, pair: Pair) -> None:
    pair.standby()
    assert daemon.state_of(pair.new)["Running"]
    assert (ports(daemon, pair.old), ports(daemon, pair.new)) == ({"80/tcp": [pair.port]}, {})
    old = [address(daemon, pair.old, pair.net)]
    assert resolved(daemon, pair.asker, "web") == old
    assert resolved(daemon, pair.asker, "shop") == old
    assert resolved(daemon, pair.asker, pair.new) == [address(daemon, pair.new, pair.net)]


def test_ports_and_names_go_over_without_a_lost_request(daemon: LabDaemon, pair: Pair) -> None:
    load = RequestLoad(pair.port)
    wait_until(lambda: daemon.docker("exec", pair.old, "wget", "-qO-", "localhost/cgi-bin/page").code == 0)
    with load.running():
        load.await_answers(8)
        pair.standby()
        wait_until(
            lambda: daemon.docker("exec", pair.new, "wget", "-qO-", "localhost/cgi-bin/page").code == 0
        )
        assert pair.take_over("&drain=30").json == {"Connections": 0}
        daemon.docker("kill", pair.old).ok()
        load.await_answers(8)
    assert load.failures == []
    assert (load.answers[0], load.answers[-1]) == ("old", "new")
    assert ports(daemon, pair.new) == {"80/tcp": [pair.port]}
    new = [address(daemon, pair.new, pair.net)]
    assert (resolved(daemon, pair.asker, "web"), resolved(daemon, pair.asker, "shop")) == (new, new)


def test_it_lasts_beyond_the_daemon_and_beyond_a_restart(daemon: LabDaemon, pair: Pair) -> None:
    pair.standby()
    pair.take_over()
    daemon.docker("kill", pair.old).ok()
    daemon.restart(9)
    load = RequestLoad(pair.port)
    assert load.ask() == "new"
    assert resolved(daemon, pair.asker, "web") == [address(daemon, pair.new, pair.net)]
    daemon.docker("restart", "-t", "0", pair.new).ok()
    wait_until(lambda: "new" in _answer(load))
    # Their records are what they were: the old one has its port as soon as it is free.
    daemon.docker("rm", "-f", pair.new).ok()
    daemon.docker("start", pair.old).ok()
    wait_until(lambda: "old" in _answer(load))


def _answer(load: RequestLoad) -> str:
    try:
        return load.ask()
    except OSError:
        return ""


def test_from_nobody(daemon: LabDaemon, pair: Pair) -> None:
    daemon.docker("rm", "-f", pair.old).ok()
    pair.standby()
    assert daemon.api("POST", f"/containers/{pair.new}/takeover").json == {"Connections": 0}
    assert ports(daemon, pair.new) == {"80/tcp": [pair.port]}


def test_what_a_third_one_has_is_left_to_it_and_nothing_changes(daemon: LabDaemon, name: str) -> None:
    first, second = free_port(), free_port()
    old, new, third = f"{name}-old", f"{name}-new", f"{name}-third"
    daemon.docker("run", "-d", "--name", old, "-p", f"{first}:80", "busybox", "sleep", "99").ok()
    daemon.docker("run", "-d", "--name", third, "-p", f"{second}:80", "busybox", "sleep", "99").ok()
    wanted = ("-p", f"{first}:80", "-p", f"{second}:81")
    daemon.docker("create", "--name", new, *wanted, "busybox", "sleep", "99").ok()
    daemon.api("POST", f"/containers/{new}/start?standby=1")
    answer = daemon.api("POST", f"/containers/{new}/takeover?from={old}")
    assert answer.status == 500 and "port is already allocated" in answer.json["message"]
    assert [ports(daemon, one) for one in (old, new, third)] == [
        {"80/tcp": [first]},
        {},
        {"80/tcp": [second]},
    ]


def test_consecutive_ports_that_are_one_element(daemon: LabDaemon, name: str) -> None:
    """Ten ports that are the same on both sides: half of them go over."""
    low = 24610
    old, new = f"{name}-old", f"{name}-new"
    all_ten, half = f"{low}-{low + 9}", f"{low + 3}-{low + 7}"
    daemon.docker("run", "-d", "--name", old, "-p", f"{all_ten}:{all_ten}", "busybox", "sleep", "99").ok()
    daemon.docker("create", "--name", new, "-p", f"{half}:{half}", "busybox", "sleep", "99").ok()
    daemon.api("POST", f"/containers/{new}/start?standby=1")
    assert daemon.api("POST", f"/containers/{new}/takeover?from={old}").status == 200
    moved = set(range(low + 3, low + 8))
    assert {p for found in ports(daemon, new).values() for p in found} == moved
    assert {p for found in ports(daemon, old).values() for p in found} == set(range(low, low + 10)) - moved


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("from=nobody", 404, "No such container: nobody"),
        ("from=%s", 400, "cannot take over from itself"),
        ("from=%s-stopped", 409, "is not running"),
        ("from=%s-host", 409, "no network of its own (network mode host)"),
        ("drain=-1", 400, "cannot wait -1 s"),
        ("drain=99999", 400, "at most 3600 s"),
    ],
)
def test_refusals(daemon: LabDaemon, name: str, query: str, status: int, words: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "99").ok()
    daemon.docker("create", "--name", f"{name}-stopped", "busybox").ok()
    daemon.docker("run", "-d", "--name", f"{name}-host", "--network", "host", "busybox", "sleep", "99").ok()
    answer = daemon.api("POST", f"/containers/{name}/takeover?{query.replace('%s', name)}")
    assert (answer.status, words in answer.json["message"]) == (status, True), answer.json
