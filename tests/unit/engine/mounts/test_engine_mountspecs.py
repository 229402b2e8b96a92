from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.mounts import specs
from wherry.errors import InvalidArgument
from wherry.model.container import BindOptions, HostConfig, MountSpec, TmpfsOptions, VolumeOptions


@pytest.mark.parametrize(
    ("text", "kind", "source", "destination", "writable"),
    [
        ("/a:/b", "bind", "/a", "/b", True),
        ("/a/../c:/b/:ro", "bind", "/c", "/b", False),
        ("/a://b", "bind", "/a", "/b", True),
        ("name:/b", "volume", "name", "/b", True),
        ("name:/b:ro,nocopy", "volume", "name", "/b", False),
        ("/b", "volume", "", "/b", True),
    ],
)
def test_binds(text: str, kind: str, source: str, destination: str, writable: bool) -> None:
    point = specs.parse_bind(text)
    assert (point.type, point.source or point.name, point.destination, point.rw) == (
        kind,
        source,
        destination,
        writable,
    )
    assert point.anonymous is (kind == "volume" and not source)


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", ":/b", "a:b", "/a:b", "/a:/", "/a:/b:rw,ro", "/a:/b:odd", "a:/b:shared", "/a:/b:nocopy",
     "/a:/b:ro:x", "/a:/b/..", "b/"],
)  # fmt: skip
def test_bad_binds(text: str) -> None:
    with pytest.raises(InvalidArgument):
        specs.parse_bind(text)


@given(st.text(alphabet="/a.:,ro", max_size=20))
def test_any_text_is_a_mount_below_the_root_or_refused(text: str) -> None:
    try:
        point = specs.parse_bind(text)
    except InvalidArgument:
        return
    assert point.destination.startswith("/") and point.destination != "/"
    assert ".." not in point.destination.split("/") and "//" not in point.destination


def test_a_destination_appears_once() -> None:
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /d"):
        specs.resolve(HostConfig(binds=["/a:/d"], tmpfs={"/d/": ""}), [], [])
    points = specs.resolve(HostConfig(binds=["/a:/d"]), ["/d", "/e"], ["/e"])
    assert [(p.destination, p.type) for p in points] == [("/d", "bind"), ("/e", "volume")]


def test_mount_specs() -> None:
    bind = MountSpec(
        type="bind", source="/", target="/x", read_only=True, bind_options=BindOptions(non_recursive=True)
    )
    volume = MountSpec(type="volume", source="v", target="/y", volume_options=VolumeOptions(no_copy=True))
    tmpfs = MountSpec(type="tmpfs", target="/z", tmpfs_options=TmpfsOptions(size_bytes=1024, mode=0o1770))
    points = specs.resolve(HostConfig(mounts=[bind, volume, tmpfs]), [], [])
    assert [p.type for p in points] == ["bind", "volume", "tmpfs"]
    assert (points[0].rw, points[0].recursive) == (False, False)
    assert (points[1].name, points[1].copy_up) == ("v", False)
    assert points[2].options == ["size=1024", "mode=1770"]


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (MountSpec(type="bind", source="/", target=""), InvalidArgument),
        (MountSpec(type="bind", source="x", target="/x"), InvalidArgument),
        (MountSpec(type="bind", source="/no/such/place", target="/x"), InvalidArgument),
        (MountSpec(type="tmpfs", source="/x", target="/x"), InvalidArgument),
        (MountSpec(type="odd", target="/x"), InvalidArgument),
        (MountSpec(type="volume", target="/x/.."), InvalidArgument),
        (MountSpec(type="image", target="/x"), InvalidArgument),
        (MountSpec(type="npipe", source="i", target="/x"), InvalidArgument),
        (MountSpec(type="volume", target="/x", volume_options=VolumeOptions(subpath="/s")), InvalidArgument),
        (
            MountSpec(type="volume", target="/x", volume_options=VolumeOptions(subpath="a/../s")),
            InvalidArgument,
        ),
    ],
)
def test_bad_specs(spec: MountSpec, error: type[Exception]) -> None:
    with pytest.raises(error):
        specs.resolve(HostConfig(mounts=[spec]), [], [])
