"""``--metrics-addr``: what Prometheus reads from a daemon that works."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base
from freeports import free_port
from patience import until
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

DASHBOARD = Path(__file__).resolve().parents[2] / "packaging" / "grafana" / "wherry.json"
pytestmark = pytest.mark.xdist_group("metrics")


class Scraped:
    """One answer: every sample by its name, and its labels."""

    def __init__(self, text: str) -> None:
        self.samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in plain(text):
            for sample in family.samples:
                self.samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def value(self, sample: str, /, **labels: str) -> float | None:
        """Of the one sample with these labels, and maybe others; ``None`` if there is none."""
        found = [value for has, value in self.samples.get(sample, ()) if labels.items() <= has.items()]
        assert len(found) <= 1, (sample, labels, found)
        return found[0] if found else None

    def one(self, sample: str, /, **labels: str) -> float:
        value = self.value(sample, **labels)
        assert value is not None, f"no {sample} {labels}"
        return value


class Metered:
    def __init__(self, daemon: LabDaemon, port: int) -> None:
        self.daemon, self.port = daemon, port

    def get(self, path: str = "/metrics", accept: str = "") -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text: str = answer.read().decode()
            return text

    def scrape(self) -> Scraped:
        return Scraped(self.get())


@pytest.fixture(scope="module")
def metered() -> Iterator[Metered]:
    port = free_port()
    base = new_base()
    daemon = LabDaemon(base)
    (base / "daemon.json").write_text(
        json.dumps(
            {"metrics-addr": f"127.0.0.1:{port}", "metrics-labels": ["team"], "metrics-containers": "team"}
        )
    )
    try:
        daemon.start()
        daemon.bootstrap()
        yield Metered(daemon, port)
    finally:
        daemon.destroy()


def test_a_container_from_its_start_to_its_end(metered: Metered, name: str) -> None:
    before = metered.scrape()
    daemon = metered.daemon
    work = "while :; do dd if=/dev/zero of=/f bs=1M count=8 conv=fsync 2>/dev/null; done"
    daemon.docker("run", "-d", "--name", name, "-l", "team=blue", "-m", "64m", "busybox", "sh", "-c", work)
    daemon.docker("run", "-d", "--name", f"{name}-other", "busybox", "sleep", "1000")
    try:
        until(lambda: (metered.scrape().value("container_cpu_usage_seconds_total", name=name) or 0) > 0)
        now = metered.scrape()
        who = {"name": name, "image": "busybox", "container_label_team": "blue"}
        assert len(now.samples["container_memory_usage_bytes"]) == 1, "the other one has no such label"
        assert 0 < now.one("container_memory_working_set_bytes", **who) <= 64 << 20
        assert now.one("container_spec_memory_limit_bytes", **who) == 64 << 20
        assert now.one("container_threads", **who) >= 1
        assert now.one("container_network_receive_bytes_total", interface="eth0", **who) >= 0
        state = daemon.state_of(name)
        assert int(now.one("container_start_time_seconds", **who)) == _seconds(state["StartedAt"])
        running = "engine_daemon_container_states_containers"
        assert now.one(running, state="running") == before.one(running, state="running") + 2
        started = "engine_daemon_container_actions_seconds_count"
        assert now.one(started, action="start") == before.one(started, action="start") + 2
    finally:
        daemon.docker("rm", "-f", name, f"{name}-other")
    after = metered.scrape()
    assert after.value("container_memory_usage_bytes", name=name) is None
    assert after.one(running, state="running") == before.one(running, state="running")
    told = {"type": "container", "action": "destroy"}
    assert after.one("wherry_events_total", **told) == (before.value("wherry_events_total", **told) or 0) + 2


def _seconds(text: str) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(text[:19] + "+00:00").timestamp())


def test_requests_by_route_and_never_by_what_clients_write(metered: Metered, name: str) -> None:
    metered.daemon.api("GET", f"/containers/{name}/json", expected=404)
    metered.daemon.api("GET", "/nothing/of/the/sort", expected=404)
    now = metered.scrape()
    asked = {"method": "GET", "endpoint": "/containers/{id}/json", "code": "404"}
    assert now.one("wherry_api_request_duration_seconds_count", **asked) >= 1
    assert now.one("wherry_api_request_duration_seconds_count", method="", endpoint="", code="404") >= 1
    assert name not in metered.get() and "/nothing" not in metered.get()
    until(lambda: metered.scrape().one("wherry_api_requests_in_progress") == 0)


def test_builds_and_health_checks(metered: Metered, name: str, tmp_path: Path) -> None:
    before = metered.scrape()
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN false\n")
    failed = metered.daemon.docker("build", str(tmp_path))
    assert failed.code
    checked = ("--health-cmd", "false", "--health-interval", "1s", "--health-retries", "1")
    metered.daemon.docker("run", "-d", "--name", name, "-l", "team=red", *checked, "busybox", "sleep", "1000")
    try:
        count = "engine_daemon_health_checks_failed_total"
        until(lambda: metered.scrape().one(count) > before.one(count))
        until(lambda: metered.scrape().one("wherry_containers_health", health="unhealthy") == 1)
        now = metered.scrape()
    finally:
        metered.daemon.docker("rm", "-f", name)
    assert now.one("wherry_container_healthy", name=name) == 0
    builds = "builder_builds_failed_total"
    was = before.one(builds, reason="build_failed")
    assert now.one(builds, reason="build_failed") == was + 1
    assert now.one("wherry_builds_in_progress") == 0


def test_both_text_formats(metered: Metered) -> None:
    families = list(openmetrics(metered.get(accept="application/openmetrics-text; version=1.0.0")))
    names = {family.name for family in families}
    assert {"engine_daemon_events", "wherry_threads_waiting", "wherry_event_loop_lag_seconds"} <= names
    assert metered.scrape().one("engine_daemon_engine_info", graphdriver="overlay") == 1


def test_nothing_else_is_served_there(metered: Metered) -> None:
    for path in ("/", "/containers/json", "/metrics/x"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            metered.get(path)
        assert refused.value.code == 404
        refused.value.close()


def test_the_dashboard_asks_for_what_there_is(metered: Metered, name: str) -> None:
    """Every name in Grafana's file is one that a daemon with a running container has."""
    metered.daemon.docker("run", "-d", "--name", name, "-l", "team=x", "busybox", "sleep", "1000")
    try:
        known = set(metered.scrape().samples)
    finally:
        metered.daemon.docker("rm", "-f", name)
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(asked) >= 12
    found = {
        name
        for text in asked
        for name in re.findall(r"\b(?:engine|builder|container|wherry|process)_\w+", text)
    }
    found -= {label for label in found if label.startswith("container_label_")}
    absent = {"container_fs_reads_bytes_total", "container_fs_writes_bytes_total"}  # of one that did nothing
    assert found <= known | absent, found - known


def test_an_address_that_is_taken_ends_the_start(metered: Metered) -> None:
    daemon = LabDaemon(new_base(), "--metrics-addr", f"127.0.0.1:{metered.port}")
    try:
        daemon.start(ready=False)
        assert daemon.process is not None
        until(lambda: daemon.process is not None and daemon.process.poll() is not None)
        assert f"cannot serve metrics on 127.0.0.1:{metered.port}" in daemon.log
    finally:
        daemon.destroy()
