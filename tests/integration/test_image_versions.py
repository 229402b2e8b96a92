"""Images by their history: ``image log``, ``image rollback``, ``NAME@{1}``, and a prune that spares them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from daemonlab import TIMEOUT, LabDaemon
from patience import patiently

pytestmark = pytest.mark.kernel


def wherry(daemon: LabDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from wherry.cli.main import entry; raise SystemExit(entry())", *arguments],
        env={**daemon.environment, "WHERRY_HOST": f"unix://{daemon.socket}"},
        capture_output=True,
        text=True,
        timeout=patiently(TIMEOUT),
        check=False,
    )


@pytest.fixture
def app(daemon: LabDaemon, name: str) -> str:
    """A name with three versions, each of which says its number."""
    for number in (1, 2, 3):
        box = f"{name}-{number}"
        daemon.docker("run", "--name", box, "busybox", "sh", "-c", f"echo {number} > /v").ok()
        daemon.docker("commit", "-c", 'CMD ["cat", "/v"]', box, f"{name}:latest").ok()
    return name


def test_every_version_runs_and_the_name_goes_back(daemon: LabDaemon, app: str) -> None:
    for reference, said in ((app, "3"), (f"{app}@{{1}}", "2"), (f"{app}:latest@{{2}}", "1")):
        assert wherry(daemon, "run", "--rm", reference).stdout.strip() == said
    done = wherry(daemon, "image", "rollback", app)
    assert done.returncode == 0, done.stderr
    assert daemon.docker("run", "--rm", app).ok() == "2"
    log = wherry(daemon, "image", "log", "--format", "{{.Version}} {{.By}} {{.Why}} {{.State}}", app)
    assert log.stdout.splitlines() == [
        "@{0} root rollback current",
        "@{1} root commit kept",
        "@{2} root commit current",
        "@{3} root commit kept",
    ]


def test_a_prune_spares_versions_unless_told(daemon: LabDaemon, app: str) -> None:
    daemon.remove_containers()
    assert "deleted" not in daemon.docker("image", "prune", "-f").ok()
    assert wherry(daemon, "run", "--rm", f"{app}@{{2}}").stdout.strip() == "1"
    assert daemon.docker("image", "prune", "-f", "--filter", "versions=true").ok().count("deleted") == 2
    done = wherry(daemon, "image", "rollback", app)
    assert done.returncode == 1
    assert "was removed" in done.stderr
    assert daemon.docker("run", "--rm", app).ok() == "3"


def test_what_shares_which_layers(daemon: LabDaemon, app: str) -> None:
    lines = wherry(daemon, "image", "tree").stdout.splitlines()
    base = next(i for i, line in enumerate(lines) if "[busybox:latest]" in line)
    below = [line for line in lines[base + 1 :] if line.startswith(("   ", "│"))]
    assert any(f"[{app}:latest]" in line for line in below)


def test_what_two_versions_differ_in(daemon: LabDaemon, app: str) -> None:
    lines = wherry(daemon, "image", "diff", f"{app}@{{1}}", app).stdout.splitlines()
    assert lines[0].startswith("Layers: 1 shared")
    assert lines[-2:] == ["Files: 0 added, 0 removed, 1 changed", "  ~ /v  2B -> 2B"]
    found = json.loads(wherry(daemon, "image", "diff", "--format", "json", "busybox", app).stdout)
    assert [one["Path"] for one in found["Files"]] == ["/v"]
    assert {one["Key"] for one in found["Configuration"]} == {"Cmd"}


def test_a_version_that_is_not_there(daemon: LabDaemon, app: str) -> None:
    done = wherry(daemon, "run", "--rm", f"{app}@{{9}}")
    assert done.returncode == 125
    assert f"No such image: {app}@{{9}}" in done.stderr
    assert "Unable to find" not in done.stderr
