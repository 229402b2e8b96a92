"""PostgreSQL from Debian on a volume: what it said is committed is there after SIGKILL of everything."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until
from patience import patiently

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

_AS = 'as() { su postgres -c "PATH=$(echo /usr/lib/postgresql/*/bin):$PATH; $1"; }; '
_START = (
    """as "pg_ctl -s -w -D /data/db -o '-k /tmp -h \\"\\"' -l /tmp/log start" """
    "|| { cat /tmp/log; exit 1; }; "
)
_INIT = _AS + "chown postgres /data; as 'initdb --data-checksums -D /data/db' >/tmp/init || exit 1; "
_WRITER = (
    _AS
    + _START
    + """
ask() { psql -h /tmp -U postgres -qAt -c "$1"; }
ask 'CREATE TABLE IF NOT EXISTS t (n bigint PRIMARY KEY, square bigint)' || exit 1
n=$(ask 'SELECT coalesce(max(n), 0) FROM t')
while n=$((n + 1)); ask "INSERT INTO t VALUES ($n, $((n * n)))"; do echo "did $n"; done
"""
)
_CHECK = (
    _AS
    + _START
    + """
psql -h /tmp -U postgres -qAt -c 'SELECT count(*) = max(n) AND bool_and(square = n * n), max(n) FROM t'
as 'pg_ctl -s -m fast -D /data/db stop'
as 'pg_checksums --check -D /data/db' >/tmp/sums || { cat /tmp/sums; exit 1; }
"""
)


def promised(daemon: LabDaemon, name: str) -> int:
    lines = [line for line in daemon.docker("logs", name).out.splitlines() if line.startswith("did ")]
    return int(lines[-1].split()[1]) if lines else 0


@pytest.mark.patient(600)
@pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="mmdebstrap makes the image")
def test_postgresql_survives_kills(fresh_daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    daemon, image = fresh_daemon, tmp_path / "image.tar"
    packages = ("--variant=minbase", "--include=postgresql", "--skip=output/dev")
    subprocess.run(
        ["mmdebstrap", "--quiet", *packages, "bookworm", str(image)],
        check=True,
        timeout=patiently(400),
        stderr=subprocess.DEVNULL,
    )
    daemon.docker("import", str(image), "pg:1", timeout=120).ok()
    box = ("-v", f"{name}:/data", "pg:1", "sh", "-c")
    daemon.docker("run", "--rm", *box, _INIT, timeout=60).ok()
    for kill in ("container", "both", "daemon"):
        daemon.docker("run", "-d", "--name", name, *box, _WRITER).ok()
        wait_until(lambda: promised(daemon, name) and daemon.docker("logs", name).out.count("did ") > 20)
        pid = daemon.api("GET", f"/containers/{name}/json").json["State"]["Pid"]
        if kill != "container":
            daemon.end(signal.SIGKILL)
        if kill != "daemon":
            os.kill(pid, signal.SIGKILL)
        if kill != "container":
            daemon.start()
        if kill == "daemon":
            before = promised(daemon, name)
            wait_until(lambda least=before: promised(daemon, name) > least, "it writes on")
            daemon.docker("kill", name).ok()
        daemon.docker("wait", name).ok()
        said = promised(daemon, name)
        whole, last = daemon.docker("run", "--rm", *box, _CHECK, timeout=60).ok().split("|")
        assert whole == "t" and int(last) >= said
        daemon.docker("rm", "-f", name).ok()
