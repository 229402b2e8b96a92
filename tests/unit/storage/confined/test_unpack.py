"""Hostile and odd layers through the real confined child."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard
from layer_tools import device, directory, file, gz, layer, link, listing, symlink, unpack

from wherry.errors import InvalidArgument, Unavailable, WherryError
from wherry.linux import syscalls
from wherry.model import digest as digests
from wherry.model.tarformat import TarLimits
from wherry.model.tarwriter import TarMember
from wherry.storage.confined.unpack import NeedsParent, Unpacker

pytestmark = pytest.mark.kernel


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A target with a file beside it that nothing may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("untouched")
    return tmp_path / "target"


def outside_is_untouched(target: Path) -> bool:
    outside = target.parent / "outside"
    return os.listdir(outside) == ["secret"] and (outside / "secret").read_text() == "untouched"


def test_files_come_back_exactly(target: Path) -> None:
    when = 1_234_567_890_123_456_789
    data = layer(
        directory("etc/", 0o750, uid=3, gid=4, mtime=when),
        file("etc/a", b"hello", 0o4755, uid=1000, gid=70000, mtime=when),
        symlink("etc/l", "/etc/a"),
        link("etc/h", "etc/a"),
        device("etc/null", 1, 3),
        (TarMember(name=b"etc/fifo", type=b"6", mode=0o600), b""),
    )
    result = unpack(data, target)
    status = (target / "etc/a").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o4755, 1000, 70000)
    assert status.st_mtime_ns == when
    assert status.st_nlink == 2
    assert (target / "etc").stat().st_mtime_ns == when
    assert stat.S_IMODE((target / "etc").stat().st_mode) == 0o750
    assert (target / "etc/l").readlink() == Path("/etc/a")
    assert (target / "etc/null").lstat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((target / "etc/fifo").lstat().st_mode)
    assert result.entries == 6
    assert result.diff_id == digests.of(data)


@pytest.mark.parametrize("name", ["../outside/secret", "a/../../outside/secret", "/../../outside/x"])
def test_names_that_climb_out_are_refused(target: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="points outside"):
        unpack(layer(file(name, b"bad")), target)
    assert outside_is_untouched(target)


def test_absolute_names_are_below_the_root(target: Path) -> None:
    unpack(layer(file("/etc/wherry-absolute", b"x")), target)
    assert (target / "etc/wherry-absolute").read_bytes() == b"x"
    assert not Path("/etc/wherry-absolute").exists()


@pytest.mark.parametrize("where", ["{outside}", "../outside", "/../../../../../..{outside}"])
def test_a_write_through_an_earlier_link_stays_inside(target: Path, where: str) -> None:
    outside = str(target.parent / "outside")
    data = layer(symlink("way", where.format(outside=outside)), file("way/secret", b"bad"))
    try:
        unpack(data, target)
    except InvalidArgument:
        pass  # refused is as good
    assert outside_is_untouched(target)


def test_a_link_as_the_last_part_is_replaced_not_followed(target: Path) -> None:
    secret = target.parent / "outside/secret"
    unpack(layer(symlink("f", str(secret)), file("f", b"mine")), target)
    assert (target / "f").read_bytes() == b"mine"
    assert not (target / "f").is_symlink()
    assert outside_is_untouched(target)


@pytest.mark.parametrize("to", ["../outside/secret", "/etc/passwd", "nothing", ""])
def test_hard_links_reach_nothing_outside(target: Path, to: str) -> None:
    with pytest.raises((InvalidArgument, NeedsParent)):
        unpack(layer(link("h", to)), target)
    assert not (target / "h").exists()
    assert outside_is_untouched(target)


def test_hard_link_through_a_symbolic_link_does_not_follow_it_outside(target: Path) -> None:
    secret = target.parent / "outside/secret"
    unpack(layer(symlink("s", str(secret)), link("h", "s")), target)
    assert (target / "h").is_symlink()
    assert secret.stat().st_nlink == 1


def test_a_mode_change_does_not_follow_a_link(target: Path) -> None:
    secret = target.parent / "outside/secret"
    before = secret.stat().st_mode
    unpack(layer(symlink("s", str(secret)), link("h", "s"), directory("s/", 0o777)), target)
    assert secret.stat().st_mode == before


def test_a_device_node_cannot_be_opened_by_the_unpacker(target: Path) -> None:
    # a write to the node would need the unpacker to open what is there already
    data = layer(device("null", 1, 3), file("null", b"data"))
    unpack(data, target)
    assert (target / "null").read_bytes() == b"data"


def test_later_entries_replace_earlier_ones(target: Path) -> None:
    unpack(
        layer(
            file("file", b"1"),
            file("file", b"2"),
            file("becomes-dir", b"x"),
            directory("becomes-dir/"),
            file("becomes-dir/in", b"in"),
            directory("becomes-file/"),
            file("becomes-file/deep/er", b"x"),
            file("becomes-file", b"now"),
            symlink("link", "file"),
            directory("link/"),
        ),
        target,
    )
    assert (target / "file").read_bytes() == b"2"
    assert (target / "becomes-dir/in").read_bytes() == b"in"
    assert (target / "becomes-file").read_bytes() == b"now"
    assert (target / "link").is_dir()
    assert not (target / "link").is_symlink()


def test_the_root_may_be_named_but_not_replaced(target: Path) -> None:
    unpack(layer(directory("./", 0o711), file("./a", b"x")), target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o711
    with pytest.raises(InvalidArgument):
        unpack(layer(file("./", b""), symlink("/", "/etc")), target)


def test_whiteouts_become_overlay_devices_and_marks(target: Path) -> None:
    unpack(layer(file("d/.wh.gone"), file("o/.wh..wh..opq"), file(".wh..wh.plnk/1.2", b"aufs")), target)
    gone = (target / "d/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(target / "o", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(target)) == ["d", "o"]


def test_a_name_that_is_hidden_and_made_again_hides_what_was_below(target: Path) -> None:
    unpack(layer(file(".wh.x"), file("x/new", b"1"), file("y/new", b"2"), file(".wh.y")), target)
    for name in ("x", "y"):
        assert os.getxattr(target / name, "trusted.overlay.opaque") == b"y"
        assert os.listdir(target / name) == ["new"]


def test_merged_whiteouts_remove_only_what_lower_layers_had(target: Path) -> None:
    target.mkdir()
    for name in ("old", "dir/old", "opaque/old", "deep/kept/old"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("lower")
    unpack(
        layer(
            file(".wh.old"),
            file("opaque/new", b"x"),
            file("opaque/.wh..wh..opq"),
            file("dir/new", b"x"),
            file("dir/.wh.new"),
            file("dir/.wh.old"),
        ),
        target,
        whiteouts="merge",
    )
    assert sorted(os.listdir(target)) == ["deep", "dir", "opaque"]
    assert os.listdir(target / "dir") == ["new"]
    assert os.listdir(target / "opaque") == ["new"]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh."])
def test_malformed_whiteouts_are_refused(target: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="malformed whiteout"):
        unpack(layer(directory("d/"), file(name)), target)


def test_only_harmless_attributes_are_set(target: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    xattrs = {
        b"user.mine": b"1",
        b"user.overlay.opaque": b"y",
        b"trusted.overlay.opaque": b"y",
        b"trusted.overlay.redirect": b"/etc",
        b"trusted.other": b"1",
        b"security.capability": capability,
        b"security.selinux": b"x",
    }
    unpack(layer(file("f", b"x", xattrs=xattrs), directory("d/", xattrs=xattrs)), target)
    assert sorted(os.listxattr(target / "f")) == ["security.capability", "user.mine"]
    assert os.getxattr(target / "f", "security.capability") == capability
    assert "trusted.overlay.opaque" not in os.listxattr(target / "d")


def test_sparse_files_keep_their_holes(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "holes").open("wb") as out:
        out.write(b"start")
        out.seek(32 << 20)
        out.write(b"middle")
        out.truncate(64 << 20)
    expected = (source / "holes").read_bytes()
    for number, style in enumerate(
        ("gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix")
    ):
        made = subprocess.run(
            [
                "tar",
                "-S",
                "--format=" + style.split()[0],
                *style.split()[1:],
                "-C",
                source,
                "-cf",
                "-",
                "holes",
            ],
            capture_output=True,
            check=True,
        )
        assert len(made.stdout) < 1 << 20
        place = target.with_name(f"target{number}")
        unpack(made.stdout, place)
        assert (place / "holes").read_bytes() == expected, style
        assert (place / "holes").stat().st_blocks * 512 < 1 << 20, style


def test_long_names_in_every_format(target: Path) -> None:
    name = "/".join(["d" * 60] * 20) + "/" + "f" * 200
    for number, style in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=style) as tar:
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
            info = tarfile.TarInfo("l")
            info.type, info.linkname = tarfile.SYMTYPE, name
            tar.addfile(info)
        place = target.with_name(f"target{number}")
        unpack(buffer.getvalue(), place)
        assert (place / "l").read_bytes() == b"abc"


def test_deep_directories_can_be_unpacked_measured_and_removed(target: Path) -> None:
    from wherry.linux import trees

    unpack(layer(file("d/" * 2000 + "f", b"x")), target)
    assert trees.measure(target).inodes == 2001
    trees.remove(target)
    assert not target.exists()


# digests, compression, limits


@pytest.mark.parametrize("compress", [gz, zstandard.ZstdCompressor().compress])
def test_compressed_layers_are_checked_against_their_diff_id(target: Path, compress: object) -> None:
    plain = layer(file("a", b"x" * 100_000))
    data = compress(plain)  # type: ignore[operator]
    assert unpack(data, target, expected=digests.of(plain)).diff_id == digests.of(plain)
    with pytest.raises(InvalidArgument, match="its content is"):
        unpack(data, target, expected=digests.of(b"other"))


def test_bytes_after_the_archive_count_for_the_diff_id(target: Path) -> None:
    plain = layer(file("a", b"x")) + bytes(10240)
    assert unpack(gz(plain), target).diff_id == digests.of(plain)


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.999])
def test_truncated_layers_are_refused(target: Path, cut: float) -> None:
    plain = layer(file("a", os.urandom(200_000)), file("b", os.urandom(100_000)))
    for data in (plain[: int((len(plain) - 1100) * cut)], gz(plain)[: int(len(gz(plain)) * cut)]):
        with pytest.raises(InvalidArgument):
            unpack(data, target)


@pytest.mark.parametrize("data", [b"", b"not a tar" * 200, os.urandom(4096), b"\x1f\x8b\x08\x00rubbish" * 50])
def test_rubbish_is_refused_or_empty(target: Path, data: bytes) -> None:
    if data == b"":
        assert unpack(data, target).entries == 0
        return
    with pytest.raises(InvalidArgument):
        unpack(data, target)
    assert os.listdir(target) == []


def test_a_gzip_bomb_stops_at_the_limit(target: Path) -> None:
    bomb = gz(layer(file("zeros", bytes(64 << 20))))
    limits = TarLimits(unpacked_floor=8 << 20, ratio=10)
    with pytest.raises(InvalidArgument, match="unpacks to more than"):
        unpack(bomb, target, limits=limits)
    assert sum(p.stat().st_size for p in target.rglob("*")) <= 9 << 20


def test_a_zstd_bomb_does_not_take_memory(target: Path) -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(512 << 20))
    with pytest.raises(InvalidArgument, match="unpacks to more than"):
        unpack(bomb, target, limits=TarLimits(unpacked_floor=16 << 20, ratio=1))


def test_limits_on_entries_names_and_headers(target: Path) -> None:
    many = layer(*(file(f"f{n}") for n in range(20)))
    with pytest.raises(InvalidArgument, match="more than 10 entries"):
        unpack(many, target, limits=TarLimits(entries=10))
    with pytest.raises(InvalidArgument, match="name is"):
        unpack(layer(file("d/" * 3000)), target)
    with pytest.raises(InvalidArgument, match="extended header has"):
        unpack(layer(file("f", xattrs={b"user.x": bytes(2 << 20)})), target)
    with pytest.raises(InvalidArgument, match="bytes of extended attributes"):
        unpack(layer(file("f", xattrs={b"user.x": bytes(70_000)})), target)


def test_what_new_files_would_inherit_is_undone(target: Path) -> None:
    """A group by setgid, a default ACL; also of a directory that gets them after its first files."""
    masking = b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + b"\xff\xff\xff\xff"
        for tag, rights in ((0x01, 7), (0x04, 0), (0x20, 0))
    )
    acl = {b"system.posix_acl_default": (2).to_bytes(4, "little") + masking}
    special = TarMember(name=b"late/", type=b"5", mode=0o2777, gid=55)
    unpack(
        layer(
            directory("plain/", 0o755),
            file("plain/s", b"x", 0o4711),
            file("plain/o", b"x", 0o640, uid=7, gid=8),
            file("plain/n", b"x", 0o000),
            directory("group/", 0o2775, gid=55),
            file("group/f", b"x", 0o664),
            directory("group/d/", 0o755),
            file("group/d/f", b"x", 0o664),
            (TarMember(name=b"acl/", type=b"5", mode=0o755, xattrs=acl), b""),
            file("acl/f", b"x", 0o664),
            file("acl/unnamed/f", b"x", 0o664),
            directory("late/", 0o755),
            file("late/before", b"x", 0o664),
            (special, b""),
            file("late/after", b"x", 0o664),
        ),
        target,
    )
    found = {
        str(path.relative_to(target)): (
            stat.S_IMODE(path.lstat().st_mode), path.lstat().st_uid, path.lstat().st_gid,
        )
        for path in target.rglob("*")
        if path.is_file()
    }  # fmt: skip
    assert found == {
        "plain/s": (0o4711, 0, 0),
        "plain/o": (0o640, 7, 8),
        "plain/n": (0o000, 0, 0),
        "group/f": (0o664, 0, 0),
        "group/d/f": (0o664, 0, 0),
        "acl/f": (0o664, 0, 0),
        "acl/unnamed/f": (0o664, 0, 0),
        "late/before": (0o664, 0, 0),
        "late/after": (0o664, 0, 0),
    }


# confinement


def test_a_full_disk_is_said_and_leaves_the_host_alone(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    syscalls.mount("none", str(small), "tmpfs", 0, "size=2m")
    try:
        blob = tmp_path / "blob"
        blob.write_bytes(layer(file("big", bytes(8 << 20))))
        (small / "t").mkdir()
        from wherry.model.mount import Mount

        with pytest.raises(Unavailable, match="no space left on device"):
            Unpacker().unpack(
                blob, Mount("bind", str(small / "t")), whiteouts="overlay", digest=digests.of(b"")
            )
    finally:
        syscalls.umount(str(small))


def test_nothing_is_mounted_afterwards_and_no_child_is_left(target: Path) -> None:
    children = _children()
    with pytest.raises(WherryError):
        unpack(layer(file("../x")), target)
    unpack(layer(file("x")), target)
    assert str(target) not in Path("/proc/self/mountinfo").read_text()
    assert _children() == children


def _children() -> set[str]:
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


def test_the_child_is_shut_in(tmp_path: Path) -> None:
    """The same steps the child takes, then looking around from inside."""
    script = """
