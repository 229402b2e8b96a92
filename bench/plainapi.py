"""The Engine API by plain HTTP over one connection: what a client costs is left out of the measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asking import Connection
from commands import Failed


class Api:
    """One connection, opened at the first request. Every call raises :exc:`Failed` where the engine
    refuses.
    """

    def __init__(self, path: Path) -> None:
        self._connection = Connection(path)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        data = json.dumps(body).encode() if body is not None else None
        self._connection.request(method, path, data, headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.status >= 400:
            raise Failed(f"{method} {path}: {response.status} {text.decode(errors='replace')[:200]}")
        if "json" in (response.headers.get("Content-Type") or "") and text:
            return json.loads(text.partition(b"\n")[0] if path.endswith("wait") else text)
        return text

    def create(self, image: str, command: list[str]) -> str:
        return str(self.ask("POST", "/containers/create", {"Image": image, "Cmd": command})["Id"])

    def run_to_end(self, image: str, command: list[str]) -> None:
        """Create, start, wait, remove."""
        made = self.create(image, command)
        self.ask("POST", f"/containers/{made}/start")
        self.ask("POST", f"/containers/{made}/wait")
        self.ask("DELETE", f"/containers/{made}")

    def execute(self, container: str, command: list[str]) -> None:
        """Create, start with its output attached, inspect. :raises Failed: it exits with another status
        than 0.
        """
        body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
        made = self.ask("POST", f"/containers/{container}/exec", body)["Id"]
        self.ask("POST", f"/exec/{made}/start", {"Detach": False})
        self._connection.close()  # the stream of an exec ends its connection
        if code := self.ask("GET", f"/exec/{made}/json")["ExitCode"]:
            raise Failed(f"exec of {command[0]}: exit status {code}")

    def close(self) -> None:
        self._connection.close()
