"""Archives that end right after the last member, as some of the docker CLI's do: every reader takes them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from buildlab import archive, error, post, stream
from daemonlab import LabDaemon

pytestmark = pytest.mark.kernel

TEXT = "FROM busybox\nCOPY . /here\nRUN cat /here/last\n"


def cut(data: bytes) -> bytes:
    """Without the trailer, and without the padding of the last member, which must be a file."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        last = tar.getmembers()[-1]
    return data[: last.offset_data + last.size]


def tree(text: bytes = b"content") -> bytes:
    return archive({"first": b"1", "last": text})


def test_context(daemon: LabDaemon) -> None:
    context = archive({"Dockerfile": TEXT, "last": "read"})
    assert "read" in stream(post(daemon, cut(context)))
    assert "ends too early" in error(post(daemon, cut(context)[:-1]))


def test_dockerfile_from_elsewhere(daemon: LabDaemon, tmp_path: Path) -> None:
    """The CLI adds the Dockerfile to the context itself, as the last member."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "last").write_text("read")
    (tmp_path / "Dockerfile").write_text(TEXT)
    legacy = {"DOCKER_BUILDKIT": "0"}
    directory = str(tmp_path / "in")
    outside = daemon.docker("build", "-f", str(tmp_path / "Dockerfile"), directory, environment=legacy)
    assert "read" in outside.ok()
    piped = daemon.docker("build", "-f", "-", directory, input=TEXT.encode(), environment=legacy)
    assert "Successfully built" in piped.ok()


def test_add(daemon: LabDaemon) -> None:
    context = archive(
        {"Dockerfile": "FROM busybox\nADD a.tar /to/\nRUN cat /to/last\n", "a.tar": cut(tree())}
    )
    assert "content" in stream(post(daemon, context, nocache=1))


def test_load_and_import(daemon: LabDaemon, name: str) -> None:
    imported = daemon.docker("import", "-", f"{name}:cut", input=cut(tree())).ok()
    assert imported.startswith("sha256:")
    made = daemon.docker("create", f"{name}:cut", "x").ok()
    saved = daemon.docker("save", f"{name}:cut").raw
    whole = io.BytesIO(saved)
    out = io.BytesIO()
    with tarfile.open(fileobj=whole) as tar, tarfile.open(fileobj=out, mode="w") as again:
        for member in [m for m in tar if m.isfile()]:
            again.addfile(member, tar.extractfile(member))
    daemon.docker("rm", made).ok()
    daemon.docker("rmi", f"{name}:cut").ok()
    assert name in daemon.docker("load", input=cut(out.getvalue())).ok()


def test_copy_into_a_container(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox", "cat", "/srv/last").ok()
    daemon.docker("cp", "-", f"{name}:/tmp", input=cut(tree())).ok()
    answer = daemon.api(
        "PUT",
        f"/containers/{name}/archive?path=/tmp",
        cut(tree())[:-1],
        headers={"Content-Type": "application/x-tar"},
    )
    assert answer.status == 400 and "ends too early" in answer.message
