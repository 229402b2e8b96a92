"""Layers on layers, at random, against a model of what the image specification says (layer.md, "Whiteouts"):
both ways to unpack them must come to the same files.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from layer_tools import directory, file, layer, symlink

from wherry.model.tarformat import Buffered, TarLimits, TarReader
from wherry.storage.confined.child.apply import Applier
from wherry.storage.layerformat import MERGE, OVERLAY

pytestmark = pytest.mark.kernel
NAMES = ("a", "b", "c")
LINKS = ("l", "m")
Tree = dict[str, str]
"""Path -> ``d``, ``f`` and the content, ``l`` and the target."""
Entry = tuple[str, str, str]
"""Kind (dir, file, link, hide, opaque), path, content or target."""


class Undefined(Exception):
    """The two ways may differ, as one of them does not see lower layers: nothing that tools write."""


class Model:
    """One layer being applied: what it has itself, and what it hides of those below."""

    def __init__(self, lower: Tree) -> None:
        self.lower = lower
        self.own: Tree = {}
        self.hidden: set[str] = set()
        self.opaque: set[str] = set()

    def visible(self, path: str) -> str | None:
        for one in [path, *parents(path)]:
            if one in self.hidden:
                return None
        if any(one in self.opaque for one in [*parents(path), ""]) and path:
            return None
        return self.lower.get(path)

    def resolve(self, head: str, *, for_whiteout: bool) -> str | None:
        here, pending, links = "", head.split("/")[::-1], 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            at = f"{here}/{part}" if here else part
            own, below = self.own.get(at), self.visible(at)
            if own is not None and own[0] == "l":
                links += 1
                if links > 20:
                    raise Undefined
                here = "" if own[1:].startswith("/") else here
                pending += own[1:].split("/")[::-1]
                continue
            if own is None and at in self.hidden and for_whiteout:
                return None
            if own is None and below is not None and below != "d":
                raise Undefined
            if own is None and below is None and for_whiteout:
                raise Undefined
            if own is not None and own[0] == "f" and for_whiteout:
                return None
            if own != "d" and not for_whiteout:
                self.put(at, "d")
            here = at
        return here

    def put(self, path: str, what: str) -> None:
        if what != "d" or self.own.get(path, "d") != "d":
            for gone in [one for one in self.own if one.startswith(path + "/")]:
                del self.own[gone]
        if what != "d":
            # It replaces what lower layers have, with all that is in it, whatever comes after.
            self.hidden.add(path)
        self.own[path] = what

    def apply(self, entry: Entry) -> None:
        kind, path, more = entry
        head, _, name = path.rpartition("/")
        if kind in ("hide", "opaque"):
            above = self.resolve(path if kind == "opaque" else head, for_whiteout=True)
            if above is None:
                return
            if kind == "opaque":
                self.opaque.add(above)
            else:
                self.hidden.add(f"{above}/{name}" if above else name)
            return
        above = self.resolve(head, for_whiteout=False)
        assert above is not None
        self.put(f"{above}/{name}" if above else name, {"dir": "d", "file": "f", "link": "l"}[kind] + more)

    def result(self) -> Tree:
        kept = {path: what for path, what in self.lower.items() if self.visible(path) is not None}
        for path, what in self.own.items():
            if what != "d" or kept.get(path, "d") != "d":
                kept = {p: w for p, w in kept.items() if p != path and not p.startswith(path + "/")}
        return {**kept, **self.own}


def parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def random_layer(dice: random.Random, lower: Tree) -> tuple[list[Entry], Tree]:
    """Entries, without those whose meaning is open, and what they come to."""
    model, entries = Model(lower), []
    for number in range(dice.randrange(1, 9)):
        kind = dice.choice(("dir", "file", "link", "hide", "hide", "opaque"))
        depth = dice.randrange(0, 3)
        own_links = [path for path, what in model.own.items() if what[0] == "l"]
        start = dice.choice(own_links) if own_links and dice.random() < 0.4 else ""
        path = "/".join(
            filter(None, [start, *dice.choices(NAMES, k=depth + (not start or kind != "opaque"))])
        )
        more = ""
        if kind == "file":
            more = str(number)
        elif kind == "link":
            path = "/".join(filter(None, [path.rpartition("/")[0], dice.choice(LINKS)]))
            more = dice.choice(("", "/", "../")) + "/".join(dice.choices(NAMES, k=dice.randrange(1, 3)))
        before = (dict(model.own), set(model.hidden), set(model.opaque))
        try:
            model.apply((kind, path, more))
        except Undefined:
            model.own, model.hidden, model.opaque = before
            continue
        entries.append((kind, path, more))
    return entries, model.result()


def packed(entries: list[Entry]) -> bytes:
    members = []
    for kind, path, more in entries:
        head, _, name = path.rpartition("/")
        prefix = head + "/" if head else ""
        if kind == "dir":
            members.append(directory(path + "/"))
        elif kind == "file":
            members.append(file(path, more.encode()))
        elif kind == "link":
            members.append(symlink(path, more))
        elif kind == "hide":
            members.append(file(f"{prefix}.wh.{name}"))
        else:
            members.append(file(f"{path}/.wh..wh..opq" if path else ".wh..wh..opq"))
    return layer(*members)


def applied(data: bytes, target: Path, whiteouts: str) -> set[str]:
    """Apply a layer below ``target``, as the confined child does; returns the opaque directories."""
    target.mkdir(exist_ok=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chroot(target)
            os.chdir("/")
            pieces = iter([data])
            applier = Applier(TarReader(Buffered(lambda: next(pieces, b"")), TarLimits()), whiteouts)
            applier.run()
            os.write(write, json.dumps([one.decode() for one in applier.opaque]).encode())
            os._exit(0)
        except BaseException as e:
            os.write(write, json.dumps(repr(e)).encode())
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = json.loads(pipe.read() or b'"nothing"')
    assert os.waitpid(child, 0)[1] == 0, said
    return set(said)


def look(root: Path) -> Tree:
    found: Tree = {}
    for place, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = Path(place) / name
            status = path.lstat()
            shown = str(path.relative_to(root))
            if stat.S_ISLNK(status.st_mode):
                found[shown] = "l" + os.readlink(path)
            elif stat.S_ISDIR(status.st_mode):
                found[shown] = "d"
            elif stat.S_ISCHR(status.st_mode):
                found[shown] = "hidden"
            else:
                found[shown] = "f" + path.read_text()
    return found


def stacked(lower: Tree, upper: Tree, opaque: set[str]) -> Tree:
    """What overlayfs shows of a layer on others (kernel.org, filesystems/overlayfs)."""
    hidden = {path for path, what in upper.items() if what != "d"} | opaque
    kept = {}
    for path, what in lower.items():
        above = list(parents(path))
        if any(one in hidden for one in above) or "" in opaque:
            continue
        if path in upper and (what != "d" or upper[path] != "d"):
            continue
        if any(upper.get(one, "d") == "d" and lower.get(one) != "d" for one in above):
            continue
        kept[path] = what
    return {path: what for path, what in {**kept, **upper}.items() if what != "hidden"}


@pytest.mark.parametrize("seed", range(4))
def test_layers_come_to_what_the_specification_says(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    for number in range(20):
        place = tmp_path / str(number)
        place.mkdir()
        expected: Tree = {}
        layers: list[list[Entry]] = []
        shown: Tree = {}
        for level in range(3):
            entries, expected = random_layer(dice, expected)
            layers.append(entries)
            data = packed(entries)
            applied(data, place / "merged", MERGE)
            assert look(place / "merged") == expected, layers
            own = place / f"own{level}"
            opaque = applied(data, own, OVERLAY)
            shown = stacked(shown, look(own), opaque)
            assert shown == expected, layers
        shutil.rmtree(place)


CASES: list[tuple[list[Entry], Tree]] = [
    ([("hide", "e", ""), ("file", "d", "1"), ("hide", "d/x", "")], {"d": "f1"}),
    ([("file", "d", "1"), ("opaque", "d", ""), ("hide", "e", "")], {"d": "f1"}),
    ([("link", "d", "e"), ("hide", "d/x", "")], {"d": "le", "e": "d", "e/y": "f2"}),
    ([("link", "d", "/e"), ("opaque", "d", "")], {"d": "l/e", "e": "d"}),
    (
        [("link", "d", "e"), ("file", "d/z", "3")],
        {"d": "le", "e": "d", "e/x": "f1", "e/y": "f2", "e/z": "f3"},
    ),
    ([("hide", "e/x", ""), ("hide", "e", "")], {}),
    ([("file", "e/z", "3"), ("hide", "e", "")], {"e": "d", "e/z": "f3"}),
    ([("dir", "e/s", ""), ("opaque", "", ""), ("file", "e/s/z", "3")], {"e": "d", "e/s": "d", "e/s/z": "f3"}),
]


@pytest.mark.parametrize(("entries", "expected"), CASES)
def test_whiteouts_leave_what_their_own_layer_has(
    tmp_path: Path, entries: list[Entry], expected: Tree
) -> None:
    base: list[Entry] = [("dir", "e", ""), ("file", "e/x", "1"), ("file", "e/y", "2")]
    applied(packed(base), tmp_path / "merged", MERGE)
    lower = look(tmp_path / "merged")
    applied(packed(entries), tmp_path / "merged", MERGE)
    assert look(tmp_path / "merged") == expected
    opaque = applied(packed(entries), tmp_path / "own", OVERLAY)
    assert stacked(lower, look(tmp_path / "own"), opaque) == expected
