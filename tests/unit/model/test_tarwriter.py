"""What the files of a tree are as members."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from wherry.model.tarformat import DIRECTORY, FIFO, FILE, LINK, SYMLINK
from wherry.model.tarwriter import Kinds


def test_a_further_name_of_a_file_is_a_link_to_its_first(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("x")
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    (tmp_path / "alone").write_text("x")
    (tmp_path / "way").symlink_to("one")
    os.link(tmp_path / "way", tmp_path / "way2", follow_symlinks=False)
    kinds = Kinds()

    def of(name: str) -> tuple[bytes, bytes]:
        return kinds.of(name.encode(), os.lstat(tmp_path / name))

    assert of("one") == (FILE, b"") and of("two") == (LINK, b"one") and of("alone") == (FILE, b"")
    assert of("one") == (FILE, b""), "its first name stays the file"
    assert of("way") == (SYMLINK, b"") and of("way2") == (LINK, b"way")


def test_what_has_no_type(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory" / "inner").mkdir(parents=True)
    kinds = Kinds()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert kinds.of(b"socket", os.lstat(tmp_path / "socket")) == (b"", b"")
    assert kinds.of(b"fifo", os.lstat(tmp_path / "fifo")) == (FIFO, b"")
    for name in (b"directory", b"other"):
        assert kinds.of(name, os.lstat(tmp_path / "directory")) == (DIRECTORY, b""), "never a link"
