"""Health checks as the docker CLI, the SDK and the kernel see them."""

from __future__ import annotations

import io
import json
import signal
import tarfile
from pathlib import Path
from typing import Any

import pytest
from daemonlab import LabDaemon, wait_until

pytestmark = pytest.mark.kernel

FAST = ("--health-interval", "100ms", "--health-retries", "1")


def run(daemon: LabDaemon, name: str, command: str, *flags: str) -> str:
    checks = ("--health-cmd", command, *FAST, *flags)
    return daemon.docker("run", "-d", "--name", name, *checks, "busybox", "sleep", "1000").ok()


def health(daemon: LabDaemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.state_of(name)["Health"]
    return found


def until_status(daemon: LabDaemon, name: str, status: str) -> dict[str, Any]:
    wait_until(lambda: health(daemon, name)["Status"] == status, f"{name} is {status}")
    return health(daemon, name)


def until_log(daemon: LabDaemon, name: str) -> dict[str, Any]:
    """The newest entry, once there is one."""
    return wait_until(lambda: health(daemon, name)["Log"], "a check has run")[-1]  # type: ignore[no-any-return]


def commands(daemon: LabDaemon, name: str) -> list[str]:
    rows = daemon.api("GET", f"/containers/{name}/top").json["Processes"]
    return [row[-1] for row in rows]


def test_a_container_becomes_healthy_and_unhealthy(daemon: LabDaemon, name: str) -> None:
    run(daemon, name, "test -e /good && echo fine")
    assert until_status(daemon, name, "unhealthy")["FailingStreak"] >= 1
    listed = daemon.docker("ps", "--format", "{{.Status}}", "--filter", "health=unhealthy").ok()
    assert listed.endswith("(unhealthy)")
    daemon.docker("exec", name, "touch", "/good").ok()
    found = until_status(daemon, name, "healthy")
    assert (found["FailingStreak"], found["Log"][-1]["ExitCode"], found["Log"][-1]["Output"]) == (
        0,
        0,
        "fine\n",
    )
    wait_until(lambda: len(health(daemon, name)["Log"]) == 5)
    assert daemon.docker("ps", "-q", "--filter", "health=unhealthy").ok() == ""
    assert "(healthy)" in daemon.docker("ps", "--filter", "health=healthy").ok()
    with daemon.sdk() as client:
        assert client.containers.get(name).health == "healthy"
    actions = daemon.actions(container=[name])
    assert [a for a in actions if a.startswith("health")] == [
        "health_status: unhealthy",
        "health_status: healthy",
    ]
    daemon.docker("stop", "-t", "0", name).ok()
    assert health(daemon, name)["Status"] == "unhealthy"


def test_starting_and_the_start_period(daemon: LabDaemon, name: str) -> None:
    run(daemon, name, "false", "--health-start-period", "1m", "--health-start-interval", "50ms")
    wait_until(lambda: len(health(daemon, name)["Log"]) >= 2)
    found = health(daemon, name)
    assert (found["Status"], found["FailingStreak"]) == ("starting", 0)
    assert "(health: starting)" in daemon.docker("ps", "--filter", "health=starting").ok()


def test_a_check_that_takes_too_long_ends_with_all_it_forked(daemon: LabDaemon, name: str) -> None:
    script = "[ ! -e /over ] || exit 0; echo begun; (setsid sleep 987 &) ; sleep 988"
    run(daemon, name, script, "--health-timeout", "300ms")

    def has_begun() -> list[dict[str, Any]]:
        """Those that came to run at all: on a busy machine the time may be over before that."""
        return [entry for entry in health(daemon, name)["Log"] if entry["Output"].endswith("begun\n")]

    entry = wait_until(has_begun)[-1]
    assert entry["ExitCode"] == -1
    assert entry["Output"] == "Health check exceeded timeout (300ms): begun\n"
    daemon.docker("exec", name, "touch", "/over").ok()
    until_status(daemon, name, "healthy")
    wait_until(lambda: commands(daemon, name) == ["sleep 1000"], "nothing is left between two checks")


def test_a_check_that_ends_leaves_nothing_behind(daemon: LabDaemon, name: str) -> None:
    run(daemon, name, "setsid sleep 986 > /dev/null 2>&1 &")
    assert until_log(daemon, name)["ExitCode"] == 0
    wait_until(lambda: commands(daemon, name) == ["sleep 1000"])


def test_output_is_bounded(daemon: LabDaemon, name: str) -> None:
    run(daemon, name, "yes | head -c 1000000")
    entry = until_log(daemon, name)
    assert entry["ExitCode"] == 0
    assert entry["Output"] == "y\n" * 2048 + "..."


def test_a_command_that_is_not_there(daemon: LabDaemon, name: str) -> None:
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "Healthcheck": {"Test": ["CMD", "/nothing"], "Interval": 10**8},
    }
    daemon.api("POST", f"/containers/create?name={name}", body)
    assert "Health" not in daemon.state_of(name)
    daemon.api("POST", f"/containers/{name}/start")
    entry = until_log(daemon, name)
    assert entry["ExitCode"] == -1
    assert "/nothing" in entry["Output"]


