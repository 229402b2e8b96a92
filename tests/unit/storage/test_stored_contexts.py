"""What a client says of a directory, and what the daemon keeps of it: the same, whatever came before."""

from __future__ import annotations

import os
import random
import stat
import threading
from pathlib import Path

import pytest

from wherry.client.buildcontext import LocalContext
from wherry.errors import InvalidArgument
from wherry.model.ignore import Patterns
from wherry.storage.confined.children import Ending
from wherry.storage.contexts import ContextStore, parse_manifest
from wherry.storage.selection import Wanted, select

pytestmark = pytest.mark.kernel


def sent(store: ContextStore, local: LocalContext) -> dict[str, tuple[object, ...]]:
    """Bring the daemon's copy up to date; what COPY would see of it, and what is really there: the same."""
    local.scan()
    context = store.synced("c")
    try:
        need = context.begin(local.manifest())
        if context.is_current:
            context.settle()
        else:
            read, write = os.pipe()

            def feed() -> None:
                with os.fdopen(write, "wb") as pipe:
                    for piece in local.archive(need):
                        pipe.write(piece)

            feeder = threading.Thread(target=feed)
            feeder.start()
            try:
                context.receive(read, Ending())
            finally:
                os.close(read)
                feeder.join()
        seen = {
            os.fsdecode(item.path): (item.node.kind, stat.S_IMODE(item.node.mode), item.node.target)
            for item in select(context.tree, Wanted(["."], into=True))
            if item.path
        }
        assert seen == there(context.directory / "files")
        return {**seen, "": tuple(links(context.directory / "files"))}
    finally:
        context.release()


def there(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for place, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = Path(place) / name
            status = path.lstat()
            kind = "l" if path.is_symlink() else "d" if path.is_dir() else "f"
            target = os.fsencode(os.readlink(path)) if kind == "l" else b""
            found[str(path.relative_to(root))] = (kind, stat.S_IMODE(status.st_mode), target)
    return found


def links(root: Path) -> set[frozenset[str]]:
    """Which names are of one file."""
    by_inode: dict[int, set[str]] = {}
    for path in root.rglob("*"):
        if not path.is_symlink() and path.is_file():
            by_inode.setdefault(path.stat().st_ino, set()).add(str(path.relative_to(root)))
    return {frozenset(names) for names in by_inode.values() if len(names) > 1}


@pytest.fixture
def store(tmp_path: Path) -> ContextStore:
    return ContextStore(tmp_path / "daemon")


def test_directories_of_what_is_taken_back_in_keep_their_mode(store: ContextStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d/e").mkdir(parents=True)
    (source / "d/e/kept").write_text("1")
    (source / "d/e/not").write_text("2")
    (source / "d/e").chmod(0o2750)
    (source / "d").chmod(0o700)
    ignored = Patterns(["d", "!d/e/kept"])
    whole = sent(store, LocalContext(str(source)))
    part = sent(store, LocalContext(str(source), ignored))
    assert set(whole) - set(part) == {"d/e/not"}
    assert part["d"][1] == 0o700 and part["d/e"][1] == 0o2750
    assert sent(store, LocalContext(str(source))) == whole
    assert set(sent(store, LocalContext(str(source), Patterns(["d"])))) == {""}


def test_further_names_of_a_file_stay_that(store: ContextStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("1")
    os.link(source / "a", source / "b")
    (source / "sub").mkdir()
    os.link(source / "a", source / "sub/c")
    assert sent(store, LocalContext(str(source)))[""] == (frozenset({"a", "b", "sub/c"}),)
    (source / "a").write_text("changed")
    assert sent(store, LocalContext(str(source)))[""] == (frozenset({"a", "b", "sub/c"}),)
    assert (store.root / "c-0/files/sub/c").read_text() == "changed"
    part = sent(store, LocalContext(str(source), Patterns(["a"])))
    assert part[""] == (frozenset({"b", "sub/c"}),)
    (source / "b").unlink()
    assert sent(store, LocalContext(str(source)))[""] == (frozenset({"a", "sub/c"}),)
    os.link(source / "a", source / "d")
    local = LocalContext(str(source))
    assert sent(store, local)[""] == (frozenset({"a", "d", "sub/c"}),)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_came_before_nothing_of_it_is_left(store: ContextStore, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    source = tmp_path / "source"
    source.mkdir()
    names = ["a", "b", "a/x", "a/y", "a/x/z", "b/x", "b/y/z"]
    for _ in range(8):
        for name in dice.sample(names, 4):
            path = source / name
            _change(dice, path)
        ignored = [dice.choice(("", "!")) + dice.choice((*names, "**/z")) for _ in range(dice.randrange(4))]
        assert "" in sent(store, LocalContext(str(source), Patterns(["q", *ignored])))


def _change(dice: random.Random, path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        if dice.random() < 0.5:
            path.chmod(dice.choice((0o755, 0o700)))
            return
        for inner in sorted(path.rglob("*"), reverse=True):
            inner.unlink() if inner.is_symlink() or not inner.is_dir() else inner.rmdir()
        path.rmdir()
    if not path.parent.is_dir() or path.parent.is_symlink():
        return
    kind = dice.choice(("file", "dir", "link", "hard"))
    if kind == "dir":
        path.mkdir(mode=dice.choice((0o755, 0o711)))
    elif kind == "link":
        path.symlink_to(dice.choice(("a", "/b", "../b")))
    else:
        others = [one for one in path.parent.iterdir() if one.is_file() and not one.is_symlink()]
        if kind == "hard" and others:
            os.link(dice.choice(others), path)
        else:
            path.write_text(str(dice.random()))


@pytest.mark.parametrize(
    "manifest",
    [
        b"d/x\0f\x00644\x000\x000\0\0s\0",
        b"d\0l\x00777\x000\x000\0e\0s\0d/x\0f\x00644\x000\x000\0\0s\0",
        b"x\0h\x00644\x000\x000\0y\0s\0",
    ],
)
def test_lists_that_leave_something_out_are_refused(manifest: bytes) -> None:
    with pytest.raises(InvalidArgument, match="invalid context manifest"):
        parse_manifest(manifest)
