"""Versions of a name: what it pointed at, the way back, and what a prune spares."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_tools import Library, docker_archive, open_library, tree

from wherry.errors import InvalidArgument, NotFound
from wherry.images import versions
from wherry.images.archive import load
from wherry.images.delete import delete
from wherry.images.versions import Keep
from wherry.model import reference
from wherry.model.digest import Digest

pytestmark = pytest.mark.kernel

APP = reference.parse("app")
DAY = 24 * 3600 * 10**9


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = open_library(tmp_path / "root")
    yield made
    made.layers.close()


def add(library: Library, text: str, name: str = "app:latest") -> Digest:
    data = docker_archive(tree(a=text), tags=(name,))
    return load(library.images, library.unpacker, io.BytesIO(data))[0].id


@pytest.fixture
def three(library: Library) -> list[Digest]:
    return [add(library, text) for text in ("one", "two", "three")]


def targets(library: Library) -> list[Digest]:
    return [v.target for v in versions.of_name(library.images, APP)]


def test_newest_first_with_who_and_why(library: Library, three: list[Digest]) -> None:
    library.images.who = lambda: "alice"
    library.images.tag(APP, three[0], why="tag")
    found = versions.of_name(library.images, APP)
    assert [v.number for v in found] == [0, 1, 2, 3]
    assert [v.target for v in found] == [three[0], three[2], three[1], three[0]]
    assert (found[0].by, found[0].why, found[0].until) == ("alice", "tag", 0)
    assert found[1].until == found[0].since
    assert all(v.present for v in found)


def test_versions_are_references(library: Library, three: list[Digest]) -> None:
    for text, expected in (("app@{0}", three[2]), ("app:latest@{1}", three[1]), ("app@{2}", three[0])):
        assert library.images.resolve(text).id == expected
    for text in ("app@{3}", "other@{0}", "app:1@{0}"):
        with pytest.raises(NotFound, match="No such image"):
            library.images.resolve(text)
    for text in ("app@{-1}", "app@{x}", "app@{}", "app@{99999}", "app@{1}x"):
        with pytest.raises(InvalidArgument):
            library.images.resolve(text)


def test_a_removed_name_that_comes_back_is_one_version(library: Library, three: list[Digest]) -> None:
    library.images.rows.move(str(APP.with_default_tag()), None, actor="", why="untag")
    gone, last, *_ = versions.of_name(library.images, APP)
    assert (gone.number, gone.target, gone.why, gone.present) == (0, "", "untag", False)
    assert last.number == 1 and last.until > 0
    assert library.images.find(f"{APP.familiar()}@{{1}}").digest == last.target
    with pytest.raises(NotFound):
        library.images.find(f"{APP.familiar()}@{{0}}")
    library.images.tag(APP, three[2], why="tag")
    assert targets(library) == [three[2], three[1], three[0]]
    assert versions.of_name(library.images, APP)[0].until == 0
    assert library.images.resolve("app@{1}").id == three[1]


def test_rolling_back_and_forth(library: Library, three: list[Digest]) -> None:
    version, before = versions.rollback(library.images, APP, "1")
    assert (version.target, before.target) == (three[1], three[2])
    assert library.images.resolve("app").id == three[1]
    versions.rollback(library.images, APP, "1")
    assert library.images.resolve("app").id == three[2]
    versions.rollback(library.images, APP, three[0])
    assert library.images.resolve("app").id == three[0]
    versions.rollback(library.images, APP, three[1].removeprefix("sha256:")[:12])
    assert library.images.resolve("app").id == three[1]
    assert library.images.moves(APP)[-1].why == "rollback"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("0", "that is where it is"),
        ("3", "it has 2 earlier versions"),
        ("sha256:feed", "not one of its earlier versions"),
        ("", "not one of its earlier versions"),
        ("../x", "not one of its earlier versions"),
    ],
)
def test_where_there_is_no_way_back(library: Library, three: list[Digest], wanted: str, words: str) -> None:
    with pytest.raises((NotFound, InvalidArgument), match=words):
        versions.rollback(library.images, APP, wanted)
    assert library.images.resolve("app").id == three[2]


def test_an_image_that_is_gone_cannot_be_rolled_back_to(library: Library, three: list[Digest]) -> None:
    delete(library.images, three[1], users=lambda _: [])
    assert [v.present for v in versions.of_name(library.images, APP)] == [True, False, True]
    with pytest.raises(NotFound, match="was removed"):
        versions.rollback(library.images, APP, "1")
    versions.rollback(library.images, APP, "2")
    assert library.images.resolve("app").id == three[0]


def test_what_a_prune_spares(library: Library, three: list[Digest]) -> None:
    images = library.images
    assert versions.protected(images, Keep()) >= set(three[:2])
    assert versions.protected(images, Keep(versions=1)) == {three[1]}
    assert versions.protected(images, Keep(days=0)) == set()
    assert versions.protected(images, Keep(versions=0)) == set()
    later = time.time_ns() + 31 * DAY
    assert versions.protected(images, Keep(days=30), later) == set()
    assert versions.protected(images, Keep(days=60), later) == set(three[:2])


def test_a_name_nobody_knows(library: Library) -> None:
    with pytest.raises(NotFound, match="No such image: nobody:latest"):
        versions.of_name(library.images, reference.parse("nobody"))
    with pytest.raises(InvalidArgument, match="an image, not a name"):
        versions.rollback(library.images, reference.parse(f"app@sha256:{'0' * 64}"), "1")