import ctypes, mmap, os, signal, sys
from wherry.linux import confine
from wherry.storage.confined.child.unpack import _give_up
confine.new_namespaces()
confine.enter_root(sys.argv[1])
_give_up(0)
found = [sorted(os.listdir(place)) == ["module.py", "only"] for place in ("/", "/..")]
libc = ctypes.CDLL(None, use_errno=True)
for call in (
    lambda: libc.mount(b"none", b"/", b"tmpfs", 0, None),
    lambda: libc.chroot(b"/"),
    lambda: libc.unshare(0x10000000),
    lambda: libc.socket(2, 1, 0),
    lambda: libc.kill(os.getppid(), 0),
    lambda: libc.ptrace(16, os.getppid(), 0, 0),
):
    found.append(call() == -1 and ctypes.get_errno() == 1)
try:
    os.execv("/only", ["only"])
except PermissionError:
    found.append(True)
os.mknod("/zero", 0o20666, os.makedev(1, 5))
try:
    os.open("/zero", os.O_RDWR)
except PermissionError:
    found.append(True)
try:
    os.setxattr("/only", "trusted.overlay.opaque", b"y")
except PermissionError:
    found.append(True)
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)
except PermissionError:
    found.append(True)
sys.path.append("/")
try:
    import module
except ImportError:
    found.append(True)
print(all(found) and len(found) == 13, found)
"""
    (tmp_path / "only").write_text("#!/bin/sh\n")
    (tmp_path / "only").chmod(0o755)
    (tmp_path / "module.py").touch()
    import sys

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("True"), done.stdout + done.stderr


def test_the_same_layer_gives_the_same_tree_as_gnu_tar(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/f").write_bytes(os.urandom(70_000))
    (source / "a/b/h").hardlink_to(source / "a/b/f")
    (source / "a/s").symlink_to("b/f")
    os.chmod(source / "a/b", 0o2775)
    os.utime(source / "a/b/f", ns=(1, 1_111_111_111_222_222_222))
    made = subprocess.run(
        ["tar", "--format=posix", "--xattrs", "-C", source, "-c", "."], capture_output=True, check=True
    )
    unpack(made.stdout, target)
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["tar", "-xp", "-C", other], input=made.stdout, check=True)
    assert listing(target) == listing(other)
