"""Names, ids, listing, deleting by Docker's rules, pruning."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_tools import Layout, Library, docker_archive, open_library, tree

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.images.archive import load
from wherry.images.assemble import import_rootfs
from wherry.images.delete import delete, disk_usage, prune
from wherry.model import digest as digests
from wherry.model import oci, reference
from wherry.model.digest import Digest
from wherry.model.documents import decode_document, guess_media_type
from wherry.model.images import Deleted, ImageUser, Untagged
from wherry.model.oci import ImageRunConfig, Platform
from wherry.model.platforms import preferred_platforms

pytestmark = pytest.mark.kernel


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = open_library(tmp_path / "root")
    yield made
    made.layers.close()


def add(library: Library, *tags: str, **files: str) -> Digest:
    data = docker_archive(tree(**(files or {"a": tags[0]})), tags=tags, Labels={"from": "test"})
    return load(library.images, library.unpacker, io.BytesIO(data))[0].id


def nobody(_image: Digest) -> list[ImageUser]:
    return []


def test_every_way_to_name_an_image(library: Library) -> None:
    target = add(library, "app:1", "host.example:5000/team/app:2")
    image = library.images.resolve("app:1")
    hex_part = digests.hex_of(target)
    for text in (
        *("docker.io/library/app:1", "library/app:1", "host.example:5000/team/app:2", target, hex_part),
        *(hex_part[:12], hex_part[:1], f"sha256:{hex_part[:12]}", f"app@{target}", f"app:other@{target}"),
        *(image.config_descriptor.digest, digests.hex_of(image.config_descriptor.digest)[:20]),
    ):
        assert library.images.resolve(text).id == target, text
    assert image.config.config.labels == {"from": "test"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("busybox", "No such image: busybox:latest"),
        ("app", "No such image: app:latest"),
        ("sha256:" + "0" * 64, "No such image: sha256:" + "0" * 64),
        ("0" * 64, "No such image: " + "0" * 64),
        ("other@{target}", "No such image: other@{target}"),
    ],
)
def test_what_is_not_there(library: Library, text: str, words: str) -> None:
    target = add(library, "app:1")
    with pytest.raises(NotFound) as caught:
        library.images.resolve(text.format(target=target))
    assert caught.value.message == words.format(target=target)


def test_a_name_wins_over_an_id_and_short_ids_must_be_clear(library: Library) -> None:
    first = add(library, "app:1")
    name = digests.hex_of(first)[:4]
    second = add(library, f"{name}:latest", a="other")
    assert library.images.resolve(name).id == second
    many = [add(library, f"n{number}:1", a=str(number)) for number in range(20)]
    starts = [digests.hex_of(target)[0] for target in many]
    doubled = next(start for start in starts if starts.count(start) > 1)
    with pytest.raises(Conflict, match="multiple IDs"):
        library.images.resolve(doubled)
    with pytest.raises(InvalidArgument):
        library.images.resolve("Not a name")


def test_moving_a_name_leaves_history_and_a_dangling_image(library: Library) -> None:
    old, new = add(library, "app:1", a="1"), add(library, "app:1", a="2")
    name = reference.parse("app:1")
    assert [(m.old, m.new, m.why) for m in library.images.moves(name)] == [
        ("", old, "load"),
        (old, new, "load"),
    ]
    assert library.images.resolve("app:1").id == new
    assert library.images.resolve(old).names == ()
    summary = {image.id: image for image in library.images.list()}
    assert summary[old].dangling
    assert summary[new].repo_tags == ["app:1"]
    library.images.tag(name, old, why="tag", by="somebody")
    assert library.images.moves(name)[-1].actor == "somebody"
    with pytest.raises(NotFound):
        library.images.tag(name, digests.of(b"absent"), why="tag")
    with pytest.raises(InvalidArgument):
        library.images.tag(reference.parse(f"app@{old}"), old, why="tag")


def test_a_list_follows_what_is_here(library: Library) -> None:
    """What it shows of documents is remembered, and forgotten when a document comes or goes."""
    target = add(library, "app:1")
    image = library.images.resolve("app:1")
    (before,) = library.images.list()
    assert library.images.list() == [before]
    add(library, "other:1", a="other")
    assert [i for i in library.images.list() if i.id == target] == [before]
    library.images.content.delete(image.config_descriptor.digest)
    (gone,) = (i for i in library.images.list() if i.id == target)
    assert gone.created != before.created


def test_sizes_count_blobs_and_snapshots(library: Library) -> None:
    base = tree(base="x" * 100_000)
    for number in range(2):
        data = docker_archive(base, tree(own=str(number)), tags=[f"app:{number}"])
        load(library.images, library.unpacker, io.BytesIO(data))
    one, two = library.images.list(shared_size=True)
    assert one.size > 200_000
    assert one.shared_size == two.shared_size > 200_000
    assert one.size < disk_usage(library.images).total < one.size + two.size
    assert library.images.list()[0].shared_size == -1
    image = library.images.resolve("app:0")
    first, second = library.images.history(image)
    assert (first.id, first.tags, first.created_by) == (image.id, ("app:0",), "step 1")
    assert (second.id, second.size > 100_000, second.created) == ("<missing>", True, 1714979289)
    (manifest,) = library.images.manifests(image.id)
    assert manifest.available
    assert library.images.size(image.id) == manifest.content_size + manifest.unpacked_size


# deleting


def test_delete_a_name_of_several_then_the_last(library: Library) -> None:
    target = add(library, "app:1", "app:2")
    assert delete(library.images, "app:1", users=nobody) == [Untagged("app:1")]
    assert delete(library.images, "app:2", users=nobody) == [Untagged("app:2"), Deleted(target)]
    state = library.state()
    assert (state["content"], state["rows"], state["snapshots"], state["directories"]) == ([], [], [], 0)
    with pytest.raises(NotFound, match="No such image: app:2"):
        delete(library.images, "app:2", users=nobody)


def test_delete_by_id(library: Library) -> None:
    target = add(library, "app:1", "other:2")
    with pytest.raises(Conflict) as caught:
        delete(library.images, digests.hex_of(target)[:12], users=nobody)
    assert caught.value.message == (
        f"conflict: unable to delete {digests.hex_of(target)[:12]} (must be forced) - "
        "image is referenced in multiple repositories"
    )
    removed = delete(library.images, target, force=True, users=nobody)
    assert removed == [Untagged("app:1"), Untagged("other:2"), Deleted(target)]
    assert library.images.list() == []


def test_a_stopped_container_holds_its_image_unless_forced(library: Library) -> None:
    target = add(library, "app:1")
    short = digests.hex_of(target)[:12]
    users = [ImageUser("c" * 64, running=False)]
    with pytest.raises(Conflict) as caught:
        delete(library.images, "app:1", users=lambda _: users)
    assert caught.value.message == (
        f"conflict: unable to delete app:1 (must be forced) - container cccccccccccc is using its "
        f"referenced image {short}"
    )
    with pytest.raises(Conflict, match="is being used by stopped container cccccccccccc"):
        delete(library.images, short, users=lambda _: users)
    assert delete(library.images, "app:1", force=True, users=lambda _: users) == [Untagged("app:1")]
    assert library.images.resolve(target).names == ()
    assert delete(library.images, target, force=True, users=lambda _: users) == [Deleted(target)]


def test_a_running_container_holds_its_image_always(library: Library) -> None:
    target = add(library, "app:1")
    users = [ImageUser("c" * 64, running=True)]
    with pytest.raises(Conflict) as caught:
        delete(library.images, target, force=True, users=lambda _: users)
    assert caught.value.message == (
        f"conflict: unable to delete {digests.hex_of(target)[:12]} (cannot be forced) - "
        "image is being used by running container cccccccccccc"
    )


def test_a_container_keeps_its_layers_when_the_image_goes(library: Library) -> None:
    target = add(library, "app:1")
    top = library.images.ensure_unpacked(library.images.resolve("app:1"))
    library.snapshotter.prepare("container", top)
    delete(library.images, target, force=True, users=nobody)
    assert [info.key for info in library.snapshotter.walk()] == [top, "container"]
    library.snapshotter.remove("container")
    library.collector.collect()
    assert library.snapshotter.walk() == []


def test_shared_layers_stay_with_the_other_image(library: Library) -> None:
    base = tree(base="1")
    for number in range(2):
        load(
            library.images,
            library.unpacker,
            io.BytesIO(docker_archive(base, tree(own=str(number)), tags=[f"app:{number}"])),
        )
    delete(library.images, "app:0", users=nobody)
    assert len(library.snapshotter.walk()) == 2
    assert library.images.ensure_unpacked(library.images.resolve("app:1")) is not None


def test_prune(library: Library) -> None:
    add(library, "app:1", a="1")
    add(library, "app:1", a="2")
    used = add(library, "used:1", a="3")
    removed, freed = prune(library.images, users=nobody)
    assert [type(item) for item in removed] == [Deleted]
    assert freed > 0
    users = lambda image: [ImageUser("c", running=False)] if image == used else []  # noqa: E731
    removed, _ = prune(library.images, users=users, dangling=False, keep=lambda image: False)
    assert Untagged("app:1") in removed
    assert [image.id for image in library.images.list()] == [used]
    assert prune(library.images, users=nobody, dangling=False, until=1) == ([], 0)
    assert prune(library.images, users=nobody, dangling=False, keep=lambda _: True) == ([], 0)


# unpacking


def test_callers_share_the_work(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout()
    layout.add(layout.manifest([tree(**{f"f{n}": "x"}) for n in range(4)]), name="app:1")
    load(library.images, library.unpacker, layout.archive())
    image = library.images.resolve("app:1")
    for info in reversed(library.snapshotter.walk()):
        library.snapshotter.remove(info.key)
    count = 0
    unpack = library.unpacker.unpack

    def counted(*arguments: object, **options: object) -> object:
        nonlocal count
        count += 1
        return unpack(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(library.unpacker, "unpack", counted)
    tops: list[Digest | None] = []
    threads = [
        threading.Thread(target=lambda: tops.append(library.images.ensure_unpacked(image))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tops == [image.chain_ids[-1]] * 6
    assert count == 4
    assert len(library.snapshotter.walk()) == 4


def test_a_failed_layer_fails_all_who_wait_and_can_be_tried_again(library: Library) -> None:
    layout = Layout()
    layers = [tree(a="1"), tree(b="2")]
    layout.add(layout.manifest(layers), name="app:1")
    load(library.images, library.unpacker, layout.archive())
    image = library.images.resolve("app:1")
    for info in reversed(library.snapshotter.walk()):
        library.snapshotter.remove(info.key)
    path = library.content.path(digests.of(layers[1]))
    good = path.read_bytes()
    path.write_bytes(b"broken" * 200)
    failures: list[Exception] = []

    def work() -> None:
        try:
            library.images.ensure_unpacked(image)
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(e) for e in failures] == [InvalidArgument] * 4
    path.write_bytes(good)
    assert library.images.ensure_unpacked(image) == image.chain_ids[-1]
    assert len(library.snapshotter.walk()) == 2


def test_import(library: Library) -> None:
    image = import_rootfs(
        library.images,
        library.unpacker,
        io.BytesIO(tree(etc__os="x")),
        reference.parse("mine:1"),
        message="by hand",
        changes=ImageRunConfig(cmd=["sh"], env=["A=1"]),
        platform=Platform(os="linux", architecture="arm64", variant="v8"),
    )
    assert image.repo_tags == ["mine:1"]
    assert image.config.config.cmd == ["sh"]
    assert str(image.platform) == "linux/arm64/v8"
    assert library.images.history(image)[0].comment == "by hand"
    assert library.layers.has(image.chain_ids[-1])
    before = library.state()
    with pytest.raises(InvalidArgument):
        import_rootfs(library.images, library.unpacker, io.BytesIO(b"no tar" * 300), None)
    assert library.state() == before


# documents


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{}",
        b'{"schemaVersion": 1, "fsLayers": []}',
        b'{"schemaVersion": 2, "layers": []}',
        b'{"schemaVersion": 2, "config": {"mediaType": "x", "digest": "sha256:x", "size": 1}, "layers": []}',
        b'{"schemaVersion": 2, "schemaVersion": 2}',
        b"\xff\xfe",
        b'{"schemaVersion": 2, "config": {"mediaType": "x", "digest": "md5:0", "size": -1}, "layers": []}',
    ],
)
def test_documents_that_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        decode_document(data, oci.MANIFEST)
    with pytest.raises(InvalidArgument):
        decode_document(b" " * (oci.MANIFEST_SIZE_MAX + 1), oci.MANIFEST)


def test_a_member_that_is_said_twice_is_refused() -> None:
    good = (
        b'{"schemaVersion": 2, "layers": [], "annotations": {"a": "1"}, "config": '
        b'{"mediaType": "x", "digest": "%s", "size": 1}}' % digests.of(b"x").encode()
    )
    decode_document(good, oci.MANIFEST)
    for bad in (good[:-1] + b', "layers": []}', good.replace(b'"a": "1"', b'"a": "1", "a": "2"')):
        with pytest.raises(InvalidArgument, match="same member twice"):
            decode_document(bad, oci.MANIFEST)


def test_media_types_that_are_lost() -> None:
    assert guess_media_type(b'{"manifests": []}') == oci.INDEX
    assert guess_media_type(b'{"layers": []}') == oci.MANIFEST
    assert guess_media_type(b'{"mediaType": "%s"}' % oci.DOCKER_LIST.encode()) == oci.DOCKER_LIST
    with pytest.raises(InvalidArgument):
        guess_media_type(b'{"mediaType": "text/html"}')


def test_preferred_platforms() -> None:
    assert [str(p) for p in preferred_platforms(Platform(os="linux", architecture="amd64"))] == [
        "linux/amd64",
        "linux/386",
    ]
    arm = preferred_platforms(Platform(os="linux", architecture="arm", variant="v7"))
    assert [p.variant for p in arm] == ["v7", "v6", "v5"]
