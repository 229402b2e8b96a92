"""Copy-up with honest and hostile images. Needs root for owners and devices."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import threading
from pathlib import Path

import pytest

from wherry.errors import Internal, InvalidArgument
from wherry.linux import copy
from wherry.volumes.fill import copy_up, recover

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs"
    path.mkdir()
    return path


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume" / "_data"
    path.mkdir(parents=True)
    return path


def test_everything_is_kept(image: Path, volume: Path) -> None:
    data = image / "data"
    (data / "sub").mkdir(parents=True)
    (data / "file").write_bytes(b"hello")
    (data / "sub" / "second name").hardlink_to(data / "file")
    (data / "third name").hardlink_to(data / "file")
    (data / "absolute").symlink_to("/etc/passwd")
    (data / "dangling").symlink_to("../../nowhere")
    (data / "empty").touch()
    os.mkfifo(data / "pipe", 0o640)
    os.mknod(data / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(data / "sock"))
    os.setxattr(data / "file", "user.note", b"\0binary")
    os.setxattr(data / "sub", "trusted.note", b"t")
    capability = bytes.fromhex("0100000200040000" + "00" * 12)
    os.setxattr(data / "empty", "security.capability", capability)
    os.chown(data / "file", 12, 34)
    (data / "file").chmod(0o4755)
    os.chown(data / "absolute", 7, 8, follow_symlinks=False)
    os.chown(data / "null", 9, 9)
    (data / "null").chmod(0o622)
    os.mknod(os.fsencode(data) + b"/\xff\xfe not utf-8", stat.S_IFREG | 0o600)
    for path in ("sub", "file", "absolute", "pipe", "null"):
        os.utime(data / path, ns=(1_111_111_111, 1_222_222_222_333_333_333), follow_symlinks=False)
    os.chown(data, 1000, 1001)
    data.chmod(0o2770)
    os.utime(data, ns=(5, 6))

    copy_up(image, "/data", volume)

    assert listing(volume) == listing(data)
    assert (volume / "file").stat().st_ino == (volume / "sub" / "second name").stat().st_ino
    assert os.getxattr(volume / "file", "user.note") == b"\0binary"
    assert os.getxattr(volume / "sub", "trusted.note") == b"t"
    assert os.getxattr(volume / "empty", "security.capability") == capability
    assert (volume / "absolute").readlink() == Path("/etc/passwd")
    assert not (volume.parent / ".filling").exists()


def listing(root: Path) -> dict[bytes, tuple[object, ...]]:
    found = {}
    for path, directories, files in os.walk(os.fsencode(root)):
        for name in [b".", *directories, *files]:
            full = os.path.join(path, name)
            s = os.lstat(full)
            size = s.st_size if stat.S_ISREG(s.st_mode) else 0
            key = os.path.relpath(full, os.fsencode(root))
            found[key] = (s.st_mode, s.st_uid, s.st_gid, s.st_rdev, size, s.st_nlink, s.st_mtime_ns)
    return found


def test_holes_stay_holes(image: Path, volume: Path) -> None:
    (image / "data").mkdir()
    with (image / "data" / "sparse").open("wb") as f:
        f.seek(100 << 20)
        f.write(b"end")
        f.truncate(200 << 20)
    copy_up(image, "data", volume)
    copied = (volume / "sparse").stat()
    assert copied.st_size == 200 << 20
    assert copied.st_blocks * 512 < 1 << 20
    with (volume / "sparse").open("rb") as f:
        f.seek(100 << 20)
        assert f.read(4) == b"end\0"


@pytest.mark.parametrize("path", ["missing", "/a/../missing", "file", "loop", "../../../../etc/hostname"])
def test_nothing_there_is_nothing_to_do(image: Path, volume: Path, path: str) -> None:
    (image / "file").write_text("x")
    (image / "loop").symlink_to("loop")
    copy_up(image, path, volume)
    assert list(volume.iterdir()) == []


def test_volume_with_content_is_left_alone(image: Path, volume: Path) -> None:
    (image / "data").mkdir()
    (image / "data" / "new").touch()
    (volume / "old").touch()
    volume.chmod(0o700)
    copy_up(image, "/data", volume)
    assert [p.name for p in volume.iterdir()] == ["old"]
    assert volume.stat().st_mode & 0o777 == 0o700


def test_empty_directory_gives_owner_and_mode(image: Path, volume: Path) -> None:
    (image / "data").mkdir()
    os.chown(image / "data", 5, 6)
    (image / "data").chmod(0o1733)
    copy_up(image, "/data", volume)
    status = volume.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1733, 5, 6)


@pytest.mark.parametrize("link", ["/etc", "../../../../../../../../etc", "/proc/self/root/etc"])
def test_symlink_to_the_host_stays_inside(image: Path, volume: Path, link: str) -> None:
    assert Path("/etc/passwd").exists()
    (image / "data").symlink_to(link)
    copy_up(image, "/data", volume)
    assert list(volume.iterdir()) == []
    (image / "etc").mkdir()
    (image / "etc" / "inner").touch()
    copy_up(image, "/data", volume)
    assert [p.name for p in volume.iterdir()] in ([], ["inner"])


def test_symlinked_parent_is_resolved_as_the_container_would(image: Path, volume: Path) -> None:
    (image / "real" / "data").mkdir(parents=True)
    (image / "real" / "data" / "f").touch()
    (image / "var").symlink_to("/real")
    copy_up(image, "/var/data", volume)
    assert [p.name for p in volume.iterdir()] == ["f"]


def test_swapping_source_never_shows_the_host(image: Path, volume: Path, tmp_path: Path) -> None:
    """Directories and files turn into symbolic links to the host while they are copied."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("the host's secret")
    data = image / "data"
    for n in range(4):
        (data / f"d{n}").mkdir(parents=True)
        (data / f"d{n}" / "secret").write_text("harmless")
        (data / f"f{n}").write_text("harmless")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for n in range(4):
                (data / f"d{n}").rename(data / "aside")
                (data / f"d{n}").symlink_to(host)
                (data / f"d{n}").unlink()
                (data / "aside").rename(data / f"d{n}")
                (data / f"f{n}").unlink()
                (data / f"f{n}").symlink_to(host / "secret")
                (data / f"f{n}").unlink()
                (data / f"f{n}").write_text("harmless")

    thread = threading.Thread(target=swap)
    thread.start()
    finished = 0
    directory = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(150):
            try:
                copy_up(image, "/data", volume)
                finished += 1
            except Exception:
                assert list(volume.iterdir()) == [], "a copy that failed left something"
            for path, _directories, files in os.walk(volume):
                for name in files:
                    whole = Path(path, name)
                    assert whole.is_symlink() or "host" not in whole.read_text()
            copy.empty(directory)
    finally:
        stop.set()
        thread.join()
        os.close(directory)
    copy_up(image, "/data", volume)
    assert (volume / "f0").read_text() == "harmless"


