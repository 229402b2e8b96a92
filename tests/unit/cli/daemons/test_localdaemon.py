"""Starting, finding and stopping the machine's daemon, with a stand-in for wherryd."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from conftest import Run
from wherry.cli.daemons import local
from wherry.client.endpoint import DaemonEndpoint
from wherry.errors import NotFound, Unavailable

STAND_IN = f"""#!{sys.executable}
import os, signal, socket, sys
run = sys.argv[sys.argv.index("--run") + 1]
print("starting", sys.argv[1:], flush=True)
if "--broken" in sys.argv:
    sys.exit("cannot start: the disk is on fire")
path = run + "/wherry.sock"
listener = socket.socket(socket.AF_UNIX)
if os.path.exists(path):
    os.unlink(path)
listener.bind(path)
listener.listen()
signal.signal(signal.SIGTERM, lambda *a: os._exit(0))
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nApi-Version: 1.56\\r\\nContent-Length: 0\\r\\n\\r\\n")
    connection.close()
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin/wherryd"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin/wherry")])
    return program


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_start_status_stop(wherry: Run, run_dir: Path) -> None:
    place = ["--run", str(run_dir)]

    def daemon(*words: str) -> tuple[int, str, str]:
        from wherry.cli.main import main

        code = main(["daemon", *words])
        sys.stdout.flush()
        return code, "", ""

    assert daemon("status", *place)[0] == 3
    assert daemon("start", *place, "--root", str(run_dir / "root"), "--", "--debug")[0] == 0
    found = local.find(str(run_dir))
    assert found is not None
    try:
        assert os.getsid(found.pid) == found.pid
        assert daemon("status", *place)[0] == 0
        assert daemon("start", *place)[0] == 0
        assert daemon("stop", *place)[0] == 0
        os.waitpid(found.pid, 0)
    finally:
        found.close()
    assert local.find(str(run_dir)) is None
    log = (run_dir / "wherryd.log").read_text()
    assert log.count("starting") == 1 and "'--debug'" in log and f"'{run_dir}/root'" in log


def test_a_daemon_that_cannot_start_says_why(run_dir: Path) -> None:
    endpoint = DaemonEndpoint(f"unix://{run_dir}/wherry.sock")
    with pytest.raises(Unavailable) as caught:
        local.start(str(run_dir), ["--run", str(run_dir), "--broken"], endpoint)
    assert "wherryd ended with code 1" in caught.value.message
    assert caught.value.message.endswith("cannot start: the disk is on fire")
    assert not (run_dir / "wherryd.pid").exists()


def test_a_pid_file_is_not_believed(run_dir: Path) -> None:
    run_dir.mkdir()
    for content in (str(os.getpid()), "1", "nonsense", "-5", "999999999999", ""):
        (run_dir / "wherryd.pid").write_text(content)
        assert local.find(str(run_dir)) is None


def test_no_daemon_installed(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.unlink()
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(NotFound, match="wherryd is not installed"):
        local.executable()


def test_a_command_starts_the_default_daemon(
    tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, wherry: Run
) -> None:
    from wherry.cli.main import main
    from wherry.client import discovery

    run_dir.mkdir()
    program = tmp_path / "bin/wherryd"
    program.write_text(STAND_IN.replace('sys.argv[sys.argv.index("--run") + 1]', repr(str(run_dir))))
    monkeypatch.setattr(discovery, "DEFAULT_HOST", f"unix://{run_dir}/wherry.sock")
    monkeypatch.setattr(discovery, "CANDIDATES", ())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    main(["ps"])
    found = local.find(str(run_dir))
    assert found is not None
    os.kill(found.pid, signal.SIGTERM)
    os.waitpid(found.pid, 0)
    found.close()
