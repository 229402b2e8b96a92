"""Volumes to a real registry and back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from daemonlab import LabDaemon
from registrylab import LabRegistry, registry

from wherry.engine.volumes.registry import ARTIFACT

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("registry")]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabRegistry]:
    with registry() as made:
        yield made


def test_there_and_back(daemon: LabDaemon, lab: LabRegistry, name: str) -> None:
    where = f"{lab.host}/volumes/{name}:1"
    daemon.docker("volume", "create", "--label", "a=b", name).ok()
    fill = "echo one >/v/f; chown 7:8 /v/f; chmod 640 /v/f; ln -s f /v/l; mkdir /v/d; echo old >/v/d/x"
    daemon.docker("run", "--rm", "-v", f"{name}:/v", "busybox", "sh", "-c", fill).ok()
    daemon.wherry("volume", "snapshot", "create", name, "s").ok()
    daemon.docker("run", "--rm", "-v", f"{name}:/v", "busybox", "sh", "-c", "echo new >/v/d/x").ok()
    pushed = daemon.wherry("volume", "push", name, where).ok()
    assert "1: digest: sha256:" in pushed
    manifest = json.loads(lab.get(f"/v2/volumes/{name}/manifests/1")[1])
    assert manifest["artifactType"] == ARTIFACT and len(manifest["layers"]) == 1
    # The same data have the same digest.
    assert daemon.wherry("volume", "push", name, where).ok().split()[-4:] == pushed.split()[-4:]
    daemon.wherry("volume", "push", "--snapshot", "s", name, f"{where}-s").ok()

    taken = daemon.wherry("volume", "pull", where)
    assert taken.code == 1 and f"cannot pull volume {name}: there is such a volume already" in taken.errors
    for source, copy, said in ((where, f"{name}-2", "new"), (f"{where}-s", f"{name}-3", "old")):
        assert daemon.wherry("volume", "pull", source, copy).ok().split()[-1] == copy
        look = "cat /v/f /v/d/x; stat -c '%u:%g %a' /v/f; readlink /v/l"
        seen = daemon.docker("run", "--rm", "-v", f"{copy}:/v", "busybox", "sh", "-c", look).ok()
        assert seen.split() == ["one", said, "7:8", "640", "f"]
        assert daemon.api("GET", f"/volumes/{copy}").json["Labels"] == {"a": "b"}
    daemon.docker("volume", "rm", name).ok()
    assert daemon.wherry("volume", "pull", "-q", where).ok().split()[-1] == name
    daemon.docker("volume", "rm", name, f"{name}-2", f"{name}-3").ok()
    assert {"push", "pull"} <= set(daemon.actions(type=["volume"]))


def test_what_is_no_volume(daemon: LabDaemon, lab: LabRegistry, name: str) -> None:
    where = f"{lab.host}/images/{name}:1"
    daemon.docker("tag", "busybox", where).ok()
    daemon.docker("push", where).ok()
    image = daemon.wherry("volume", "pull", where, name)
    assert image.code == 1 and "it is not a volume, but" in image.errors
    missing = daemon.wherry("volume", "pull", f"{lab.host}/images/{name}:2", name)
    assert missing.code == 1 and "not found" in missing.errors
    none = daemon.wherry("volume", "push", name, where)
    assert none.code == 1 and "no such volume" in none.errors
    assert name not in daemon.volumes()
    # A volume is no image either.
    daemon.docker("volume", "create", name).ok()
    daemon.wherry("volume", "push", name, f"{where}-v").ok()
    assert "it is not an image" in daemon.docker("pull", f"{where}-v").errors
    daemon.docker("volume", "rm", name).ok()
