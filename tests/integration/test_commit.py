"""commit: what becomes of files and configuration, and that nobody stays frozen."""

from __future__ import annotations

import io
import json
import tarfile
import time
from typing import Any

from daemonlab import LabDaemon, wait_until
from patience import patiently

from wherry.linux import cgroups

SLEEP = ("busybox", "sleep", "1000")


def config_of(daemon: LabDaemon, image: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(daemon.docker("image", "inspect", image).ok())[0]
    return decoded


def frozen(daemon: LabDaemon, name: str) -> bool:
    container = daemon.api("GET", f"/containers/{name}/json").json["Id"]
    return cgroups.is_frozen(f"/{daemon.cgroup}/{container}")


def test_files_and_configuration_become_an_image(daemon: LabDaemon, name: str) -> None:
    options = ("-e", "A=1", "-w", "/tmp", "--label", "l=1", "--name", name)
    script = "echo new >/new; rm /bin/arch; rm -r /var/www; mkdir /var/www; chmod 700 /home; sleep 1000"
    daemon.docker("run", "-d", *options, "busybox", "sh", "-c", script).ok()
    wait_until(lambda: "C /home" in daemon.docker("diff", name).out)
    changes = ('ENTRYPOINT ["cat"]', 'CMD ["/new"]', "ENV B=2", "EXPOSE 80", "USER 12", "STOPSIGNAL INT")
    flags = [word for change in changes for word in ("-c", change)]
    image = daemon.docker("commit", "-a", "me", "-m", "why", *flags, name, f"{name}:tag").ok()
    found = config_of(daemon, f"{name}:tag")
    assert found["Id"] == image and found["Author"] == "me"
    config = found["Config"]
    assert config["Entrypoint"] == ["cat"] and config["Cmd"] == ["/new"]
    assert {"A=1", "B=2"} <= set(config["Env"]) and config["WorkingDir"] == "/tmp"
    assert config["ExposedPorts"] == {"80/tcp": {}} and config["User"] == "12"
    assert config["Labels"]["l"] == "1" and config["StopSignal"] == "INT"
    history = daemon.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", image).ok()
    assert history.splitlines()[0] == f"sh -c {script}|why"
    assert daemon.docker("run", "--rm", f"{name}:tag").ok() == "new"
    look = "ls /bin/arch /var/www; stat -c %a /home; cat /etc/hosts"
    seen = daemon.docker("run", "--rm", "-u", "0", "--entrypoint", "sh", f"{name}:tag", "-c", look)
    assert "/bin/arch: No such file" in seen.errors and "700" in seen.out
    assert not frozen(daemon, name) and daemon.state_of(name)["Status"] == "running"
    events = daemon.api(
        "GET", "/events", since=1, until=f"{time.time():.6f}", filters={"event": ["commit"]}
    ).lines
    assert events[-1]["Actor"]["Attributes"]["imageID"] == image


def test_the_engines_mount_points_are_no_part_of_the_layer(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "--name", name, "busybox", "true").ok()
    daemon.docker("commit", name, f"{name}:tag").ok()
    daemon.docker("create", "--name", f"{name}-b", f"{name}:tag").ok()
    exported = io.BytesIO(daemon.docker("export", f"{name}-b").raw)
    with tarfile.open(fileobj=exported) as archive:
        names = archive.getnames()
    assert "etc/passwd" in names and not {"etc/resolv.conf", "etc/hosts"} & set(names)


def test_the_sdk_commits_with_a_configuration_of_its_own(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "-e", "A=1", *SLEEP).ok()
    with daemon.sdk() as client:
        container = client.containers.get(name)
        plain = container.commit()
        image = container.commit(
            repository=name, tag="x", message="m", conf={"Cmd": ["true"], "Env": ["B=2"]}, changes=["USER 5"]
        )
    assert config_of(daemon, plain.id)["Config"]["Cmd"] == ["sleep", "1000"]
    config = config_of(daemon, image.id)["Config"]
    assert config["Cmd"] == ["true"] and config["User"] == "5" and {"A=1", "B=2"} <= set(config["Env"])


def test_a_paused_container_stays_paused(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, *SLEEP).ok()
    daemon.docker("pause", name).ok()
    daemon.docker("commit", name, f"{name}:tag").ok()
    assert frozen(daemon, name) and daemon.state_of(name)["Status"] == "paused"


def test_words_of_refusals(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, *SLEEP).ok()
    assert "No such container: none" in daemon.docker("commit", "none").errors
    for query, words in (
        ({"container": name, "changes": "RUN true"}, "RUN is not a valid change command"),
        ({"container": name, "repo": "UPPER"}, "must be lowercase"),
        ({}, 'invalid name or ID supplied: ""'),
    ):
        answer = daemon.api("POST", "/commit", **query)
        assert answer.status == 400 and words in answer.message
    assert daemon.docker("run", "-d", "--name", f"{name}-r", *SLEEP).ok()
    assert daemon.api("POST", "/commit", container=f"{name}-r", changes="NO").status == 400
    assert not frozen(daemon, f"{name}-r")


def test_a_daemon_killed_in_the_middle_leaves_nobody_frozen(fresh_daemon: LabDaemon) -> None:
    daemon = fresh_daemon
    daemon.docker("run", "-d", "--name", "cc", *SLEEP).ok()
    daemon.docker("exec", "cc", "sh", "-c", "head -c 300000000 /dev/zero >/big").ok()
    before, blobs = daemon.images(), sorted(p.name for p in (daemon.root / "content/sha256").iterdir())
    with daemon.docker_process("commit", "cc", "half:way"):
        wait_until(lambda: frozen(daemon, "cc"))
        daemon.end(9)
    daemon.start()
    assert not frozen(daemon, "cc") and daemon.state_of("cc")["Status"] == "running"
    assert daemon.images() == before
    assert sorted(p.name for p in (daemon.root / "content/sha256").iterdir()) == blobs
    assert "thawed container" in daemon.log
    daemon.docker("exec", "cc", "true").ok()


def test_a_stop_waits_for_the_thaw(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "--init", *SLEEP).ok()
    daemon.docker("exec", name, "sh", "-c", "head -c 200000000 /dev/zero >/big").ok()
    with daemon.docker_process("commit", name, f"{name}:tag") as commit:
        wait_until(lambda: frozen(daemon, name))
        daemon.docker("stop", "-t", "5", name).ok()
        assert commit.wait(patiently(20)) == 0
    assert daemon.state_of(name)["ExitCode"] == 143
