"""A Compose project in a directory of its own, driven by ``wherry compose``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from daemonlab import LabDaemon
from patience import patiently

WHERRY = str(Path(__file__).resolve().parents[2] / ".venv" / "bin" / "wherry")


class ProjectLab:
    """A project in a directory of its own; everything of it is taken down by :meth:`end`."""

    def __init__(self, daemon: LabDaemon, where: Path, name: str) -> None:
        self.daemon, self.name = daemon, name
        self.where = where / name
        self.where.mkdir()

    def file(self, text: str, name: str = "compose.yaml") -> None:
        (self.where / name).write_text(text)

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [WHERRY, "compose", *arguments],
            cwd=self.where,
            env=self.daemon.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        """Its standard output. :raises AssertionError: it ended with another code."""
        process = self.popen(*arguments)
        out, err = process.communicate(timeout=patiently(60))
        assert process.returncode == code, f"{arguments}: {process.returncode}, wanted {code}: {err}"
        self.errors = err
        return out

    def containers(self) -> dict[str, dict[str, Any]]:
        found = self.run("ps", "-a", "--format", "json").splitlines()
        return {one["Name"].removeprefix(f"{self.name}-"): one for one in map(json.loads, found)}

    def end(self) -> None:
        self.run("-p", self.name, "down", "-v", "--remove-orphans", "-t", "1")
