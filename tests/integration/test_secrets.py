"""Secrets of containers: read inside, and found nowhere else."""

from __future__ import annotations

import base64
import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until

pytestmark = pytest.mark.kernel

VALUE = "s3cr3t-Value-9f8a"


@pytest.fixture
def secret(daemon: LabDaemon, name: str) -> Iterator[str]:
    data = base64.b64encode(VALUE.encode()).decode()
    answer = daemon.api("POST", "/secrets/create", {"Name": name, "Data": data, "Labels": {"t": name}})
    assert answer.status == 201
    yield name
    daemon.remove_containers()
    daemon.api("DELETE", f"/secrets/{name}")


def use(secret: str, more: str = "") -> tuple[str, str]:
    return "--secret", f"{secret}{more}"


def test_create_list_inspect_remove(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    (tmp_path / "value").write_text(VALUE)
    path = str(tmp_path / "value")
    secret_id = daemon.wherry("secret", "create", "-l", "a=b", name, path).ok()
    assert len(secret_id) == 25
    again = daemon.wherry("secret", "create", name, path)
    assert again.code == 1 and f"secret {name} already exists" in again.errors
    assert daemon.wherry("secret", "ls", "--format", "{{.ID}} {{.Name}} {{.Labels}}").ok() == (
        f"{secret_id} {name} a=b"
    )
    # Docker's own client has it as well.
    assert daemon.docker("secret", "ls", "--format", "{{.ID}} {{.Name}}").ok() == f"{secret_id} {name}"
    for view in (daemon.wherry("secret", "inspect", name), daemon.docker("secret", "inspect", secret_id)):
        text = view.ok()
        assert f'"Name": "{name}"' in text and VALUE not in text and "Data" not in text
    assert daemon.api("GET", "/secrets", filters={"label": ["a=c"]}).json == []
    version = daemon.api("GET", f"/secrets/{name}").json["Version"]["Index"]
    update = {"Name": name, "Labels": {"a": "c"}}
    assert daemon.api("POST", f"/secrets/{name}/update", update, version=version).status == 200
    assert daemon.api("POST", f"/secrets/{name}/update", update, version=version).status == 409
    assert daemon.api("GET", "/secrets", filters={"label": ["a=c"]}).json[0]["ID"] == secret_id
    refused = daemon.api("POST", f"/secrets/{name}/update", {**update, "Data": "YQ=="}, version=version + 1)
    assert refused.status == 400
    bad = daemon.api("POST", "/secrets/create", {"Name": f"{name}x", "Data": f"{VALUE}!"})
    assert bad.status == 400 and VALUE not in bad.message
    assert daemon.api("POST", "/secrets/create", {"Name": "x1", "Driver": {"Name": "v"}}).status == 501
    assert daemon.docker("secret", "rm", name).ok() == name
    assert daemon.api("GET", f"/secrets/{name}").status == 404
    assert {"create", "update", "remove"} <= set(daemon.actions(type=["secret"]))


def test_read_inside_with_owner_and_mode(daemon: LabDaemon, secret: str) -> None:
    uses = (
        *use(secret),
        *use(secret, ",target=sub/mine,mode=0400"),
        *use(secret, ",target=/etc/token,uid=7,gid=8,mode=0440"),
    )
    script = (
        f"cat /run/secrets/{secret}; echo; stat -c '%u:%g %a' /run/secrets/{secret} "
        "/run/secrets/sub/mine /etc/token; cat /run/secrets/sub/mine; echo; "
        "touch /run/secrets/new 2>&1 | sed 's/.*: //'; stat -f -c %T /run/secrets"
    )
    inside = daemon.wherry("run", "--rm", "--user", "12:34", *uses, "busybox", "sh", "-c", script).ok()
    assert inside.split("\n") == [
        VALUE, "12:34 444", "12:34 400", "7:8 440", VALUE, "Read-only file system", "tmpfs",
    ]  # fmt: skip


def test_seen_nowhere_else(daemon: LabDaemon, secret: str, name: str) -> None:
    box = f"{name}-box"
    daemon.wherry(
        "run", "-d", "--name", box, *use(secret), *use(secret, ",target=/etc/token"), "busybox",
        "sh", "-c", f"test -s /run/secrets/{secret} && test -s /etc/token && echo ready && sleep 1000",
    ).ok()  # fmt: skip
    wait_until(lambda: daemon.docker("logs", box).out == "ready")
    wanted = VALUE.encode()
    # What is in use is not removed.
    refused = daemon.api("DELETE", f"/secrets/{secret}")
    assert refused.status == 409 and f"in use by the following containers: {box}" in refused.message
    # inspect and events
    view = daemon.api("GET", f"/containers/{box}/json")
    assert wanted not in view.body
    assert [s["Target"] for s in view.json["HostConfig"]["Secrets"]] == [
        f"/run/secrets/{secret}",
        "/etc/token",
    ]
    events = daemon.api("GET", "/events", since=1, until=f"{time.time():.6f}").body
    assert wanted not in events and secret.encode() in events
    # the daemon's log, its database, the bundle and everything else on the disk
    assert VALUE not in daemon.log
    assert not [p for p in files_below(daemon.root) if wanted in p.read_bytes()]
    task = daemon.run / "tasks" / view.json["Id"]
    assert wanted not in (task / "config.json").read_bytes()
    # layers and images: stopped, there is nothing to be found any more
    live = daemon.docker("export", box)
    assert live.code == 0 and wanted not in live.raw
    daemon.docker("stop", "-t", "0", box).ok()
    wait_until(lambda: not task.exists())
    assert wanted not in daemon.docker("export", box).raw
    copied = daemon.docker("cp", f"{box}:/etc/token", "-")
    assert wanted not in copied.raw
    with tarfile.open(fileobj=io.BytesIO(daemon.docker("export", box).raw)) as archive:
        left = [m for m in archive if m.name.startswith("run/secrets") or m.name == "etc/token"]
    assert left and all(m.size == 0 for m in left)
    image = daemon.docker("commit", box, f"{name}:latest").ok()
    saved = daemon.docker("save", image)
    assert saved.code == 0 and wanted not in saved.raw
    # It starts again with it.
    daemon.docker("start", box).ok()
    assert daemon.docker("exec", box, "cat", "/etc/token").ok() == VALUE


def files_below(root: Path) -> Iterator[Path]:
    for directory, _names, names in os.walk(root):
        for entry in names:
            path = Path(directory) / entry
            if path.is_file() and not path.is_symlink():
                yield path


def test_refused(daemon: LabDaemon, secret: str) -> None:
    cases = {
        "nothere": "secret nothere not found",
        f"{secret},target=../../etc/x": "invalid secret target",
        f"{secret},target=/proc/sys/x": "inside /proc",
        f"{secret},mode=7777": "invalid mode of secret",
        f"{secret},what=1": "unexpected key 'what'",
    }
    for text, words in cases.items():
        failed = daemon.wherry("run", "--rm", "--secret", text, "busybox", "true")
        assert failed.code == 125 and words in failed.errors, failed.errors
    taken = daemon.wherry("run", "--rm", "-v", "/run/secrets", *use(secret), "busybox", "true")
    assert taken.code == 125 and "Duplicate mount point: /run/secrets" in taken.errors
    twice = daemon.wherry("run", "--rm", *use(secret), *use(secret), "busybox", "true")
    assert twice.code == 125 and "Duplicate secret target" in twice.errors
