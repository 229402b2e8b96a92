"""Volumes of plugins on a real daemon: used, shared, given back after a kill, and never in anybody's way."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from exampleplugin import ExamplePlugin
from leaks import no_leak
from patience import patiently

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def lab() -> Iterator[tuple[LabDaemon, ExamplePlugin]]:
    base = new_base()
    daemon = LabDaemon(base, "--plugin-dir", str(base / "p"), "--plugin-timeout", "1")
    (base / "p").mkdir()
    plugin = ExamplePlugin(base / "p" / "ex.sock", base / "data")
    try:
        daemon.start()
        daemon.bootstrap()
        # What is noted of a plugin's scope stays.
        daemon.docker("volume", "create", "-d", "ex", "first").ok()
        daemon.docker("volume", "rm", "first").ok()
        yield daemon, plugin
    finally:
        plugin.misbehave = {}
        daemon.destroy()
        plugin.close()


def test_a_volume_of_a_plugin(lab: tuple[LabDaemon, ExamplePlugin], name: str) -> None:
    daemon, plugin = lab
    with no_leak(daemon):
        missing = daemon.docker("volume", "create", "-d", "nothere", name)
        assert missing.code == 1 and 'plugin "nothere" not found' in missing.errors
        for driver in ("/etc", "../..", "ex/../../x", "a\0b", "x" * 300):
            refused = daemon.api("POST", "/volumes/create", {"Name": name, "Driver": driver})
            assert refused.status == 404 and "not found" in refused.message
        daemon.docker("volume", "create", "-d", "ex", "-o", "colour=red", name).ok()
        assert plugin.options[name] == {"colour": "red"}
        view = daemon.api("GET", f"/volumes/{name}").json
        assert (view["Driver"], view["Scope"], view["Mountpoint"]) == ("ex", "global", "")
        assert view["Status"] == {"users": 0}
        assert "ex" in daemon.api("GET", "/info").json["Plugins"]["Volume"]
        for number in (1, 2):
            run = ("run", "-d", "--name", f"{name}-{number}", "-v", f"{name}:/m", "busybox", "sleep", "1000")
            daemon.docker(*run).ok()
        assert plugin.calls.count("VolumeDriver.Mount") == 1
        daemon.docker("exec", f"{name}-1", "sh", "-c", "echo shared >/m/f").ok()
        assert daemon.docker("exec", f"{name}-2", "cat", "/m/f").ok() == "shared"
        daemon.docker("rm", "-f", f"{name}-1").ok()
        assert "VolumeDriver.Unmount" not in plugin.calls
        # The daemon is killed, then the container: the next daemon gives the volume back.
        daemon.end(signal.SIGKILL)
        daemon.start()
        assert daemon.docker("exec", f"{name}-2", "cat", "/m/f").ok() == "shared"
        daemon.docker("rm", "-f", f"{name}-2").ok()
        wait_until(lambda: plugin.mounts[name] == set(), "the last one gave it back")
        in_it = daemon.docker("run", "--rm", "-v", f"{name}:/etc", "busybox", "ls", "/etc")
        assert "passwd" not in in_it.ok().split()  # no copy-up: it is not empty
        assert daemon.docker("volume", "rm", name).ok() == name
        assert not (plugin.data / name).exists()


def test_anonymous_and_copied_up(lab: tuple[LabDaemon, ExamplePlugin], name: str) -> None:
    daemon, plugin = lab
    with no_leak(daemon):
        run = ("run", "--name", name, "--volume-driver", "ex", "-v", "/etc", "busybox", "ls", "/etc")
        assert "passwd" in daemon.docker(*run).ok().split()
        assert len(list(plugin.data.iterdir())) == 1
        daemon.docker("rm", "-v", name).ok()
        assert list(plugin.data.iterdir()) == []


def test_a_plugin_that_hangs_is_in_nobodys_way(lab: tuple[LabDaemon, ExamplePlugin], name: str) -> None:
    daemon, plugin = lab
    with no_leak(daemon):
        daemon.docker("volume", "create", "-d", "ex", name).ok()
        plugin.calls.clear()
        plugin.misbehave = {
            "VolumeDriver.Mount": "hang",
            "VolumeDriver.Create": "drip",
            "VolumeDriver.Get": "die",
        }
        try:
            run = ("run", "-d", "--name", f"{name}-box", "-v", f"{name}:/m", "busybox", "sleep", "1000")
            daemon.docker("create", *run[2:]).ok()
            with daemon.docker_process("start", f"{name}-box", stderr=subprocess.PIPE) as waiting:
                wait_until(lambda: "VolumeDriver.Mount" in plugin.calls)
                # Lists, other volumes and other containers go on meanwhile.
                assert name in daemon.docker("volume", "ls", "-q").ok()
                other = daemon.docker("run", "--rm", "-v", f"{name}-l:/m", "busybox", "echo", "on")
                assert other.ok() == "on"
                _, errors = waiting.communicate(timeout=patiently(20))
            assert waiting.returncode == 1
            assert b"plugin ex does not answer VolumeDriver.Mount within 1 s" in errors
            status = daemon.api("GET", f"/volumes/{name}").json["Status"]
            assert "plugin ex does not answer VolumeDriver.Get" in status["Error"]
            del plugin.misbehave["VolumeDriver.Get"]
            failed = daemon.docker("volume", "create", "-d", "ex", f"{name}-new")
            assert failed.code == 1 and "does not answer VolumeDriver.Create within 1 s" in failed.errors
            plugin.misbehave = {"VolumeDriver.Remove": "busy, sorry"}
            daemon.docker("rm", "-f", f"{name}-box").ok()
            refused = daemon.docker("volume", "rm", name)
            assert refused.code == 1 and "busy, sorry" in refused.errors
            assert name in daemon.docker("volume", "ls", "-q").ok()
        finally:
            plugin.misbehave = {}
        daemon.docker("volume", "rm", name, f"{name}-l").ok()


def test_a_daemon_starts_without_its_plugin(lab: tuple[LabDaemon, ExamplePlugin], name: str) -> None:
    daemon, plugin = lab
    daemon.docker("volume", "create", "-d", "ex", name).ok()
    daemon.docker("run", "-d", "--name", name, "-v", f"{name}:/m", "busybox", "sleep", "1000").ok()
    daemon.end(signal.SIGKILL)
    plugin.misbehave = {"VolumeDriver.Unmount": "die", "Plugin.Activate": "die"}
    try:
        daemon.start()
        daemon.docker("rm", "-f", name).ok()
        daemon.restart()
        assert "does not answer" in daemon.log
        failed = daemon.docker("volume", "rm", name)
        assert failed.code == 1 and "does not answer Plugin.Activate" in failed.errors
        assert daemon.docker("volume", "rm", "-f", name).ok() == name
    finally:
        plugin.misbehave = {}
