"""Differences written as layers: unpacked again they give the same tree."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import open_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_tools import directory, file, layer, link, listing, unpack

from wherry.linux import trees
from wherry.linux.mounts import mount, unmount
from wherry.model import digest as digests
from wherry.state.schema import MIGRATIONS
from wherry.state.snapshots import Snapshots
from wherry.storage.diff import DELETED, changes, write_layer, write_tree
from wherry.storage.drivers.overlay import OverlaySnapshotter
from wherry.storage.drivers.vfs import VfsSnapshotter
from wherry.storage.snapshots import Snapshotter

pytestmark = pytest.mark.kernel

Edit = tuple[str, str, bytes]
edits = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "remove", "mkdir", "link", "symlink", "chmod", "mark", "holes", "recreate"]
        ),
        st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/f", "new", "d/ü" + "x" * 120]),
        st.binary(max_size=30),
    ),
    max_size=12,
)


@pytest.fixture(params=[OverlaySnapshotter, VfsSnapshotter], ids=["overlay", "vfs"])
def make(request: pytest.FixtureRequest) -> Callable[[Path], Snapshotter]:
    def made(root: Path) -> Snapshotter:
        root.mkdir()
        kind = request.param
        return kind(root, Snapshots(open_database(root / "db", MIGRATIONS), kind.name))  # type: ignore[no-any-return]

    return made


def base(path: Path) -> None:
    (path / "d/e").mkdir(parents=True)
    for name in ("a", "b", "d/a", "d/b", "d/e/f"):
        (path / name).write_text(name)
    os.setxattr(path / "a", "user.mark", b"base")


def edit(root: Path, step: Edit) -> None:
    what, name, data = step
    path = root / name
    try:
        if what == "write":
            path.write_bytes(data)
        elif what == "remove":
            trees.remove(path)
        elif what == "mkdir":
            path.mkdir()
        elif what == "link":
            path.with_name("hard").hardlink_to(path)
        elif what == "symlink":
            path.symlink_to(data.replace(b"\0", b"x") or b"x")
        elif what == "chmod":
            os.chmod(path, 0o700 + len(data), follow_symlinks=True)
        elif what == "mark":
            os.setxattr(path, "user.mark", data)
        elif what == "holes":
            with path.open("wb") as out:
                out.seek(1 << 20)
                out.write(data)
                out.truncate(3 << 20)
        elif what == "recreate":
            trees.remove(path)
            path.mkdir()
            (path / "fresh").write_bytes(data)
    except OSError:
        return


def snapshot(snapshotter: Snapshotter, key: str, parent: str | None, work: Callable[[Path], None]) -> None:
    where = snapshotter.root.parent / "at"  # type: ignore[attr-defined]
    where.mkdir(exist_ok=True)
    for value in snapshotter.prepare(key, parent):
        mount(value, where)
    try:
        work(where)
    finally:
        unmount(where)


def show(snapshotter: Snapshotter, key: str) -> dict[str, tuple[object, ...]]:
    where = snapshotter.root.parent / "at"  # type: ignore[attr-defined]
    for value in snapshotter.mounts(key):
        mount(value, where)
    try:
        return listing(where)
    finally:
        unmount(where)


@given(steps=edits)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_diff_then_unpack_is_the_same(
    steps: list[Edit], make: Callable[[Path], Snapshotter], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("diff")
    snapshotter = make(root / "r")
    try:
        snapshot(snapshotter, "unpack-0", None, base)
        snapshotter.commit("base", "unpack-0")
        snapshot(snapshotter, "c", "base", lambda path: [edit(path, step) for step in steps] and None)
        out = io.BytesIO()
        written = write_layer(snapshotter, "c", out)
        data = out.getvalue()
        assert (written.diff_id, written.size) == (digests.of(data), len(data))
        again = io.BytesIO()
        write_layer(snapshotter, "c", again)
        assert again.getvalue() == data
        blob = root / "blob"
        blob.write_bytes(data)
        from wherry.storage.confined.unpack import Unpacker

        parent = None if snapshotter.rebase else "base"
        (value,) = snapshotter.prepare("unpack-1", parent)
        style = "overlay" if snapshotter.rebase else "merge"
        Unpacker().unpack(blob, value, whiteouts=style, digest=written.diff_id)
        snapshotter.commit("again", "unpack-1", parent="base" if snapshotter.rebase else None)
        snapshotter.prepare("c2", "again")
        wanted, found = show(snapshotter, "c"), show(snapshotter, "c2")
        assert found == wanted
    finally:
        trees.remove(root)


def test_changes_are_told(make: Callable[[Path], Snapshotter], tmp_path: Path) -> None:
    snapshotter = make(tmp_path / "r")
    snapshot(snapshotter, "unpack-0", None, base)
    snapshotter.commit("base", "unpack-0")

    def work(path: Path) -> None:
        (path / "a").unlink()
        (path / "new").write_text("x")
        trees.remove(path / "d/e")

    snapshot(snapshotter, "c", "base", work)
    found = {change.path: change.kind for change in changes(snapshotter, "c")}
    assert found[b"a"] == found[b"d/e"] == DELETED
    assert b"new" in found
    assert b"b" not in found
    assert b"d/e/f" not in found


def test_a_layer_over_its_parents_where_it_links_to_their_files(tmp_path: Path) -> None:
    """A hard link to a lower layer's file needs the parents, mounted in the child."""
    from wherry.storage.confined.unpack import NeedsParent, Unpacker

    root = tmp_path / "r"
    root.mkdir()
    snapshotter = OverlaySnapshotter(root, Snapshots(open_database(root / "db", MIGRATIONS), "overlay"))
    snapshot(snapshotter, "unpack-0", None, base)
    snapshotter.commit("base", "unpack-0")
    data = layer(link("h", "a"), file("d/.wh.a"), directory("d/e/"), file("d/e/.wh..wh..opq"))
    with pytest.raises(NeedsParent):
        unpack(data, tmp_path / "alone")
    blob = tmp_path / "blob"
    blob.write_bytes(data)
    (value,) = snapshotter.prepare("unpack-1", "base")
    Unpacker().unpack(blob, value, whiteouts="merge", digest=digests.of(data))
    snapshotter.commit("two", "unpack-1")
    snapshotter.prepare("c", "two")
    found = show(snapshotter, "c")
    assert {"a", "h", "d/b"} <= found.keys()
    assert found["h"][4] == b"a"
    assert not {"d/a", "d/e/f"} & found.keys()


def test_sockets_are_left_out_and_others_read_it(tmp_path: Path) -> None:
    import socket

    tree = tmp_path / "tree"
    tree.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
    (tree / "f").write_bytes(b"data")
    os.utime(tree / "f", ns=(0, 1_500_000_000_500_000_000))
    (tree / ("long" * 40)).symlink_to("t" * 150)
    os.mkfifo(tree / "fifo")
    os.chown(tree / "f", 3_000_000_000, 3_000_000_000)
    out = io.BytesIO()
    write_tree(tree, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        found = {info.name: info for info in tar.getmembers()}
    assert sorted(found) == ["f", "fifo", "long" * 40]
    assert found["f"].uid == 3_000_000_000
    assert float(found["f"].mtime) == 1_500_000_000.5
    assert found["long" * 40].linkname == "t" * 150
    assert stat.S_ISFIFO((tree / "fifo").lstat().st_mode)
