"""load and save: every form of archive, hostile ones, several platforms, skopeo as the other side."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from image_tools import HOST, Layout, Library, config, descriptor, docker_archive, open_library, pack, tree

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, WherryError
from wherry.images.archive import load
from wherry.images.archive_save import save
from wherry.images.delete import delete_platforms
from wherry.linux import syscalls
from wherry.linux.mounts import mount, unmount
from wherry.model import digest as digests
from wherry.model import oci, reference
from wherry.model.images import Deleted, ImageUser, Untagged
from wherry.model.oci import Platform
from wherry.model.tarformat import TarLimits

pytestmark = pytest.mark.kernel
OTHER = Platform(os="linux", architecture="s390x")


@pytest.fixture(params=["overlay", "vfs"])
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Library]:
    made = open_library(tmp_path / "root", request.param)
    yield made
    made.layers.close()


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Library]:
    made = open_library(tmp_path / "overlay")
    yield made
    made.layers.close()


def run_load(library: Library, data: bytes | io.BytesIO, **options: Any) -> list[str]:
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    loaded = load(library.images, library.unpacker, stream, **options)
    return [name.familiar() for item in loaded for name in item.names] or [item.id for item in loaded]


def contents(library: Library, text: str, platform: Platform | None = None) -> dict[str, str]:
    """The files a container of the image would see."""
    image = library.images.resolve(text, platform)
    top = library.images.ensure_unpacked(image)
    where = library.root / "at"
    where.mkdir(exist_ok=True)
    for value in library.snapshotter.view("look", top):
        mount(value, where)
    try:
        return {
            str(path.relative_to(where)): path.read_text()
            for path in sorted(where.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }
    finally:
        unmount(where)
        library.snapshotter.remove("look")


def test_docker_archive(library: Library) -> None:
    data = docker_archive(
        tree(a="1", b="1"), tree(b="2", etc__c="3"), tags=["app:1", "localhost:5000/x/app:2"]
    )
    messages: list[dict[str, object]] = []
    assert run_load(library, data, progress=messages.append) == ["app:1", "localhost:5000/x/app:2"]
    assert {"stream": "Loaded image: app:1\n"} in messages
    assert contents(library, "app:1") == {"a": "1", "b": "2", "etc/c": "3"}
    image = library.images.resolve("app:1")
    assert image.repo_tags == ["app:1", "localhost:5000/x/app:2"]
    assert image.repo_digests == [f"app@{image.id}", f"localhost:5000/x/app@{image.id}"]


def test_loading_twice_changes_nothing(library: Library) -> None:
    data = docker_archive(tree(a="1"), tags=["app"])
    run_load(library, data)
    before = library.state()
    run_load(library, data)
    assert library.state() == before


@pytest.mark.parametrize(
    "compress", [gzip.compress, zstandard.ZstdCompressor().compress, bz2.compress, lzma.compress]
)
def test_whole_archive_compressed(overlay: Library, compress: Callable[[bytes], bytes]) -> None:
    data = docker_archive(tree(a="1" * 100_000), tags=["app"])
    assert run_load(overlay, compress(data)) == ["app:latest"]
    assert contents(overlay, "app") == {"a": "1" * 100_000}


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_compressed_layers(library: Library, compress: Callable[[bytes], bytes]) -> None:
    plain = [tree(a="1"), tree(b="2" * 50_000)]
    layout = Layout()
    layout.add(
        layout.manifest([compress(p) for p in plain], plain=plain, layer_type=oci.LAYER_GZIP),
        name="docker.io/library/z:1",
    )
    assert run_load(library, layout.archive()) == ["z:1"]
    assert contents(library, "z:1") == {"a": "1", "b": "2" * 50_000}


def test_layout_with_several_names_and_one_without(overlay: Library) -> None:
    layout = Layout()
    one, two = layout.manifest([tree(a="1")]), layout.manifest([tree(a="2")])
    layout.add(one, name="docker.io/library/one:1")
    layout.add(one, name="docker.io/library/one:2")
    layout.add(two)
    messages: list[dict[str, object]] = []
    loaded = load(overlay.images, overlay.unpacker, layout.archive(), progress=messages.append)
    assert [(len(item.names), item.id) for item in loaded] == [(2, digests.of(one)), (0, digests.of(two))]
    assert {"stream": f"Loaded image ID: {digests.of(two)}\n"} in messages
    assert contents(overlay, digests.of(two)) == {"a": "2"}


def multi_platform(layout: Layout) -> bytes:
    mine = layout.manifest([tree(a="mine")], platform=HOST)
    theirs = layout.manifest([tree(a="theirs")], platform=OTHER)
    proof = layout.manifest(
        [b'{"_type": "in-toto"}'], platform=Platform(os="unknown", architecture="unknown")
    )
    return layout.index(
        descriptor(theirs, oci.MANIFEST, platform={"architecture": "s390x", "os": "linux"}),
        descriptor(mine, oci.MANIFEST, platform={"architecture": HOST.architecture, "os": "linux"}),
        descriptor(
            proof,
            oci.MANIFEST,
            platform={"architecture": "unknown", "os": "unknown"},
            annotations={
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": digests.of(mine),
            },
        ),
    )


def test_several_platforms_are_kept_whole(library: Library) -> None:
    layout = Layout()
    index = multi_platform(layout)
    layout.add(index, oci.INDEX, name="docker.io/library/multi:1")
    assert run_load(library, layout.archive()) == ["multi:1"]
    image = library.images.resolve("multi:1")
    assert image.id == digests.of(index)
    assert image.platform.architecture == HOST.architecture
    assert {row.digest for row in library.content.walk()} == set(layout.blobs)
    assert contents(library, "multi:1") == {"a": "mine"}
    assert len(library.snapshotter.walk()) == 1
    assert contents(library, "multi:1", OTHER) == {"a": "theirs"}
    kinds = {m.kind: m for m in library.images.manifests(image.id)}
    assert kinds.keys() == {"image", "attestation"}
    assert kinds["attestation"].attests == image.manifest_descriptor.digest
    with pytest.raises(NotFound, match="does not provide the specified platform"):
        library.images.resolve("multi:1", Platform(os="linux", architecture="mips64"))


def test_saved_again_it_is_the_same(library: Library, tmp_path: Path) -> None:
    layout = Layout()
    layout.add(multi_platform(layout), oci.INDEX, name="docker.io/library/multi:1")
    layout.add(layout.manifest([tree(b="1")]), name="docker.io/library/other:2")
    run_load(library, layout.archive())
    out = io.BytesIO()
    save(library.images, ["multi:1", "other:2"], out)
    again = io.BytesIO()
    save(library.images, ["multi:1", "other:2"], again)
    assert out.getvalue() == again.getvalue()
    second = open_library(tmp_path / "second")
    assert run_load(second, out.getvalue()) == ["multi:1", "other:2"]
    assert {row.digest for row in second.content.walk()} == set(layout.blobs)
    assert [i.id for i in second.images.list()] == [i.id for i in library.images.list()]
    second.layers.close()


def test_save_one_or_some_platforms(overlay: Library, tmp_path: Path) -> None:
    layout = Layout()
    layout.add(multi_platform(layout), oci.INDEX, name="docker.io/library/multi:1")
    run_load(overlay, layout.archive())
    out = io.BytesIO()
    save(overlay.images, ["multi:1"], out, platforms=[OTHER])
    second = open_library(tmp_path / "second")
    run_load(second, out.getvalue())
    assert second.images.resolve("multi:1").platform.architecture == "s390x"
    with pytest.raises(NotFound):
        save(overlay.images, ["multi:1"], io.BytesIO(), platforms=[Platform(os="linux", architecture="386")])
    second.layers.close()


def test_remove_one_platform(library: Library) -> None:
    """That platform goes, with what attests it; the others, the index and the names stay."""
    layout = Layout()
    index = multi_platform(layout)
    layout.add(index, oci.INDEX, name="docker.io/library/multi:1")
    run_load(library, layout.archive())
    contents(library, "multi:1", OTHER)
    before = library.images.rows.names()
    theirs = library.images.resolve("multi:1", OTHER)
    mine = library.images.resolve("multi:1", HOST)
    unknown = Platform(os="linux", architecture="mips64")
    with pytest.raises(NotFound, match=r"does not provide the specified platform \(linux/mips64\)"):
        delete_platforms(library.images, "multi:1", [OTHER, unknown], users=lambda _image: [])
    used = [ImageUser("c" * 64, running=True, platform=str(OTHER))]
    with pytest.raises(Conflict, match="cannot be forced"):
        delete_platforms(library.images, "multi:1", [OTHER], force=True, users=lambda _image: used)
    other = [ImageUser("c" * 64, running=True, platform=str(HOST))]
    gone = delete_platforms(library.images, "multi:1", [OTHER], users=lambda _image: other)
    assert gone == [Deleted(theirs.manifest_descriptor.digest)]
    with pytest.raises(NotFound):
        library.images.resolve("multi:1", OTHER)
    assert contents(library, "multi:1") == {"a": "mine"}
    assert library.images.rows.names() == before
    assert not library.layers.has(theirs.chain_ids[0])
    assert not any(library.content.has(layer.digest) for layer in theirs.manifest.layers)
    assert {m.kind for m in library.images.manifests(mine.id)} == {"image", "attestation"}
    run_load(library, layout.archive())
    assert contents(library, "multi:1", OTHER) == {"a": "theirs"}
    delete_platforms(library.images, "multi:1", [HOST], users=lambda _image: [])
    assert {m.kind for m in library.images.manifests(mine.id)} == {"image"}
    assert library.images.resolve("multi:1").platform.architecture == OTHER.architecture


def test_remove_the_platform_of_an_image_for_one(library: Library) -> None:
    run_load(library, docker_archive(tree(a="1"), tags=["one"]))
    with pytest.raises(NotFound):
        delete_platforms(library.images, "one", [OTHER], users=lambda _image: [])
    removed = delete_platforms(library.images, "one", [HOST], users=lambda _image: [])
    assert [type(one) for one in removed] == [Untagged, Deleted]
    assert library.images.list() == []


def test_load_one_platform(overlay: Library) -> None:
    layout = Layout()
    layout.add(multi_platform(layout), oci.INDEX, name="docker.io/library/multi:1")
    run_load(overlay, layout.archive(), platforms=[OTHER])
    assert overlay.images.resolve("multi:1").platform.architecture == "s390x"
    before = overlay.state()
    with pytest.raises(NotFound, match="doesn't provide the requested platform"):
        run_load(overlay, layout.archive(), platforms=[Platform(os="linux", architecture="386")])
    assert overlay.state() == before


def test_save_a_repository_and_an_id(overlay: Library) -> None:
    run_load(overlay, docker_archive(tree(a="1"), tags=["app:1", "app:2"]))
    image = overlay.images.resolve("app:1")
    for refs, tags in ((["app"], ["app:1", "app:2"]), (["app:2"], ["app:2"]), ([image.id[:19]], None)):
        out = io.BytesIO()
        told: list[str] = []
        save(overlay.images, refs, out, saved=told.append)
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            listed = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert [entry["RepoTags"] for entry in listed] == [tags]
        assert told == [image.id]
    with pytest.raises(NotFound, match="No such image: absent:latest"):
        save(overlay.images, ["absent"], io.BytesIO())


def test_links_between_layers_of_old_archives(overlay: Library) -> None:
    layer = tree(a="1")
    made = config([layer, layer])
    listed = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["one/layer.tar", "two/layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (
            ("one/layer.tar", layer),
            ("c.json", made),
            ("manifest.json", json.dumps(listed).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("two/layer.tar")
        info.type, info.linkname = tarfile.SYMTYPE, "../one/layer.tar"
        tar.addfile(info)
    assert run_load(overlay, buffer.getvalue()) == ["app:1"]
    assert contents(overlay, "app:1") == {"a": "1"}


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_skopeo_reads_and_writes_the_same(library: Library, tmp_path: Path, form: str) -> None:
    run_load(library, docker_archive(tree(a="1", etc__b="2"), tree(a="3"), tags=["app:1"], Cmd=["x"]))
    saved, copied = tmp_path / "saved.tar", tmp_path / "copied.tar"
    with saved.open("wb") as out:
        save(library.images, ["app:1"], out)
    source = f"{form}:{saved}:" + ("app:1" if form == "docker-archive" else "1")
    subprocess.run(
        ["skopeo", "copy", "-q", source, f"{form}:{copied}:copy/app:2"], check=True, capture_output=True
    )
    second = open_library(tmp_path / "second")
    with copied.open("rb") as stream:
        load(second.images, second.unpacker, stream)
    assert contents(second, "copy/app:2") == {"a": "3", "etc/b": "2"}
    assert second.images.resolve("copy/app:2").config.config.cmd == ["x"]
    second.layers.close()


# what is refused, and that nothing of it stays


def _bad_digest(layout: Layout) -> None:
    layer = tree(a="1")
    layout.add(layout.manifest([layer]), name="bad:1")
    layout.blobs[digests.of(layer)] = tree(a="2")


def _missing_layer(layout: Layout) -> None:
    layer = tree(a="1")
    layout.add(layout.manifest([layer]), name="bad:1")
    del layout.blobs[digests.of(layer)]


def _missing_config(layout: Layout) -> None:
    layout.add(layout.manifest([tree(a="1")]), name="bad:1")
    del layout.blobs[digests.of(config([tree(a="1")]))]


def _missing_manifest(layout: Layout) -> None:
    manifest = layout.manifest([tree(a="1")])
    layout.add(manifest, name="bad:1")
    del layout.blobs[digests.of(manifest)]


def _wrong_diff_id(layout: Layout) -> None:
    layout.add(layout.manifest([tree(a="1")], diff_ids=[digests.of(b"other")]), name="bad:1")


def _wrong_count(layout: Layout) -> None:
    layout.add(layout.manifest([tree(a="1")], diff_ids=[digests.of(tree(a="1"))] * 2), name="bad:1")


def _wrong_size(layout: Layout) -> None:
    manifest = layout.manifest([tree(a="1")])
    layout.entries.append({**descriptor(manifest, oci.MANIFEST), "size": 5})


def _hostile_layer(layout: Layout) -> None:
    layout.add(layout.manifest([tree(ok="1"), pack([("../../evil", b"x")])]), name="bad:1")


def _confused(layout: Layout) -> None:
    raw = json.loads(layout.manifest([tree(a="1")]))
    layout.add(layout.blob(json.dumps({**raw, "manifests": []}).encode()), name="bad:1")


def _confused_index(layout: Layout) -> None:
    raw = json.loads(layout.manifest([tree(a="1")]))
    raw.pop("mediaType")
    layout.add(layout.blob(json.dumps(raw).encode()), oci.INDEX, name="bad:1")


def _other_type(layout: Layout) -> None:
    layout.add(layout.manifest([tree(a="1")]), oci.DOCKER_MANIFEST, name="bad:1")


def _twice(layout: Layout) -> None:
    data = layout.manifest([tree(a="1")])
    layout.add(layout.blob(data[:-1] + b', "layers": []}'), name="bad:1")


def _deep(layout: Layout) -> None:
    layout.add(layout.blob(b'{"schemaVersion": 2, "config": ' + b"[" * 100_000), name="bad:1")


def _digest_with_a_slash(layout: Layout) -> None:
    layout.entries.append({"mediaType": oci.MANIFEST, "digest": "sha256:../../../etc/passwd", "size": 1})


def _nothing(layout: Layout) -> None:
    return


@pytest.mark.parametrize(
    "spoil",
    [
        *(_bad_digest, _missing_layer, _missing_config, _missing_manifest, _wrong_count),
        *(_wrong_size, _confused, _confused_index, _other_type, _twice, _deep),
        *(_digest_with_a_slash, _nothing),
    ],
)
def test_a_bad_layout_is_refused_and_leaves_nothing(
    library: Library, spoil: Callable[[Layout], None]
) -> None:
    run_load(library, docker_archive(tree(kept="1"), tags=["kept"]))
    before = library.state()
    layout = Layout()
    spoil(layout)
    with pytest.raises(InvalidArgument):
        run_load(library, layout.archive())
    assert library.state() == before
    assert contents(library, "kept") == {"kept": "1"}


def test_a_damaged_blob_ends_the_archive(library: Library) -> None:
    """What was written is no archive, and the caller hears of it before the end of the blob."""
    run_load(library, docker_archive(tree(a="1" * 5000), tags=["one"]))
    (layer,) = library.images.resolve("one").manifest.layers
    path = library.content.path(layer.digest)
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    for spoilt in (bytes(data), bytes(data[:-1]), bytes(data) + b"x"):
        path.write_bytes(spoilt)
        out = io.BytesIO()
        if len(spoilt) == len(data):
            with pytest.raises(Internal, match=f"content {layer.digest} is damaged: its file has the digest"):
                save(library.images, ["one"], out)
            assert spoilt not in out.getvalue()
        else:
            assert not library.content.has(layer.digest)


@pytest.mark.parametrize("what", ["blob", "layer", "layer below", "config", "manifest"])
def test_loading_again_repairs(library: Library, what: str) -> None:
    layers = [tree(a="1"), tree(b="2")]
    data = docker_archive(*layers, tags=["one"])
    run_load(library, data)
    image = library.images.resolve("one")
    if what.startswith("layer"):
        chain = image.chain_ids[1 if what == "layer" else 0]
        shutil.rmtree(library.snapshotter.directories(chain)[0].parent)
    else:
        digest = {
            "blob": image.manifest.layers[0].digest,
            "config": image.config_descriptor.digest,
            "manifest": image.manifest_descriptor.digest,
        }[what]
        library.content.path(digest).unlink()
    run_load(library, data)
    assert contents(library, "one") == {"a": "1", "b": "2"}
    assert library.snapshotter.problems() == {}
    assert all(not library.content.problem(row.digest) for row in library.content.walk())
    assert library.content.strays(take_up=False) == []
    assert library.images.is_whole(library.images.resolve("one"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense" * 1000,
        pack([("hello", b"world")]),
        pack([("manifest.json", b"{}")]),
        pack([("manifest.json", b'[{"Config": "../../etc/passwd", "Layers": []}]')]),
        pack([("manifest.json", b'[{"Config": "c", "Layers": ["l"]}]'), ("c", config([b"x"]))]),
        pack([("index.json", b"[]")]),
        docker_archive(tree(a="1" * 5000), tags=["x"])[:-3000],
        gzip.compress(docker_archive(tree(a="1"), tags=["x"]))[:-40],
    ],
)
def test_rubbish_is_refused_and_leaves_nothing(overlay: Library, data: bytes) -> None:
    before = overlay.state()
    with pytest.raises(InvalidArgument):
        run_load(overlay, data)
    assert overlay.state() == before


def test_a_compressed_bomb_is_refused(tmp_path: Path) -> None:
    small = open_library(
        tmp_path / "root", limits=TarLimits(unpacked_floor=1 << 20, ratio=2, unpacked_max=4 << 20)
    )
    before = small.state()
    with pytest.raises(InvalidArgument):
        run_load(small, gzip.compress(docker_archive(tree(a="0" * (8 << 20)), tags=["bomb"])))
    layout = Layout()
    plain = tree(a="0" * (3 << 20))
    layout.add(
        layout.manifest([gzip.compress(plain)], plain=[plain], layer_type=oci.LAYER_GZIP), name="bomb:1"
    )
    assert small.state() == before
    said: list[dict[str, object]] = []
    run_load(small, layout.archive(), progress=said.append)
    assert any("unpacks to more than" in str(line.get("stream")) for line in said), said
    assert small.snapshotter.walk() == []
    small.layers.close()


@pytest.mark.parametrize("spoil", [_wrong_diff_id, _hostile_layer])
def test_what_cannot_be_unpacked_is_loaded_all_the_same(
    library: Library, spoil: Callable[[Layout], None]
) -> None:
    layout = Layout()
    spoil(layout)
    said: list[dict[str, object]] = []
    run_load(library, layout.archive(), progress=said.append)
    warning = next(str(line["stream"]) for line in said if "stream" in line)
    assert warning.startswith("WARNING: the image cannot be run: cannot unpack layer"), warning
    (image,) = library.images.list()
    assert {one.kind for one in library.snapshotter.walk()} <= {"committed"}, "nothing of it is left over"
    with pytest.raises(InvalidArgument, match="cannot unpack layer"):
        library.images.ensure_unpacked(library.images.resolve(image.id))


def test_documents_that_leave_things_out(library: Library) -> None:
    """As other tools write them, and old Dockers did."""
    layer = tree(a="1")
    layout = Layout()
    made = layout.blob(
        json.dumps(
            {
                "rootfs": {"type": "layers", "diff_ids": [digests.of(layer)]},
                "config": {"ExposedPorts": {"80/tcp": None}, "Volumes": {"/v": None}, "Cmd": "run"},
            }
        ).encode()
    )
    raw = {
        "config": descriptor(made, oci.CONFIG),
        "layers": [descriptor(layout.blob(gzip.compress(layer) + b"trailing"), oci.LAYER_GZIP)],
    }
    for number, version in enumerate(({}, {"schemaVersion": 0}, {"schemaVersion": 2, "mediaType": None})):
        layout.add(layout.blob(json.dumps({**version, **raw}).encode()), name=f"left-out:{number}")
        layout.entries[-1].pop("mediaType") if number == 0 else None
    run_load(library, layout.archive())
    for number in range(3):
        image = library.images.resolve(f"left-out:{number}")
        assert image.config.platform == oci.host()
        assert image.config.config.exposed_ports == {"80/tcp": {}}
        assert image.config.config.volumes == {"/v": {}} and image.config.config.cmd == ["run"]
        assert contents(library, f"left-out:{number}") == {"a": "1"}


def test_an_index_without_the_layouts_mark(overlay: Library) -> None:
    layer = tree(a="1")
    files = [
        ("index.json", b'{"schemaVersion": 2, "manifests": []}'),
        ("manifest.json", b'[{"Config": "c", "RepoTags": ["both:1"], "Layers": ["l"]}]'),
        ("c", config([layer])),
        ("l", layer),
    ]
    run_load(overlay, pack(files))
    assert contents(overlay, "both:1") == {"a": "1"}
    layout = Layout()
    layout.add(layout.manifest([layer]), name="alone:1")
    index = json.dumps({"mediaType": oci.DOCKER_LIST, "schemaVersion": 2, "manifests": layout.entries})
    blobs = [(f"blobs/sha256/{digests.hex_of(d)}", data) for d, data in layout.blobs.items()]
    run_load(overlay, pack([*blobs, ("index.json", index.encode())]))
    assert contents(overlay, "alone:1") == {"a": "1"}


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    syscalls.mount("none", str(disk), "tmpfs", 0, "size=6m")
    try:
        library = open_library(disk / "root")
        before = library.state()
        with pytest.raises(WherryError, match="no space left on device"):
            run_load(library, docker_archive(tree(a="1" * (4 << 20)), tags=["big"]))
        after = library.state()
        assert after == before
        run_load(library, docker_archive(tree(a="1"), tags=["small"]))
        library.layers.close()
        library.db.close()
    finally:
        syscalls.umount(str(disk), syscalls.MNT_DETACH)


def test_names_that_are_none_are_left_out(overlay: Library) -> None:
    run_load(overlay, docker_archive(tree(a="1"), tags=["UPPER:1", "x@sha256:" + "0" * 64, "fine:1"]))
    assert [name for name, _ in overlay.images.rows.names()] == ["docker.io/library/fine:1"]


def test_loads_at_the_same_time_and_collections_beside_them(overlay: Library) -> None:
    base = tree(base="1" * 10_000)
    archives = [docker_archive(base, tree(own=str(n)), tags=[f"app:{n}"]) for n in range(6)] * 2
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(data: bytes) -> None:
        try:
            run_load(overlay, data)
        except BaseException as e:
            failures.append(e)

    def collect() -> None:
        while not stop.is_set():
            overlay.collector.collect()

    collecting = threading.Thread(target=collect)
    collecting.start()
    threads = [threading.Thread(target=work, args=(data,)) for data in archives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    collecting.join()
    assert failures == []
    for number in range(6):
        assert contents(overlay, f"app:{number}") == {"base": "1" * 10_000, "own": str(number)}
    assert len(overlay.snapshotter.walk()) == 7
    assert overlay.state()["ingest"] == []


def test_a_stream_that_only_reads(overlay: Library) -> None:
    reading, writing = os.pipe()
    data = docker_archive(tree(a="1" * 300_000), tags=["piped"])

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(reading, "rb") as stream:
        load(overlay.images, overlay.unpacker, stream)
    feeder.join()
    assert overlay.images.resolve("piped").names == (reference.parse("piped:latest"),)
