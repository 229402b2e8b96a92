"""``--use-api-socket`` with a daemon: the socket answers in the container, and the logins are there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from daemonlab import LabDaemon
from patience import patiently

MAIN = "from wherry.cli.main import entry; raise SystemExit(entry())"


def test_a_container_may_speak_to_the_daemon(daemon: LabDaemon, tmp_path: Path) -> None:
    auths = {"r.example": {"auth": "YTpi"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    env = {**os.environ, "DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": f"unix://{daemon.socket}"}
    place = "$DOCKER_CONFIG/config.json"
    script = f"test -S /var/run/docker.sock && stat -c %a {place} && cat {place}"
    argv = ["run", "--rm", "--network", "none", "--use-api-socket", "busybox", "sh", "-c", script]
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *argv], env=env, capture_output=True, timeout=patiently(25)
    )
    assert done.returncode == 0, done.stderr
    mode, _, content = done.stdout.partition(b"\n")
    assert mode == b"600"
    assert json.loads(content) == {"auths": auths}
    # The docker CLI's own does the same with this daemon.
    theirs = daemon.docker(*argv, environment={"DOCKER_CONFIG": str(tmp_path)})
    assert theirs.ok().partition("\n")[0] == "600"
