"""Pulls from a real registry: by tag and digest, all tags, once for all, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from daemonlab import LabDaemon
from registrylab import LabRegistry, registry, seed

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("registry")]


@pytest.fixture(scope="module")
def lab(shared_daemon: LabDaemon) -> Iterator[LabRegistry]:
    with registry() as made:
        seed(shared_daemon, made, "lib/bb:1")
        seed(shared_daemon, made, "lib/bb:two")
        yield made


def test_pull_by_tag_and_again(daemon: LabDaemon, lab: LabRegistry) -> None:
    where = f"{lab.host}/lib/bb:1"
    first = daemon.docker("pull", where).ok().splitlines()
    assert first[0] == "1: Pulling from lib/bb"
    assert first[-2] == f"Status: Downloaded newer image for {where}"
    assert first[-1] == where
    assert any(line.startswith("Digest: sha256:") for line in first)
    again = daemon.docker("pull", where).ok().splitlines()
    assert again[-2] == f"Status: Image is up to date for {where}"
    assert daemon.docker("run", "--rm", where, "echo", "there").ok() == "there"


def test_where_an_image_came_from(daemon: LabDaemon, lab: LabRegistry, name: str) -> None:
    """It cannot be changed by another name (API 1.53; lists from 1.54 on)."""
    daemon.docker("pull", f"{lab.host}/lib/bb:1").ok()
    daemon.docker("tag", f"{lab.host}/lib/bb:1", name).ok()
    pulled = {"Pull": [{"Repository": f"{lab.host}/lib/bb"}]}
    for version, identity in ((52, None), (53, pulled), (56, pulled)):
        assert daemon.api("GET", f"/v1.{version}/images/{name}/json").json.get("Identity") == identity
    assert "Identity" not in daemon.api("GET", "/images/busybox/json").json

    def listed(version: int, query: str) -> object:
        images = daemon.api("GET", f"/v1.{version}/images/json?manifests=1{query}").json
        one = next(i for i in images if f"{name}:latest" in (i["RepoTags"] or ()))
        return one["Manifests"][0]["ImageData"].get("Identity")

    assert (listed(54, "&identity=1"), listed(54, ""), listed(53, "&identity=1")) == (pulled, None, None)
    daemon.docker("rmi", name).ok()


def test_layers_are_told_of_as_docker_does(daemon: LabDaemon, lab: LabRegistry) -> None:
    answer = daemon.api("POST", "/images/create", fromImage=f"{lab.host}/lib/bb", tag="1")
    assert answer.status == 200
    told = [(line["id"], line["status"]) for line in answer.lines if len(line.get("id", "")) == 12]
    assert told[0][1] == told[1][1] == "Pulling fs layer"
    assert [status for layer, status in dict.fromkeys(told) if layer == told[1][0]] == [
        "Pulling fs layer",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Pull complete",
    ]
    numbers = [line["progressDetail"] for line in answer.lines if line.get("status") == "Downloading"]
    assert numbers[-1]["current"] == numbers[-1]["total"] > 0


def test_pull_by_digest(daemon: LabDaemon, lab: LabRegistry) -> None:
    status, _, headers = lab.get("/v2/lib/bb/manifests/1")
    assert status == 200
    where = f"{lab.host}/lib/bb@{headers['Docker-Content-Digest']}"
    daemon.docker("pull", where).ok()
    shown = daemon.api("GET", f"/images/{where}/json").json
    assert shown["RepoDigests"] == [where]
    assert shown["RepoTags"] == []
    daemon.docker("rmi", where).ok()
    assert daemon.api("GET", f"/images/{where}/json").status == 404


def test_pull_all_tags(daemon: LabDaemon, lab: LabRegistry) -> None:
    daemon.docker("pull", "--all-tags", f"{lab.host}/lib/bb").ok()
    assert {f"{lab.host}/lib/bb:1", f"{lab.host}/lib/bb:two"} <= daemon.tags()


def test_run_pulls_what_is_missing(daemon: LabDaemon, lab: LabRegistry) -> None:
    done = daemon.docker("run", "--rm", f"{lab.host}/lib/bb:two", "echo", "fetched")
    assert done.ok() == "fetched"
    assert f"Unable to find image '{lab.host}/lib/bb:two' locally" in done.errors


def test_what_is_not_there(daemon: LabDaemon, lab: LabRegistry) -> None:
    done = daemon.docker("pull", f"{lab.host}/lib/bb:none")
    assert done.code == 1
    assert f"manifest for {lab.host}/lib/bb:none not found: manifest unknown" in done.errors
    assert daemon.api("POST", "/images/create", fromImage=f"{lab.host}/lib/bb", tag="none").status == 404
    with daemon.sdk() as client:
        from docker.errors import NotFound

        with pytest.raises(NotFound):
            client.images.pull(f"{lab.host}/lib/bb", tag="none")


def test_another_platform_is_said_to_be_missing(daemon: LabDaemon, lab: LabRegistry) -> None:
    done = daemon.docker("pull", "--platform", "linux/s390x", f"{lab.host}/lib/bb:1")
    assert done.code == 1
    assert "does not provide the specified platform (linux/s390x)" in done.errors


def test_nobody_there(daemon: LabDaemon) -> None:
    done = daemon.docker("pull", "127.0.0.1:9/x:1")
    assert done.code == 1
    assert "cannot pull 127.0.0.1:9/x:1: registry 127.0.0.1:9: connection refused" in done.errors