def test_interrupted_copy_is_begun_again(image: Path, volume: Path) -> None:
    (image / "data").mkdir()
    for name in "abc":
        (image / "data" / name).write_text(name)
    pid = os.fork()
    if pid == 0:
        copy._give = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        copy_up(image, "/data", volume)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert len(list(volume.iterdir())) == 1
    assert recover(volume)
    assert list(volume.iterdir()) == []
    assert not recover(volume)
    copy_up(image, "/data", volume)
    assert sorted(p.name for p in volume.iterdir()) == ["a", "b", "c"]
    assert not recover(volume)


def test_failed_copy_leaves_no_mark(image: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next start of the daemon would take what somebody has put there since for half a copy."""
    (image / "data" / "sub").mkdir(parents=True)
    (image / "data" / "a").touch()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(copy, "_give", fail)
        with pytest.raises(Internal, match="cannot fill a volume from /data: Input/output error"):
            copy_up(image, "/data", volume)
    assert list(volume.iterdir()) == []
    (volume / "precious").touch()
    assert not recover(volume)
    assert (volume / "precious").exists()


def test_two_starts_at_once_take_turns(image: Path, volume: Path) -> None:
    (image / "data").mkdir()
    for n in range(200):
        (image / "data" / str(n)).write_text(str(n))
    failures: list[BaseException] = []

    def run() -> None:
        try:
            copy_up(image, "/data", volume)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(volume.iterdir())) == 200


def test_too_deep_a_tree_is_refused(image: Path, volume: Path) -> None:
    deep = os.open(image, os.O_RDONLY)
    os.mkdir("data", dir_fd=deep)
    for _ in range(copy.DEPTH_MAX + 5):
        inner = os.open("data", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
        os.mkdir("data", dir_fd=deep)
    os.close(deep)
    with pytest.raises(InvalidArgument, match="nested deeper than 256"):
        copy_up(image, "/data", volume)
    assert list(volume.iterdir()) == []


def test_descriptors_are_closed(image: Path, volume: Path) -> None:
    (image / "data" / "sub").mkdir(parents=True)
    (image / "data" / "sub" / "f").write_text("x")
    before = len(os.listdir("/proc/self/fd"))
    copy_up(image, "/data", volume)
    copy_up(image, "/missing", volume)
    assert len(os.listdir("/proc/self/fd")) == before
