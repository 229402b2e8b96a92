"""What a hostile archive must not do to the directory of the user's, and what a friendly one does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from wherry.client.pack import Packer
from wherry.client.unpack import ArchiveUnpacker
from wherry.errors import InvalidArgument
from wherry.model import tarformat as tf
from wherry.model import tarwriter
from wherry.model.tarwriter import TarMember, archive


def unpack(
    target: Path, members: list[TarMember], *, old: str = "d", new: str = "d", keep: bool = False
) -> list[str]:
    said: list[str] = []
    data = archive((m, b"x" * m.size) for m in members)
    pieces = (data[i : i + 700] for i in range(0, len(data), 700))
    ArchiveUnpacker(str(target), pieces, old=old, new=new, archive=keep, complain=said.append).run()
    return said


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "t").mkdir()
    (tmp_path / "outside").mkdir()
    return tmp_path / "t"


DIRECTORY = TarMember(name=b"d/", type=tf.DIRECTORY, mode=0o755)


@pytest.mark.parametrize(
    "members",
    [
        [TarMember(name=b"d/../../outside/f", size=1)],
        [TarMember(name=b"/etc/wherry-f", size=1)],
        [TarMember(name=b"../outside/f", size=1)],
        [TarMember(name=b"else", size=1)],
        [
            DIRECTORY,
            TarMember(name=b"d/l", type=tf.SYMLINK, linkname=b"../../outside"),
            TarMember(name=b"d/l/f"),
        ],
        [TarMember(name=b"d", type=tf.SYMLINK, linkname=b"../outside"), TarMember(name=b"d/f", size=1)],
        [DIRECTORY, TarMember(name=b"d/h", type=tf.LINK, linkname=b"d/../../outside/g")],
        [DIRECTORY, TarMember(name=b"d/h", type=tf.LINK, linkname=b"/etc/passwd")],
        [DIRECTORY, TarMember(name=b"d/f", size=1), DIRECTORY, TarMember(name=b"d/f", type=tf.DIRECTORY)],
    ],
)
def test_nothing_leaves_the_destination(target: Path, members: list[TarMember]) -> None:
    (target.parent / "outside" / "g").write_text("")
    with pytest.raises(InvalidArgument):
        unpack(target, members)
    assert os.listdir(target.parent / "outside") == ["g"]


def test_a_link_that_was_there_is_replaced_and_not_followed(target: Path) -> None:
    (target.parent / "outside" / "g").write_text("kept")
    (target / "d").symlink_to("../outside/g")
    unpack(target, [TarMember(name=b"d", size=3)])
    assert (target / "d").read_text() == "xxx" and (target.parent / "outside/g").read_text() == "kept"
    (target / "e").symlink_to("../outside")
    with pytest.raises(InvalidArgument):
        unpack(target, [TarMember(name=b"d/", type=tf.DIRECTORY), TarMember(name=b"d/f", size=1)], new="e")


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_what_comes_between_is_not_written_to(
    target: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program makes a link where there was room a moment ago."""
    victim = target.parent / "outside" / "g"
    victim.write_text("kept")
    make_room = ArchiveUnpacker._make_room

    def raced(self: ArchiveUnpacker, name: bytes, path: bytes) -> None:
        make_room(self, name, path)
        place = target / os.fsdecode(path)
        place.symlink_to(victim) if kind == "symbolic" else place.hardlink_to(victim)

    monkeypatch.setattr(ArchiveUnpacker, "_make_room", raced)
    with pytest.raises(InvalidArgument, match="File exists"):
        unpack(target, [TarMember(name=b"d", size=3)])
    assert victim.read_text() == "kept"


def test_power_stays_in_the_container(target: Path) -> None:
    members = [
        DIRECTORY,
        TarMember(name=b"d/suid", mode=0o6755, uid=5, gid=6),
        TarMember(name=b"d/null", type=tf.CHARACTER, major=1, minor=3),
    ]
    assert "device" in unpack(target, members)[0]
    status = (target / "d/suid").stat()
    assert stat.S_IMODE(status.st_mode) == 0o755 and status.st_uid == os.geteuid()
    assert not (target / "d/null").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_archive_mode_keeps_owners(target: Path) -> None:
    unpack(target, [DIRECTORY, TarMember(name=b"d/suid", mode=0o4755, uid=5, gid=6)], keep=True)
    status = (target / "d/suid").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5, 6, 0o4755)


def test_names_get_their_new_beginning(target: Path) -> None:
    members = [
        DIRECTORY,
        TarMember(name=b"d/d", size=2),
        TarMember(name=b"d/l", type=tf.LINK, linkname=b"d/d"),
    ]
    unpack(target, members, new="n")
    assert sorted(os.listdir(target / "n")) == ["d", "l"] and (target / "n/l").stat().st_nlink == 2


def test_a_sparse_file_is_put_together(target: Path) -> None:
    member = TarMember(name=b"d", size=5000, sparse=((0, 10), (4000, 5)))
    data = tarwriter.header(member) + b"x" * 15 + tarwriter.padding(15) + tarwriter.END
    ArchiveUnpacker(str(target), iter([data]), old="d", new="d", archive=False, complain=pytest.fail).run()
    assert (target / "d").read_bytes() == b"x" * 10 + bytes(3990) + b"x" * 5 + bytes(995)


def test_what_is_packed_comes_back(tmp_path: Path) -> None:
    source = tmp_path / "s"
    (source / "in").mkdir(parents=True)
    (source / "in" / "big").write_bytes(os.urandom(2_000_001))
    (source / "hard").hardlink_to(source / "in" / "big")
    (source / "link").symlink_to("nowhere")
    os.mkfifo(source / "fifo")
    (tmp_path / "t").mkdir()
    pieces = iter(Packer(str(source), "copy", follow=False))
    ArchiveUnpacker(
        str(tmp_path / "t"), pieces, old="copy", new="copy", archive=False, complain=pytest.fail
    ).run()
    copy = tmp_path / "t/copy"
    assert (copy / "in/big").read_bytes() == (source / "in/big").read_bytes()
    assert os.path.samefile(copy / "hard", copy / "in/big")
    assert os.readlink(copy / "link") == "nowhere" and stat.S_ISFIFO((copy / "fifo").stat().st_mode)
    assert stat.S_IMODE((copy / "fifo").stat().st_mode) == stat.S_IMODE((source / "fifo").stat().st_mode)
