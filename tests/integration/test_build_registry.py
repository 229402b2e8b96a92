"""Builds and a real registry: results and caches sent there and taken from there; what bounds a build."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buildlab import archive, build, built, error, post, stream, write
from daemonlab import LabDaemon
from registrylab import LabRegistry, registry, skopeo

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("registry")]

STATUS = """\
Package: hello
Status: install ok installed
Architecture: amd64
Version: 2.10-3

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""
METADATA = "Metadata-Version: 2.1\nName: left-pad\nVersion: 1.3.0\n"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabRegistry]:
    with registry() as made:
        yield made


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"file": "text"})


def test_push_and_caches_by_way_of_a_registry(
    daemon: LabDaemon, lab: LabRegistry, context: Path, name: str
) -> None:
    write(context, {"Dockerfile": f"FROM busybox\nRUN echo {name} >/made\nCOPY file /\n"})
    where = f"{lab.host}/built/{name}"
    done = build(
        daemon, context, "-t", f"{where}:1", "--push", "--cache-to", f"type=registry,ref={where}:cache"
    )
    assert done.code == 0, done.errors
    assert '"Architecture"' in skopeo("inspect", "--tls-verify=false", f"docker://{where}:1")
    first = daemon.docker("images", "-q", "--no-trunc", f"{where}:1").ok()
    # Nothing of it is here any more: what the cache saves comes from the registry.
    for image in {first, *daemon.docker("images", "-q", "--no-trunc", where).ok().split()}:
        daemon.docker("rmi", "-f", image)
    daemon.wherry("builder", "prune", "-af").ok()
    again = build(daemon, context, "-t", f"{where}:1", "--cache-from", f"type=registry,ref={where}:cache")
    assert again.code == 0, again.errors
    lines = (again.out + again.errors).splitlines()
    run = next(line.split()[0] for line in lines if "RUN echo" in line)
    assert f"{run} CACHED" in lines, lines
    missing = build(daemon, context, "--cache-from", f"type=registry,ref={lab.host}/none/{name}:cache")
    assert missing.code == 0, "a cache that is not there does not fail a build"


def _statements(daemon: LabDaemon, image: str) -> dict[str, Any]:
    """The in-toto predicates of an image's attestations, by type."""
    found = daemon.api("GET", f"/images/{image}/json?manifests=1").json["Manifests"]
    blobs = daemon.root / "content/sha256"
    predicates = {}
    for one in found:
        if one["Kind"] != "attestation":
            continue
        manifest = json.loads((blobs / one["ID"].removeprefix("sha256:")).read_text())
        for layer in manifest["layers"]:
            statement = json.loads((blobs / layer["digest"].removeprefix("sha256:")).read_text())
            predicates[statement["predicateType"]] = statement["predicate"]
    return predicates


def test_a_bill_of_materials_names_packages(daemon: LabDaemon, context: Path, name: str) -> None:
    files = {
        "root/var/lib/dpkg/status": STATUS,
        "root/usr/lib/python3/dist-packages/left_pad-1.3.0.dist-info/METADATA": METADATA,
        "Dockerfile": "FROM scratch\nARG TOKEN\nCOPY root /\n",
    }
    write(context, files)
    built(daemon, context, "--sbom=true", "--provenance=mode=max", "--build-arg", "TOKEN=hush", "-t", name)
    predicates = _statements(daemon, name)
    packages = predicates["https://spdx.dev/Document"]["packages"]
    versions = {p["name"]: p.get("versionInfo") for p in packages}
    assert versions.get("hello") == "2.10-3" and versions.get("left-pad") == "1.3.0"
    assert "gone" not in versions
    assert "https://slsa.dev/provenance/v1" in predicates


def test_only_some_stages_without_the_cache(daemon: LabDaemon, context: Path, name: str) -> None:
    text = f"FROM busybox AS one\nRUN echo {name} 1\nFROM busybox AS two\nRUN echo {name} 2\n"
    text += "COPY --from=one /bin /b\n"
    write(context, {"Dockerfile": text})
    built(daemon, context)
    lines = build(daemon, context, "--no-cache-filter", "two").errors.splitlines()
    steps = {line.split()[0]: line for line in lines if f"RUN echo {name}" in line}
    cached = {line.split()[0] for line in lines if line.endswith(" CACHED")}
    one = next(number for number, line in steps.items() if line.endswith("1"))
    two = next(number for number, line in steps.items() if line.endswith("2"))
    assert one in cached and two not in cached, lines


def test_limits_of_steps_and_their_cgroup(daemon: LabDaemon, context: Path, name: str) -> None:
    groups = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    text = f"FROM busybox\nRUN ulimit -n; cat {groups} 2>/dev/null; df -k /dev/shm\n"
    limits = {"memory": 64 << 20, "shmsize": 8 << 20, "ulimits": [{"Name": "nofile", "Soft": 99, "Hard": 99}]}
    parent = f"/{daemon.cgroup}-{name}"
    printed = stream(post(daemon, archive({"Dockerfile": text}), cgroupparent=parent, nocache=1, **limits))
    assert "\n99\n" in printed and str(64 << 20) in printed and " 8192 " in printed, printed
    # The steps' own groups are gone; the parent is whose name it is.
    left = [p for top in Path("/sys/fs/cgroup").glob(f"*{parent}") for p in top.iterdir() if p.is_dir()]
    left += [p for p in Path(f"/sys/fs/cgroup{parent}").glob("*") if p.is_dir()]
    assert left == []
    for top in (*Path("/sys/fs/cgroup").glob(f"*{parent}"), Path(f"/sys/fs/cgroup{parent}")):
        if top.is_dir():
            top.rmdir()
    killed = post(
        daemon,
        archive({"Dockerfile": "FROM busybox\nRUN tail /dev/zero\n"}),
        memory=16 << 20,
        memswap=16 << 20,
    )
    assert error(killed).startswith("The command '/bin/sh -c tail /dev/zero' returned a non-zero code: 137")


def test_attributes_that_cannot_be(daemon: LabDaemon, context: Path) -> None:
    write(context, {"Dockerfile": "FROM scratch\nCOPY file /\n"})
    for attribute in ("store=false", "force-compression=true", "oci-mediatypes=false"):
        refused = build(daemon, context, "--output", f"type=image,{attribute}")
        assert refused.code == 1 and attribute in refused.errors, refused.errors
