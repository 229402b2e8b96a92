"""Where mounts and working directories come to: links of the image, missing parents, parts of volumes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from buildlab import archive, post, stream
from daemonlab import LabDaemon

pytestmark = pytest.mark.kernel

LINKED = """\
FROM busybox
RUN ln -s /var/lib/data /data && ln -s ../elsewhere/deep /etc/out
RUN mkdir -p /seed/in && echo s > /seed/in/file
"""


@pytest.fixture
def image(daemon: LabDaemon, name: str) -> str:
    stream(post(daemon, archive({"Dockerfile": LINKED}), t=f"{name}:linked"))
    return f"{name}:linked"


def run(daemon: LabDaemon, *arguments: str) -> str:
    return daemon.docker("run", "--rm", *arguments).ok()


@pytest.mark.parametrize("kind", ["volume", "bind", "tmpfs", "workdir", "file"])
def test_a_link_that_leads_nowhere(
    daemon: LabDaemon, image: str, name: str, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "file").write_text("content")
    flags = {
        "volume": ("-v", f"{name}:/data"),
        "bind": ("-v", f"{tmp_path}:/data"),
        "tmpfs": ("--tmpfs", "/data"),
        "workdir": ("-w", "/data"),
        "file": ("-v", f"{tmp_path}/file:/data/f"),
    }[kind]
    shown = run(
        daemon, *flags, image, "sh", "-c", "readlink /data; cd /data && pwd -P; stat -c %a /var/lib; ls"
    )
    assert shown.split()[:3] == ["/var/lib/data", "/var/lib/data", "755"]
    if kind in ("bind", "file"):
        assert (
            run(daemon, *flags, image, "cat", "/var/lib/data/f" + ("ile" if kind == "bind" else ""))
            == "content"
        )
    if kind == "volume":
        daemon.docker("volume", "rm", name).ok()


def test_links_never_leave_the_root(daemon: LabDaemon, image: str, tmp_path: Path) -> None:
    assert (
        run(daemon, "-v", f"{tmp_path}:/etc/out", image, "sh", "-c", "cd /etc/out && pwd -P")
        == "/elsewhere/deep"
    )
    assert not Path("/elsewhere").exists()


def test_missing_parents(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    inner = (
        "-v",
        f"{name}:/a/vol",
        "-v",
        f"{tmp_path}:/a/vol/x/y",
        "--tmpfs",
        "/b/c/t",
        "-v",
        "/tmp:/d/e:ro",
    )
    script = "stat -c '%n %a' /a /a/vol/x /b /b/c /d"
    shown = run(daemon, *inner, "busybox", "sh", "-c", script)
    assert set(shown.splitlines()) == {"/a 755", "/a/vol/x 755", "/b 755", "/b/c 755", "/d 755"}
    daemon.docker("volume", "rm", name).ok()


def test_what_a_copy_in_a_build_comes_to(daemon: LabDaemon, image: str) -> None:
    text = f"FROM {image}\nCOPY one two /data/\nWORKDIR /etc/out\nRUN pwd -P && cat /var/lib/data/one\n"
    shown = stream(post(daemon, archive({"Dockerfile": text, "one": "first", "two": "2"})))
    assert "/elsewhere/deep" in shown and "first" in shown


def test_a_part_of_a_volume_is_filled(daemon: LabDaemon, image: str, name: str) -> None:
    daemon.docker("volume", "create", name).ok()
    run(daemon, "-v", f"{name}:/v", "busybox", "mkdir", "/v/part", "/v/full")
    run(daemon, "-v", f"{name}:/v", "busybox", "touch", "/v/full/own")
    for part, wanted in (("part", "file"), ("full", "own")):
        mount = f"type=volume,src={name},dst=/seed/in,volume-subpath={part}"
        assert run(daemon, "--mount", mount, image, "ls", "/seed/in") == wanted
    nocopy = f"type=volume,src={name},dst=/seed/in,volume-subpath=part,volume-nocopy"
    run(daemon, "-v", f"{name}:/v", "busybox", "rm", "/v/part/file")
    assert run(daemon, "--mount", nocopy, image, "ls", "/seed/in") == ""
    daemon.docker("volume", "rm", name).ok()


def test_which_mounts_are_shown(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "--tmpfs", "/a/", "--mount", "type=tmpfs,dst=/b", "busybox").ok()
    shown = daemon.api("GET", f"/containers/{name}/json").json
    assert [mount["Destination"] for mount in shown["Mounts"]] == ["/b"]
    assert shown["HostConfig"]["Tmpfs"] == {"/a/": ""}


def test_the_working_directory_is_there_before_the_start(
    daemon: LabDaemon, name: str, tmp_path: Path
) -> None:
    daemon.docker("create", "--name", name, "-w", "/work/here", "busybox", "cat", "file").ok()
    (tmp_path / "file").write_text("content")
    daemon.docker("cp", str(tmp_path / "file"), f"{name}:/work/here/").ok()
    with tarfile.open(fileobj=io.BytesIO(daemon.docker("cp", f"{name}:/work", "-").raw)) as tar:
        assert tar.getnames() == ["work", "work/here", "work/here/file"]
    assert daemon.docker("start", "-a", name).ok() == "content"


def test_the_names_in_an_archive_of_what_is_in_a_directory(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "-w", "/work/here", "busybox").ok()
    for path, first, inner in (
        ("/work/.", ".", "./here"),
        ("/.", ".", "./work"),
        ("/work", "work", "work/here"),
    ):
        with tarfile.open(fileobj=io.BytesIO(daemon.docker("cp", f"{name}:{path}", "-").raw)) as tar:
            assert tar.getnames()[0] == first and inner in tar.getnames()