def test_an_image_brings_its_check_and_it_can_be_refused(daemon: LabDaemon, name: str) -> None:
    with_healthcheck(daemon, f"{name}:latest", {"Test": ["CMD", "true"], "Interval": 10**8})
    daemon.docker("create", "--name", name, f"{name}:latest", "x").ok()
    config = json.loads(daemon.docker("inspect", name).ok())[0]["Config"]
    assert config["Healthcheck"]["Test"] == ["CMD", "true"]
    daemon.docker("create", "--name", f"{name}-n", "--no-healthcheck", f"{name}:latest", "x").ok()
    config = json.loads(daemon.docker("inspect", f"{name}-n").ok())[0]["Config"]
    assert config["Healthcheck"]["Test"] == ["NONE"]


def with_healthcheck(daemon: LabDaemon, tag: str, check: dict[str, Any]) -> None:
    """busybox again, with a health check in its configuration."""
    with tarfile.open(fileobj=io.BytesIO(daemon.docker("save", "busybox").raw)) as saved:
        (manifest,) = json.loads(_member(saved, "manifest.json"))
        config = json.loads(_member(saved, manifest["Config"]))
        members = {layer: _member(saved, layer) for layer in manifest["Layers"]}
    config["config"]["Healthcheck"] = check
    members["config.json"] = json.dumps(config).encode()
    listed = [{"Config": "config.json", "RepoTags": [tag], "Layers": manifest["Layers"]}]
    members["manifest.json"] = json.dumps(listed).encode()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    daemon.docker("load", input=made.getvalue()).ok()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--health-interval", "1us"), "Interval in Healthcheck cannot be less than 1ms"),
        (("--health-start-period", "1us"), "StartPeriod in Healthcheck cannot be less than 1ms"),
    ],
)
def test_bad_durations(daemon: LabDaemon, name: str, flags: tuple[str, str], words: str) -> None:
    made = daemon.docker("create", "--name", name, "--health-cmd", "true", *flags, "busybox", "true")
    assert made.code == 1
    assert words in made.errors


def create(daemon: LabDaemon, name: str, test: str, on_failure: str, **host: Any) -> None:
    check = {"Test": ["CMD-SHELL", test], "Interval": 10**8, "Retries": 1, "OnFailure": on_failure}
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done"],
        "Healthcheck": check,
        "HostConfig": host,
    }
    assert daemon.api("POST", f"/containers/create?name={name}", body).status == 201
    daemon.docker("start", name).ok()


def test_on_failure_restart_waits_longer_each_time(daemon: LabDaemon, name: str) -> None:
    create(daemon, name, "false", "restart")
    view = wait_until(
        lambda: (v := daemon.api("GET", f"/containers/{name}/json").json)["RestartCount"] >= 2 and v
    )
    assert view["Config"]["Healthcheck"]["OnFailure"] == "restart"
    assert view["State"]["Health"]["OnFailureRestarts"] >= 2
    events = daemon.actions(container=[name])
    first = events.index("health_on_failure: restart")
    assert events[first - 1] == "health_status: unhealthy"
    assert events[first : first + 6].count("die") == 1
    # Somebody who stops it is obeyed, also while the next start is waited for.
    daemon.docker("stop", name).ok()
    assert daemon.state_of(name)["Status"] == "exited"


def test_on_failure_stop_and_kill(daemon: LabDaemon, name: str) -> None:
    create(daemon, name, "false", "stop", RestartPolicy={"Name": "always"})
    wait_until(lambda: daemon.state_of(name)["Status"] == "exited")
    assert daemon.state_of(name)["ExitCode"] == 5
    other = f"{name}-k"
    create(daemon, other, "false", "kill", RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 1})
    # The policy takes it for a death like any other: once more, and no further.
    wait_until(lambda: daemon.api("GET", f"/containers/{other}/json").json["RestartCount"] == 1)
    wait_until(lambda: daemon.state_of(other)["Status"] == "exited")
    assert daemon.state_of(other)["ExitCode"] == 137


def test_health_survives_the_daemon(mortal: LabDaemon, name: str) -> None:
    run(mortal, name, "true")
    until_status(mortal, name, "healthy")
    slow = f"{name}-slow"
    run(mortal, slow, "sleep 985")
    wait_until(lambda: "sleep 985" in commands(mortal, slow), "a check is under way")
    mortal.restart(signal.SIGKILL)
    assert health(mortal, name)["Status"] == "healthy"
    before = health(mortal, name)["Log"][-1]["Start"] if health(mortal, name)["Log"] else ""
    wait_until(lambda: (log := health(mortal, name)["Log"]) and log[-1]["Start"] > before, "checks go on")
    # What the killed daemon left of a check goes, and the daemon that ends in good order leaves nothing.
    wait_until(lambda: len(commands(mortal, slow)) <= 2)
    pids = [int(row[1]) for row in mortal.api("GET", f"/containers/{slow}/top").json["Processes"]]
    mortal.end()
    checks = [pid for pid in pids if _command(pid) == ["sleep", "985"]]
    assert checks == []
    mortal.start()


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []
