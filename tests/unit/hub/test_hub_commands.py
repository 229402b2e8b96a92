"""The table of commands."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys

import pytest

from wherry.hub.auth import passwords
from wherry.hub.cli import commands


@pytest.mark.parametrize("module", commands._MODULES)
def test_a_module_has_the_commands_of_its_line(module: str) -> None:
    added = argparse.ArgumentParser().add_subparsers()
    importlib.import_module(f"wherry.hub.cli.{module}").add(added)
    assert tuple(added.choices) == commands._MODULES[module]


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], []):
        with pytest.raises(SystemExit):
            commands.main(words)
    said = capsys.readouterr().out
    assert all(f"    {word}" in said for line in commands._MODULES.values() for word in (*line, "serve"))


def test_a_server_imports_no_other_command() -> None:
    heavy = ("jwt", "tomllib", "argon2", "msgspec", "wherry.hub.cli.teams", "wherry.hub.worker.replication")
    program = (
        "import sys; from wherry.hub.cli import commands, serve; commands.make_parser('serve');"
        f" print(*(m for m in {heavy} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_an_unknown_account_costs_what_a_known_one_does() -> None:
    """The hash for accounts that do not exist must have the parameters of new hashes."""
    assert not passwords.Passwords().wants_rehash(passwords._NOBODY)
