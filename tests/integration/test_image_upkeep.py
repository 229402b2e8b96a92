"""A store that looks after itself: discarded blobs that come back, fsck, and rules by which images go."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from buildlab import built
from daemonlab import TIMEOUT, LabDaemon, new_base, wait_until
from patience import patiently
from registrylab import LabRegistry, registry, seed, skopeo

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("registry")]


@pytest.fixture(scope="module")
def lab(shared_daemon: LabDaemon) -> Iterator[LabRegistry]:
    with registry() as made:
        seed(shared_daemon, made, "lib/bb:1")
        seed(shared_daemon, made, "lib/bb:2")
        yield made


@pytest.fixture
def own() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        yield daemon
    finally:
        daemon.destroy()


def configure(daemon: LabDaemon, **keys: object) -> None:
    (daemon.base / "daemon.json").write_text(json.dumps({k.replace("_", "-"): v for k, v in keys.items()}))


def fsck(daemon: LabDaemon, *flags: str) -> tuple[int, str]:
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from wherry.cli.main import entry; raise SystemExit(entry())"),
            *("system", "fsck", *flags),
        ],
        env={**daemon.environment, "WHERRY_HOST": f"unix://{daemon.socket}"},
        capture_output=True,
        text=True,
        timeout=patiently(TIMEOUT),
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def blobs(daemon: LabDaemon) -> set[str]:
    return {path.name for path in (daemon.root / "content/sha256").iterdir()}


def test_discarded_blobs_come_back_for_a_push_and_a_save(own: LabDaemon, lab: LabRegistry) -> None:
    configure(own, discard_blobs=True)
    own.start()
    where = f"{lab.host}/lib/bb:1"
    own.docker("pull", where).ok()
    assert len(blobs(own)) == 2  # manifest and configuration
    assert own.docker("run", "--rm", where, "echo", "there").ok() == "there"
    assert "up to date" in own.docker("pull", where).ok()
    assert len(blobs(own)) == 2
    target = f"{lab.host}/again/bb:1"
    own.docker("tag", where, target).ok()
    own.docker("push", target).ok()
    raw = [skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{one}") for one in (where, target)]
    assert raw[0] == raw[1]
    assert len(own.docker("save", where).raw) > 1000
    assert fsck(own) == (0, "Everything is as it should be\n")


def test_fsck_finds_and_mends(own: LabDaemon, lab: LabRegistry) -> None:
    own.start()
    where = f"{lab.host}/lib/bb:1"
    own.docker("pull", where).ok()
    assert fsck(own) == (0, "Everything is as it should be\n")
    content = own.root / "content/sha256"
    layer = max(content.iterdir(), key=lambda path: path.stat().st_size)
    layer.write_bytes(b"x" + layer.read_bytes()[1:])
    (content / ("f" * 64)).write_bytes(b"stray")
    (programs,) = (own.root / "snapshots/overlay").glob("*/fs/bin")
    shutil.rmtree(programs)
    code, text = fsck(own)
    assert code == 1
    assert f"blob sha256:{layer.name}: its file has the digest" in text
    assert "no row knows it" in text
    assert "files, not" in text
    code, text = fsck(own, "--repair")
    assert code == 0, text
    assert f"fetched again from {lab.host}/lib/bb" in text
    assert "unpacked again" in text
    assert fsck(own) == (0, "Everything is as it should be\n")
    assert own.docker("run", "--rm", where, "echo", "well").ok() == "well"


def test_what_cannot_be_had_again_is_dropped_and_what_is_used_is_not(
    own: LabDaemon, lab: LabRegistry, name: str
) -> None:
    own.start()
    where = f"{lab.host}/lib/bb:1"
    own.docker("pull", where).ok()
    own.docker("create", "--name", name, where).ok()
    own.docker("commit", name, "lost").ok()
    lost = json.loads(own.docker("image", "inspect", "lost").ok())[0]["Id"]
    (own.root / "content/sha256" / lost.removeprefix("sha256:")).unlink()
    (programs,) = (own.root / "snapshots/overlay").glob("*/fs/bin")
    shutil.rmtree(programs)
    code, text = fsck(own, "--repair")
    assert code == 1
    assert "dropped, as no registry is known to have it" in text
    assert "its documents are not here (docker.io/library/lost:latest): dropped" in text
    assert "uses it" in text
    assert own.tags() == {where}


def test_images_go_by_the_rules(own: LabDaemon, lab: LabRegistry, name: str) -> None:
    own.start()
    for tag in ("1", "2"):
        own.docker("pull", f"{lab.host}/lib/bb:{tag}").ok()
    own.docker("create", "--name", name, f"{lab.host}/lib/bb:1").ok()
    configure(own, image_policy={"max-size": "1MB", "every": 3600})
    own.restart()
    wait_until(lambda: own.tags() == {f"{lab.host}/lib/bb:1"}, "the image nobody uses went")


def test_what_is_on_disk_adds_up(own: LabDaemon, lab: LabRegistry, name: str) -> None:
    own.start()
    where = f"{lab.host}/lib/bb:1"
    own.docker("pull", where).ok()
    own.docker(
        "run", "--name", name, "-v", "/v", where, "sh", "-c", "yes | head -c 5000000 | tee /v/a > /b"
    ).ok()

    def parts_and_du() -> tuple[dict[str, int], int, int]:
        found = own.api("GET", "/system/disk").json
        done = subprocess.run(
            ["du", "-s", "--block-size=1", own.root], capture_output=True, text=True, check=True
        )
        return {p["What"]: p["Size"] for p in found["Parts"]}, found["Total"], int(done.stdout.split()[0])

    # The daemon writes a row now and then.
    wait_until(lambda: (sizes := parts_and_du())[1] == sizes[2], "the sum is what du says")
    parts, total, _ = parts_and_du()
    assert sum(parts.values()) == total
    assert parts["containers' changes"] > 5_000_000 < parts["volumes"]
    assert parts["blobs"] > 500_000 < parts["layers"]
    assert parts["unfinished downloads"] < 100_000


def test_what_was_built_is_packed_when_somebody_wants_it(
    own: LabDaemon, lab: LabRegistry, tmp_path: Path
) -> None:
    """A build's layers lie there once, as files; a push, a save and a backup make the archive of them."""
    own.start()
    own.bootstrap()
    data = os.urandom(1 << 20)
    (tmp_path / "data").write_bytes(data)
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nCOPY data /data\nRUN rm -r /bin/ash /home; mkdir /new\n"
    )
    before = blobs(own)
    name = f"{lab.host}/own/built:1"
    built(own, tmp_path, "-t", name)
    new = blobs(own) - before
    assert len(new) == 2 and all((own.root / "content/sha256" / one).stat().st_size < 8192 for one in new)
    image = json.loads(own.docker("image", "inspect", name).ok())[0]

    with tarfile.open(fileobj=io.BytesIO(own.docker("save", name).raw)) as saved:
        assert max(member.size for member in saved) > 1 << 20
    own.docker("push", name).ok()
    raw = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    assert raw == json.loads((own.root / "content/sha256" / image["Id"].removeprefix("sha256:")).read_text())
    assert "up to date" in own.docker("pull", name).ok()

    other = LabDaemon(new_base())
    try:
        other.start()
        other.docker("pull", name).ok()
        assert json.loads(other.docker("image", "inspect", name).ok())[0]["Id"] == image["Id"]
        assert other.docker("run", "--rm", name, "cat", "/data").raw == data
        assert other.docker("run", "--rm", name, "ls", "/new", "/home").code == 1
    finally:
        other.destroy()

    assert fsck(own) == (0, "Everything is as it should be\n")


def test_files_of_a_layer_that_changed_are_found(own: LabDaemon, tmp_path: Path) -> None:
    own.start()
    own.bootstrap()
    (tmp_path / "data").write_bytes(b"as it was")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY data /data\n")
    built(own, tmp_path, "-t", "mine")
    assert fsck(own) == (0, "Everything is as it should be\n")
    (copied,) = (own.root / "snapshots/overlay").glob("*/fs/data")
    status = copied.stat()
    copied.write_bytes(b"as it is!")
    os.utime(copied, ns=(status.st_atime_ns, status.st_mtime_ns))
    code, text = fsck(own, "--repair")
    assert code == 1 and "are not what they were (docker.io/library/mine:latest)" in text
    assert "not repaired: build or load it again" in text
    done = own.docker("save", "mine")
    assert done.code == 1 and "is not here any more and cannot be fetched again" in done.errors
