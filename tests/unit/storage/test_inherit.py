"""Directories that a layer needs and has no entry of."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from layer_tools import directory, file, layer, symlink, unpack

from wherry.storage.drivers.inherit import inherit

pytestmark = pytest.mark.kernel


def look(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_what_has_no_entry_is_told(tmp_path: Path) -> None:
    data = layer(file("tmp/a/b/file"), directory("tmp/a", mode=0o700), file("c/file"), file("c/.wh.gone"))
    assert unpack(data, tmp_path / "layer").unnamed == (b"", b"c", b"tmp", b"tmp/a/b")


def test_what_was_replaced_is_not(tmp_path: Path) -> None:
    data = layer(directory("."), file("a/b/file"), file("a"))
    assert unpack(data, tmp_path / "layer").unnamed == ()


def test_one_that_lies_on_its_parents_has_none(tmp_path: Path) -> None:
    assert unpack(layer(file("tmp/file")), tmp_path / "merged", whiteouts="merge").unnamed == ()


def test_mode_owner_and_attributes_are_the_parents(tmp_path: Path) -> None:
    base, middle, top = (tmp_path / name for name in ("base", "middle", "top"))
    data = layer(
        directory(".", mode=0o711),
        directory("tmp", mode=0o1777),
        directory("home/me", mode=0o750, uid=1000, gid=1001),
        directory("deep/er", mode=0o700),
        file("new/file"),
    )
    unpack(data, base)
    os.setxattr(base / "tmp", "user.mark", b"x")
    unpack(layer(directory("home/me", mode=0o740, uid=7, gid=8), file("other/file")), middle)
    made = unpack(layer(file("tmp/f"), file("home/me/f"), file("deep/er/f"), file("fresh/f")), top)
    inherit(top, [middle, base], made.unnamed)
    assert look(top) == look(middle)
    assert look(top / "tmp") == (0o1777, 0, 0) and os.getxattr(top / "tmp", "user.mark") == b"x"
    assert look(top / "home/me") == (0o740, 7, 8), "the nearest counts"
    assert look(top / "deep/er") == (0o700, 0, 0)
    assert look(top / "fresh") == (0o755, 0, 0), "nobody else has it"


@pytest.mark.parametrize("hidden", [".wh.d", "d/.wh.x", ".wh..wh..opq", "d/.wh..wh..opq", "file", "link"])
def test_what_is_hidden_does_not_count(tmp_path: Path, hidden: str) -> None:
    base, middle, top = (tmp_path / name for name in ("base", "middle", "top"))
    unpack(layer(directory("d/x", mode=0o1777)), base)
    entry = {"file": file("d"), "link": symlink("d", "elsewhere")}.get(hidden) or file(hidden)
    unpack(layer(directory("."), entry), middle)
    made = unpack(layer(file("d/x/file")), top)
    inherit(top, [middle, base], made.unnamed)
    assert look(top / "d/x") == (0o755, 0, 0)


def test_what_the_layer_itself_hides_does_not_count(tmp_path: Path) -> None:
    base, top = tmp_path / "base", tmp_path / "top"
    unpack(layer(directory("d", mode=0o711), directory("d/x", mode=0o1777)), base)
    made = unpack(layer(file("d/.wh..wh..opq"), file("d/x/file")), top)
    inherit(top, [base], made.unnamed)
    assert look(top / "d") == (0o711, 0, 0) and look(top / "d/x") == (0o755, 0, 0)


def test_a_parent_never_leads_out_of_a_layer(tmp_path: Path) -> None:
    """A link in a lower layer, even to a directory of the host's, is no directory there."""
    base, top = tmp_path / "base", tmp_path / "top"
    unpack(layer(symlink("d", "/tmp")), base)
    made = unpack(layer(file("d/file")), top)
    inherit(top, [base], made.unnamed)
    assert look(top / "d") == (0o755, 0, 0)
