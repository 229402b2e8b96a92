"""``wherryd doctor`` on this host, and its warnings in ``info``."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from daemonlab import LabDaemon

pytestmark = pytest.mark.kernel
WHERRYD = str(Path(__file__).resolve().parents[2] / ".venv" / "bin" / "wherryd")


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [WHERRYD, "doctor", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_this_host_can_run_containers() -> None:
    done = doctor()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("0 problems, ")
    assert "conmon 2." in done.stdout


def test_as_data() -> None:
    found = json.loads(doctor("--format", "json").stdout)
    assert {"Level", "About", "What", "Follows", "Do"} == set(found[0])
    assert "kernel" in {one["About"] for one in found}


def test_what_is_missing_is_a_problem(tmp_path: Path) -> None:
    """A PATH without conmon."""
    for name in ("crun", "git"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = doctor(PATH=str(tmp_path))
    assert done.returncode == 1
    assert "problem  conmon: not found" in done.stdout and "install package conmon" in done.stdout
    mended = doctor("--fix", PATH=str(tmp_path))  # there is no apt-get either
    assert mended.returncode == 1 and mended.stderr.startswith("wherryd: cannot install conmon")
    assert "Traceback" not in mended.stderr


def test_a_chain_that_drops_is_a_warning_in_info(daemon: LabDaemon, name: str) -> None:
    chain = "{ type filter hook forward priority 5; policy drop; }"
    rules = f"add table inet {name}; add chain inet {name} f {chain}"
    subprocess.run(["nft", rules], check=True)
    try:
        found = daemon.api("GET", "/info").json["Warnings"]
        assert f"chain inet {name} f drops forwarded packets" in " ".join(found)
        assert any(line.startswith("WARNING: firewall: chain inet") for line in found)
    finally:
        subprocess.run(["nft", f"delete table inet {name}"], check=True)
    assert name not in " ".join(daemon.api("GET", "/info").json["Warnings"] or [])


def test_it_takes_the_daemons_flags(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text('{"data-root": "/proc/nowhere"}')
    done = doctor("--config-file", str(config), "--format", "json")
    assert done.returncode in (0, 1) and json.loads(done.stdout)
    assert doctor("--no-such-flag").returncode == 2
