"""One platform of an image for several, as the API has it: removed, saved, loaded, looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from daemonlab import LabDaemon

from wherry.model import oci

pytestmark = pytest.mark.kernel
ARM, MINE = "linux/arm64", f"linux/{oci.host().architecture}"
OTHER = {"os": "linux", "architecture": "arm64"}


def build(daemon: LabDaemon, directory: Path, name: str) -> None:
    (directory / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n")
    (directory / "file").write_text("x")
    done = daemon.wherry("build", "--platform", f"{MINE},{ARM}", "-t", name, str(directory))
    assert done.code == 0, done.errors


def here(daemon: LabDaemon, name: str) -> set[str]:
    """The platforms of an image that are here whole."""
    found = daemon.api("GET", f"/images/{name}/json", manifests=1).json["Manifests"]
    whole = [m for m in found if m["Kind"] == "image" and m["Available"]]
    return {m["ImageData"]["Platform"]["architecture"] for m in whole}


def asked(daemon: LabDaemon, method: str, path: str, platform: Any, key: str = "platform") -> Any:
    return daemon.api(method, path, **{key: json.dumps(platform)})


def test_one_platform_goes(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    build(daemon, tmp_path, name)
    both = {oci.host().architecture, "arm64"}
    assert here(daemon, name) == both
    refused = daemon.docker("image", "rm", "--platform", "linux/s390x", name)
    assert refused.code == 1 and "does not provide the specified platform (linux/s390x)" in refused.errors
    archive = tmp_path / "saved.tar"
    daemon.docker("save", "-o", str(archive), name).ok()
    daemon.docker("image", "rm", "--platform", ARM, name).ok()
    assert here(daemon, name) == both - {"arm64"}
    assert f"{name}:latest" in daemon.tags()
    assert daemon.docker("image", "inspect", "--platform", MINE, name).code == 0
    assert daemon.docker("image", "inspect", "--platform", ARM, name).code == 1
    daemon.docker("load", "-i", str(archive)).ok()
    assert here(daemon, name) == both
    daemon.wherry("image", "rm", "--platform", MINE, name).ok()
    assert here(daemon, name) == {"arm64"}
    daemon.docker("image", "rm", name).ok()


def test_several_at_once_and_what_a_container_uses(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    build(daemon, tmp_path, name)
    daemon.docker("create", "--name", name, name, "/none").ok()
    kept = asked(daemon, "DELETE", f"/images/{name}", {"os": "linux", "architecture": MINE[6:]}, "platforms")
    assert kept.status == 409 and "must be forced" in kept.message
    mine = json.dumps({"os": "linux", "architecture": MINE[6:]})
    query = urlencode([("platforms", mine), ("platforms", json.dumps(OTHER)), ("force", "1")])
    answer = daemon.api("DELETE", f"/images/{name}?{query}")
    assert answer.status == 200, answer.body
    assert len(answer.json) == 2 and all(set(one) == {"Deleted"} for one in answer.json)
    daemon.docker("rm", name).ok()
    daemon.docker("image", "rm", name).ok()


def test_platforms_that_are_none(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    build(daemon, tmp_path, name)
    for path, key in ((f"/images/{name}/json", "platform"), (f"/images/{name}/history", "platform")):
        assert asked(daemon, "GET", path, OTHER, key).status == 200
        half = asked(daemon, "GET", path, {"architecture": "arm64"}, key)
        assert (half.status, half.message) == (400, "both OS and Architecture must be provided")
        assert daemon.api("GET", path, **{key: "{"}).status == 400
        unknown = asked(daemon, "GET", path, {"os": "linux", "architecture": "s390x"}, key)
        assert unknown.status == 404, unknown.body
    both = daemon.api("GET", f"/images/{name}/json", platform=json.dumps(OTHER), manifests=1)
    assert (both.status, both.message) == (
        400,
        "conflicting options: manifests and platform options cannot both be set",
    )
    daemon.docker("image", "rm", name).ok()


def test_what_is_mounted_is_in_use(daemon: LabDaemon, name: str) -> None:
    """Also without being the image that a container was made from."""
    daemon.docker("run", "--name", f"{name}-c", "busybox", "touch", "/f").ok()
    daemon.docker("commit", f"{name}-c", f"{name}:1").ok()
    daemon.docker("rm", f"{name}-c").ok()
    mount = f"type=image,source={name}:1,target=/m"
    daemon.docker("run", "-d", "--name", name, "--mount", mount, "busybox", "sleep", "1000").ok()
    identifier = daemon.api("GET", f"/containers/{name}/json").json["Id"]
    plain = daemon.docker("rmi", f"{name}:1")
    assert plain.code == 1
    assert f"(must be forced) - container {identifier[:12]} is using its referenced image" in plain.errors
    image = daemon.api("GET", f"/images/{name}:1/json").json["Id"]
    by_id = daemon.docker("rmi", "-f", image)
    assert by_id.code == 1 and f"image is being used by running container {identifier[:12]}" in by_id.errors
    daemon.docker("kill", name).ok()
    daemon.docker("wait", name).ok()
    stopped = daemon.docker("rmi", image)
    assert stopped.code == 1 and "(must be forced)" in stopped.errors
    pruned = daemon.api("POST", "/images/prune", filters={"dangling": ["false"]})
    assert pruned.status == 200 and image not in str(pruned.json)
    assert daemon.docker("image", "inspect", image).code == 0
    daemon.docker("rm", name).ok()
    daemon.docker("rmi", f"{name}:1").ok()
