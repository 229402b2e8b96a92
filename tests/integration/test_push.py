"""Pushes to a real registry, read back by skopeo and pulled again; logins and searches."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from daemonlab import TIMEOUT, LabDaemon
from patience import patiently
from registrylab import LabRegistry, registry, skopeo

from wherry.model import oci

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("registry")]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabRegistry]:
    with registry() as made:
        yield made


def wherry(daemon: LabDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from wherry.cli.main import entry; raise SystemExit(entry())", *arguments],
        env={**daemon.environment, "WHERRY_HOST": f"unix://{daemon.socket}"},
        capture_output=True,
        text=True,
        timeout=patiently(TIMEOUT),
        check=False,
    )


def test_what_is_pushed_others_read_and_it_comes_back(daemon: LabDaemon, lab: LabRegistry, name: str) -> None:
    where = f"{lab.host}/team/{name}:1"
    daemon.docker("run", "--name", name, "busybox", "sh", "-c", "echo mine > /v").ok()
    daemon.docker("commit", name, where).ok()
    pushed = daemon.docker("push", where).ok()
    assert "digest: sha256:" in pushed
    assert '"Architecture"' in skopeo("inspect", "--tls-verify=false", f"docker://{where}")
    again = daemon.docker("push", where).ok()
    assert "Layer already exists" in again
    daemon.docker("rm", name).ok()
    daemon.docker("rmi", where).ok()
    assert daemon.docker("run", "--rm", where, "cat", "/v").ok() == "mine"


def test_all_tags(daemon: LabDaemon, lab: LabRegistry, name: str) -> None:
    for tag in ("a", "b"):
        daemon.docker("tag", "busybox", f"{lab.host}/all/{name}:{tag}").ok()
    daemon.docker("push", "-a", f"{lab.host}/all/{name}").ok()
    status, body, _ = lab.get(f"/v2/all/{name}/tags/list")
    assert status == 200
    assert b'"a"' in body and b'"b"' in body


def test_the_client_pulls_and_pushes(daemon: LabDaemon, lab: LabRegistry, name: str) -> None:
    where = f"{lab.host}/own/{name}:1"
    daemon.docker("tag", "busybox", where).ok()
    done = wherry(daemon, "push", where)
    assert done.returncode == 0, done.stderr
    daemon.docker("rmi", where).ok()
    done = wherry(daemon, "pull", where)
    assert done.returncode == 0, done.stderr
    assert wherry(daemon, "run", "--rm", where, "echo", "there").stdout == "there\n"


def test_what_cannot_be_pushed(daemon: LabDaemon, lab: LabRegistry, name: str) -> None:
    done = daemon.docker("push", f"{lab.host}/none/{name}:1")
    assert done.code == 1
    assert "does not exist" in done.errors
    daemon.docker("tag", "busybox", f"127.0.0.1:1/x/{name}:1").ok()
    done = daemon.docker("push", f"127.0.0.1:1/x/{name}:1")
    assert done.code == 1
    assert "127.0.0.1:1" in done.errors


def test_a_list_of_manifests_by_hand(daemon: LabDaemon, lab: LabRegistry, name: str) -> None:
    for repository, tag in (("a", "amd"), ("b", "arm")):
        where = f"{lab.host}/{name}/{repository}:{tag}"
        daemon.docker("run", "--name", f"{name}-{tag}", "busybox", "sh", "-c", f"echo {tag} > /v").ok()
        daemon.docker("commit", f"{name}-{tag}", where).ok()
        daemon.docker("push", where).ok()
    target = f"{lab.host}/{name}/a:all"
    members = (f"{lab.host}/{name}/a:amd", f"{lab.host}/{name}/b:arm")
    done = wherry(daemon, "manifest", "create", target, *members)
    assert done.returncode == 0, done.stderr
    assert "refusing to amend" in wherry(daemon, "manifest", "create", target, members[0]).stderr
    done = wherry(daemon, "manifest", "annotate", "--arch", "arm64", "--variant", "v8", target, members[1])
    assert done.returncode == 0, done.stderr
    done = wherry(daemon, "manifest", "push", "--purge", target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("sha256:")
    listed = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{target}"))
    assert [m["platform"]["architecture"] for m in listed["manifests"]] == [oci.host().architecture, "arm64"]
    assert json.loads(wherry(daemon, "manifest", "inspect", target).stdout) == listed
    assert skopeo("inspect", "--tls-verify=false", "--override-arch=arm64", f"docker://{target}")
    assert wherry(daemon, "manifest", "rm", target).returncode == 1


def test_referrers_come_and_go_with_an_image(daemon: LabDaemon, lab: LabRegistry, name: str) -> None:
    """This registry keeps no lists of its own: the index under the subject's tag is read, and written."""
    first, second = (f"{lab.host}/{place}/{name}" for place in ("one", "two"))
    daemon.docker("run", "--name", name, "busybox", "touch", f"/{name}").ok()
    daemon.docker("commit", name, f"{first}:1").ok()
    daemon.docker("rm", name).ok()
    daemon.docker("push", f"{first}:1").ok()
    status, manifest, headers = lab.get(f"/v2/one/{name}/manifests/1")
    assert status == 200
    subject, kind = headers["Docker-Content-Digest"], headers["Content-Type"]
    parts = [lab.put_blob(f"one/{name}", data) for data in (b"{}", b'{"packages": []}')]
    referrer = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": "application/spdx+json",
        "config": {**parts[0], "mediaType": "application/vnd.oci.empty.v1+json"},
        "layers": [{**parts[1], "mediaType": "application/spdx+json"}],
        "subject": {"mediaType": kind, "digest": subject, "size": len(manifest)},
    }
    entry = lab.put_manifest(f"one/{name}", json.dumps(referrer).encode(), oci.MANIFEST)
    listed = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]}
    tag = subject.replace(":", "-")
    lab.put_manifest(f"one/{name}", json.dumps(listed).encode(), oci.INDEX, tag)
    daemon.docker("rmi", f"{first}:1").ok()
    daemon.docker("pull", f"{first}:1").ok()
    daemon.docker("tag", f"{first}:1", f"{second}:1").ok()
    daemon.docker("push", f"{second}:1").ok()
    status, _, _ = lab.get(f"/v2/two/{name}/manifests/{entry['digest']}")
    assert status == 200
    status, body, _ = lab.get(f"/v2/two/{name}/manifests/{tag}")
    assert status == 200 and [m["digest"] for m in json.loads(body)["manifests"]] == [entry["digest"]]
    before = body
    daemon.docker("push", f"{second}:1").ok()
    assert lab.get(f"/v2/two/{name}/manifests/{tag}")[1] == before
