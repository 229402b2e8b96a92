"""Bytes that the disk changed or lost: nothing damaged is sent for whole, and what comes again mends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base
from registrylab import LabRegistry, registry

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("registry")]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabRegistry]:
    with registry() as made:
        yield made


@pytest.fixture
def own() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


def layers_of(daemon: LabDaemon, image: str) -> list[Path]:
    target = json.loads(daemon.docker("image", "inspect", image).ok())[0]["Id"]
    document = json.loads((daemon.root / "content/sha256" / target.removeprefix("sha256:")).read_bytes())
    return [
        daemon.root / "content/sha256" / layer["digest"].removeprefix("sha256:")
        for layer in document["layers"]
    ]


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize("size", ["1m", "9m"])
def test_what_is_sent_is_what_it_is_called(own: LabDaemon, lab: LabRegistry, size: str) -> None:
    own.docker("run", "--name", "cc", "busybox", "sh", "-c", f"head -c {size} /dev/urandom > /f").ok()
    own.docker("commit", "cc", f"{lab.host}/a/b:{size}").ok()
    *_, layer = layers_of(own, f"{lab.host}/a/b:{size}")
    flip(layer)
    saved = own.docker("save", "-o", str(own.base / "saved.tar"), f"{lab.host}/a/b:{size}")
    assert saved.code == 1
    pushed = own.docker("push", f"{lab.host}/a/b:{size}")
    assert pushed.code == 1 and "is damaged" in pushed.errors, pushed.errors
    assert own.docker("manifest", "inspect", "--insecure", f"{lab.host}/a/b:{size}").code == 1
    flip(layer)
    own.docker("save", "-o", str(own.base / "saved.tar"), f"{lab.host}/a/b:{size}").ok()
    own.docker("push", f"{lab.host}/a/b:{size}").ok()


def test_load_and_pull_bring_back_what_is_missing(own: LabDaemon, lab: LabRegistry) -> None:
    name = f"{lab.host}/a/b:1"
    own.docker("tag", "busybox", name).ok()
    own.docker("push", name).ok()
    archive = own.base / "saved.tar"
    own.docker("save", "-o", str(archive), name).ok()
    for command in (("load", "-i", str(archive)), ("pull", name)):
        (blob,) = layers_of(own, name)
        for directory in (own.root / "snapshots/overlay").iterdir():
            shutil.rmtree(directory)
        blob.unlink()
        own.docker(*command).ok()
        assert own.docker("run", "--rm", name, "echo", "well").ok() == "well"
        assert own.wherry("system", "fsck").code == 0


def test_a_run_unpacks_what_is_missing(own: LabDaemon) -> None:
    own.docker("run", "--name", "cc", "busybox", "touch", "/f").ok()
    own.docker("commit", "cc", "two").ok()
    lower = next(d for d in (own.root / "snapshots/overlay").iterdir() if (d / "fs/bin").exists())
    shutil.rmtree(lower)
    assert own.docker("run", "--rm", "two", "ls", "/f").ok() == "/f"
