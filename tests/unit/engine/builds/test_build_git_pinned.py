"""git connects to the address that was looked up and checked, and to none that a second lookup would give."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import until

from wherry.engine.builds import git
from wherry.errors import Forbidden, InvalidArgument
from wherry.registry.addresses import Guard

NAME = "repo.example"
"""Nobody's: what reaches it does so by the address that was found for it."""


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of every name, checked as those of a real lookup."""
    addresses = ["127.0.0.1"]

    async def resolve(self: Guard, host: str, port: int = 0, family: object = None) -> list[dict[str, Any]]:
        for one in addresses:
            self.check(host, one)
        return [{"host": one} for one in addresses]

    monkeypatch.setattr(Guard, "resolve", resolve)
    return addresses


@pytest.fixture
def repositories(tmp_path: Path) -> Iterator[int]:
    """``git daemon`` on 127.0.0.1 with ``repo.git`` under the name it is asked by; its port."""
    program = shutil.which("git")
    assert program is not None
    bare = tmp_path / NAME / "repo.git"
    work = tmp_path / "work"
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(tmp_path)}
    for argv in (
        ["init", "-q", "-b", "main", str(work)],
        [
            "-C",
            str(work),
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@e",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "x",
        ],
        ["clone", "-q", "--bare", str(work), str(bare)],
    ):
        subprocess.run([program, *argv], check=True, env=environment)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = subprocess.Popen(
        [
            *(program, "daemon", "--listen=127.0.0.1", f"--port={port}", "--export-all"),
            *(f"--interpolated-path={tmp_path}/%H%D", str(tmp_path)),
        ],
        env={**environment, "GIT_CONFIG_COUNT": "1"}
        | {"GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
        start_new_session=True,
    )

    def listens() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(listens, "git daemon to listen")
        yield port
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait()


def located(url: str) -> git.Located:
    return asyncio.run(git.locate(git.parse(url)))


def test_a_repository_by_gits_own_protocol(found: list[str], repositories: int) -> None:
    """Its server is told the name, and keeps several hosts' repositories apart by it."""
    commit = git.commit_of(located(f"git://{NAME}:{repositories}/repo.git"))
    assert len(commit) == 40
    with pytest.raises(InvalidArgument):
        git.commit_of(located(f"git://other.example:{repositories}/repo.git"))


@pytest.mark.parametrize(
    ("url", "host", "alias"),
    [
        (f"ssh://git@{NAME}/a/b.git", NAME, NAME),
        (f"ssh://git@{NAME}:2222/a/b.git", NAME, f"[{NAME}]:2222"),
        (f"git@{NAME}:a/b.git#main", NAME, NAME),
    ],
)
def test_a_repository_by_ssh(found: list[str], tmp_path: Path, url: str, host: str, alias: str) -> None:
    """ssh itself says where it would connect, and under which name it looks for the host's key."""
    command = located(url).environment["GIT_SSH_COMMAND"]
    done = subprocess.run(
        f"{command} -F /dev/null -G {host}", shell=True, check=True, capture_output=True, text=True
    )
    said = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert (said["hostname"], said["hostkeyalias"]) == ("127.0.0.1", alias)


def test_ssh_is_run_with_the_address(
    found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git hands what was found to ssh: a program called ssh notes what it is run with."""
    noted = tmp_path / "noted"
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\necho "$@" >> {noted}\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(git, "_SSH", f"{program} -oBatchMode=yes")
    with pytest.raises(InvalidArgument):
        git.commit_of(located(f"git@{NAME}:a/b.git"))
    assert "-oHostName=127.0.0.1" in noted.read_text()


@pytest.mark.parametrize("url", [f"ssh://git@{NAME}/a.git", f"git@{NAME}:a.git", f"git://{NAME}/a.git"])
def test_addresses_that_nobody_asks(found: list[str], url: str) -> None:
    found[:] = ["169.254.169.254"]
    with pytest.raises(Forbidden):
        located(url)


@pytest.mark.parametrize(
    "url",
    [
        "ssh://git@-oProxyCommand=id/a.git",
        "ssh://git@a;id/a.git",
        "git@$(id):a.git",
        "git@a b:c",
        "git://host",
        "ssh://h:123456/a",
    ],
)
def test_hosts_that_are_none(found: list[str], url: str) -> None:
    with pytest.raises(InvalidArgument):
        located(url)


def test_the_first_address_that_answers(found: list[str], repositories: int) -> None:
    found[:] = ["127.0.0.2", "127.0.0.1"]  # the daemon listens on the second alone
    assert len(git.commit_of(located(f"git://{NAME}:{repositories}/repo.git"))) == 40
