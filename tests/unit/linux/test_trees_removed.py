"""Trees are gone when the call returns, also beside a process that still writes there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from wherry.linux import files


def test_what_is_made_while_a_tree_is_removed_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "task"
    (tree / "exits").mkdir(parents=True)
    (tree / "pid").write_text("1")
    late = ["oom", "exit"]
    remove = os.rmdir

    def rmdir(*arguments: Any, **keywords: Any) -> None:
        if late:
            (tree / late.pop()).write_text("")
        remove(*arguments, **keywords)

    monkeypatch.setattr(os, "rmdir", rmdir)
    files.remove_tree(tree)
    assert not tree.exists() and not late


def test_one_who_never_ceases_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "task"
    tree.mkdir()
    remove = os.rmdir

    def rmdir(*arguments: Any, **keywords: Any) -> None:
        (tree / "again").write_text("")
        remove(*arguments, **keywords)

    with monkeypatch.context() as changed:
        changed.setattr(os, "rmdir", rmdir)
        with pytest.raises(OSError, match="not empty"):
            files.remove_tree(tree)
    files.remove_tree(tree)
    files.remove_tree(tree)
    assert not tree.exists()
