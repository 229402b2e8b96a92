"""A helper never takes another process's root for the container's."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from daemonlab import LabDaemon

from wherry.linux.containerroot import Inside
from wherry.storage.confined.containerfiles import ContainerEnded, Job


def test_a_process_of_the_hosts_is_refused(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    """As when a pid was given away again, or a descriptor stands for conmon."""
    (tmp_path / "f").write_text("SECRET")
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    root = Path(f"/proc/{daemon.pid_of(name)}/root").stat()
    fd = os.pidfd_open(os.getpid())
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(ContainerEnded):
            role = ("read", str(tmp_path / "f"), "")
            Job().run(Inside(fd, root.st_dev, root.st_ino), role, what="x", stdout=out)
        assert os.fstat(out).st_size == 0
    finally:
        os.close(fd)
        os.close(out)


def test_a_copy_at_the_very_end_comes_from_the_stopped_container(daemon: LabDaemon, name: str) -> None:
    """Whether it still ran or not, the file is the same."""
    daemon.docker("create", "--name", name, "busybox", "sh", "-c", "echo x >/f; sleep 0.05").ok()
    for _ in range(5):
        daemon.docker("start", name).ok()
        for _ in range(4):
            answer = daemon.api("GET", f"/containers/{name}/archive", path="/bin/busybox")
            assert answer.status == 200 and len(answer.body) > 100_000
            exported = daemon.api("GET", f"/containers/{name}/export")
            assert exported.status == 200 and len(exported.body) > 100_000


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(
    ("user", "given", "owner"),
    [("", "1", "1234:1234"), ("7:8", "0", "1234:1234"), ("7:8", "1", "7:8"), ("someone", "true", "77:78")],
)
def test_what_goes_in_belongs_to_the_containers_user_where_asked(
    daemon: LabDaemon, name: str, running: bool, user: str, given: str, owner: str
) -> None:
    """``copyUIDGID``: the user is looked up in the container (Docker: on the host)."""
    options = ("--user", user) if user else ()
    daemon.docker("create", "--init", "--name", name, *options, "busybox", "sleep", "1000").ok()
    passwd = _archive("passwd", b"someone:x:77:78::/:/bin/sh\n", 0)
    assert daemon.api("PUT", f"/containers/{name}/archive?path=/etc", passwd).status == 200
    if running:
        daemon.docker("start", name).ok()
    query = f"path=/&copyUIDGID={given}"
    answer = daemon.api("PUT", f"/containers/{name}/archive?{query}", _archive("put", b"x", 1234))
    assert answer.status == 200, answer.body
    shown = daemon.api("GET", f"/containers/{name}/archive?path=/put")
    with tarfile.open(fileobj=io.BytesIO(shown.body)) as tar:
        found = tar.getmember("put")
    assert f"{found.uid}:{found.gid}" == owner


def test_a_user_that_is_not_there_gets_no_files(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "--user", "nobody-here", "busybox").ok()
    put = _archive("put", b"x", 0)
    answer = daemon.api("PUT", f"/containers/{name}/archive?path=/&copyUIDGID=1", put)
    assert answer.status == 400 and "unable to find user nobody-here" in answer.message
    assert daemon.api("PUT", f"/containers/{name}/archive?path=/", put).status == 200


def _archive(name: str, content: bytes, owner: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.uid = info.gid = owner
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
