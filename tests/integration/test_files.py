"""cp, export and diff by the docker CLI and the SDK, on containers that run and that do not."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon

SLEEP = ("busybox", "sleep", "1000")


def tar_of(*members: tuple[str, bytes], **attributes: object) -> bytes:
    """Files of a tar; a name that ends with a slash is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.size, info.mode = len(content), 0o644
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def opened(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def stat_of(daemon: LabDaemon, name: str, path: str) -> dict[str, object]:
    answer = daemon.api("HEAD", f"/containers/{name}/archive", path=path)
    assert answer.status == 200
    decoded: dict[str, object] = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
    return decoded


@pytest.fixture(params=["running", "stopped"])
def container(request: pytest.FixtureRequest, daemon: LabDaemon, name: str) -> Iterator[str]:
    script = "mkdir /d; echo one >/d/one; ln -s /d/one /d/abs; ln -s one /d/rel; ln -s nowhere /d/dangling"
    script += "; mkfifo /d/fifo; echo inner >/vol/inner; sleep 1000"
    daemon.docker("run", "-d", "--name", name, "-v", f"{name}:/vol", "busybox", "sh", "-c", script).ok()
    daemon.docker("exec", name, "sh", "-c", "until test -e /vol/inner; do :; done").ok()
    if request.param == "stopped":
        daemon.docker("stop", "-t", "0", name).ok()
    yield name


def test_a_file_goes_out(daemon: LabDaemon, container: str, tmp_path: Path) -> None:
    daemon.docker("cp", f"{container}:/d/one", str(tmp_path / "new")).ok()
    assert (tmp_path / "new").read_text() == "one\n"
    daemon.docker("cp", f"{container}:/vol/inner", str(tmp_path)).ok()
    assert (tmp_path / "inner").read_text() == "inner\n"


def test_a_directory_goes_out_whole_and_in_part(daemon: LabDaemon, container: str, tmp_path: Path) -> None:
    out = daemon.docker("cp", f"{container}:/d", "-").raw
    found = opened(out)
    assert sorted(found) == ["d", "d/abs", "d/dangling", "d/fifo", "d/one", "d/rel"]
    assert found["d/fifo"].isfifo() and found["d/abs"].linkname == "/d/one"
    assert sorted(opened(daemon.docker("cp", f"{container}:/d/.", "-").raw))[:2] == [".", "./abs"]
    daemon.docker("cp", f"{container}:/vol", str(tmp_path / "copy")).ok()
    assert (tmp_path / "copy" / "inner").read_text() == "inner\n"


def test_a_link_is_copied_or_followed(daemon: LabDaemon, container: str, tmp_path: Path) -> None:
    daemon.docker("cp", f"{container}:/d/abs", str(tmp_path / "link")).ok()
    assert (tmp_path / "link").readlink() == Path("/d/one")
    daemon.docker("cp", "-L", f"{container}:/d/abs", str(tmp_path / "file")).ok()
    assert (tmp_path / "file").read_text() == "one\n" and not (tmp_path / "file").is_symlink()


def test_what_a_path_is(daemon: LabDaemon, container: str) -> None:
    stat = stat_of(daemon, container, "/d")
    assert stat["name"] == "d" and stat["mode"] == (1 << 31 | 0o755)
    link = stat_of(daemon, container, "/d/rel")
    assert link["linkTarget"] == "/d/one" and int(str(link["mode"])) & 1 << 27
    assert stat_of(daemon, container, "/d/dangling")["linkTarget"] == "/d/nowhere"
    assert stat_of(daemon, container, "/")["name"] == "/"
    assert str(stat["mtime"]).endswith("Z")
    answer = daemon.api("GET", f"/containers/{container}/archive", path="/none")
    assert answer.status == 404
    assert answer.message == f"Could not find the file /none in container {container}"
    assert daemon.api("GET", f"/containers/{container}/archive").status == 400


def test_files_go_in(daemon: LabDaemon, container: str, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "f").write_text("data")
    os.chmod(tmp_path / "t" / "f", 0o640)
    os.chown(tmp_path / "t" / "f", 123, 456)
    daemon.docker("cp", str(tmp_path / "t"), f"{container}:/vol").ok()
    daemon.docker("cp", str(tmp_path / "t" / "f"), f"{container}:/d/one").ok()
    daemon.docker("cp", f"{tmp_path}/t/.", f"{container}:/d").ok()
    daemon.docker("start", container)
    look = daemon.docker("exec", container, "stat", "-c", "%u %g %a", "/vol/t/f", "/d/one", "/d/f").ok()
    assert look.splitlines() == ["123 456 640"] * 3


def test_words_of_refusals(daemon: LabDaemon, container: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("data")
    (tmp_path / "one").mkdir()
    refused = daemon.docker("cp", str(tmp_path / "one"), f"{container}:/d/one")
    assert refused.code and "cannot copy directory" in refused.errors
    refused = daemon.docker("cp", str(tmp_path / "f"), f"{container}:/none/f")
    assert refused.code and "Could not find the file /none" in refused.errors
    put = {"path": "/d", "noOverwriteDirNonDir": "1"}
    answer = daemon.api("PUT", f"/containers/{container}/archive", tar_of(("one/", b"")), **put)
    assert answer.status == 400 and "cannot overwrite non-directory" in answer.message
    answer = daemon.api("PUT", f"/containers/{container}/archive", tar_of(("x", b"")), path="/d/one")
    assert answer.status == 400 and answer.message == "extraction point is not a directory"
    answer = daemon.api("PUT", f"/containers/{container}/archive", tar_of(("../../x", b"")), path="/d")
    assert answer.status == 400 and "outside of the destination" in answer.message
    answer = daemon.api("PUT", f"/containers/{container}/archive", b"no tar" * 200, path="/d")
    assert answer.status == 400 and "a header" in answer.message


def test_the_sdk_puts_and_gets(daemon: LabDaemon, container: str) -> None:
    with daemon.sdk() as client:
        found = client.containers.get(container)
        assert found.put_archive("/var/run", tar_of(("deep/er/x", b"content")))
        chunks, stat = found.get_archive("/run/deep")
        data = b"".join(chunks)
        assert stat["name"] == "deep"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.extractfile("deep/er/x")
        assert member is not None and member.read() == b"content"


def test_a_compressed_archive_goes_in(daemon: LabDaemon, container: str) -> None:
    import gzip
    import lzma

    for name, pack in (("gz", gzip.compress), ("xz", lzma.compress)):
        packed = pack(tar_of((name, b"content")))
        assert daemon.api("PUT", f"/containers/{container}/archive", packed, path="/vol").status == 200
        assert stat_of(daemon, container, f"/vol/{name}")["size"] == 7


def test_whiteouts_mean_nothing_to_cp(daemon: LabDaemon, container: str) -> None:
    data = tar_of((".wh.one", b"x"), (".wh..wh..opq", b""))
    assert daemon.api("PUT", f"/containers/{container}/archive", data, path="/d").status == 200
    assert {"d/one", "d/.wh.one", "d/.wh..wh..opq"} <= set(
        opened(daemon.docker("cp", f"{container}:/d", "-").raw)
    )


def test_export_has_everything_but_what_is_mounted(daemon: LabDaemon, container: str) -> None:
    with daemon.sdk() as client:
        found = opened(b"".join(client.containers.get(container).export()))
    assert "d/one" in found and "bin/busybox" in found and "vol" in found
    assert not [name for name in found if name.startswith(("vol/", "proc/", "sys/", "dev/"))]
    assert found["bin/sh"].islnk() or found["bin/sh"].issym() or found["bin/sh"].size


def test_diff_names_what_the_container_did(daemon: LabDaemon, name: str) -> None:
    daemon.docker(
        "run", "--name", name, "busybox", "sh", "-c", "rm /bin/arch; echo >/new; echo >>/etc/passwd"
    ).ok()
    assert daemon.docker("diff", name).ok().splitlines() == [
        "C /bin", "D /bin/arch", "C /etc", "C /etc/passwd", "A /new",
    ]  # fmt: skip


def test_diff_of_a_fresh_container_is_empty(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox", "true").ok()
    assert daemon.api("GET", f"/containers/{name}/changes").json is None
    daemon.docker("start", "-a", name).ok()
    assert daemon.docker("diff", name).ok() == ""


def test_reading_changes_nothing(daemon: LabDaemon, name: str) -> None:
    """A mount point that has to be made for a look at a stopped container is not made in its layer."""
    daemon.docker("create", "--name", name, "-v", "/deep/in/here", "busybox", "true").ok()
    assert stat_of(daemon, name, "/deep/in/here")["name"] == "here"
    assert daemon.docker("diff", name).ok() == ""


def test_a_read_only_root_refuses_and_its_volumes_do_not(
    daemon: LabDaemon, name: str, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("data")
    options = ("--read-only", "-v", "/rw", "-v", f"{tmp_path}:/ro:ro", "--name", name)
    daemon.docker("run", "-d", *options, *SLEEP).ok()
    for _ in ("running", "stopped"):
        refused = daemon.docker("cp", str(tmp_path / "f"), f"{name}:/root/")
        assert refused.code and "container rootfs is marked read-only" in refused.errors
        refused = daemon.docker("cp", str(tmp_path / "f"), f"{name}:/ro/g")
        assert refused.code and "mounted volume is marked read-only" in refused.errors
        daemon.docker("cp", str(tmp_path / "f"), f"{name}:/rw/").ok()
        daemon.docker("stop", "-t", "0", name)


def test_files_of_proc_are_read_to_their_end(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, *SLEEP).ok()
    with tarfile.open(fileobj=io.BytesIO(daemon.docker("cp", f"{name}:/proc/version", "-").raw)) as archive:
        member = archive.extractfile("version")
        assert member is not None and member.read() == Path("/proc/version").read_bytes()


def test_checkpoints_are_refused_by_name(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, *SLEEP).ok()
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/c")):
        answer = daemon.api(method, f"/containers/{name}/checkpoints{path}")
        assert answer.status == 501 and "CRIU" in answer.message
    answer = daemon.api("POST", f"/containers/{name}/start", checkpoint="c")
    assert answer.status == 501 and "CRIU" in answer.message
