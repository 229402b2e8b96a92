"""A volume plugin of Docker's protocol, version 1: directories below one of its own. For tests, and to read.

``misbehave`` maps a method to what it does instead of answering: ``hang``, ``drip`` (a byte at a time, for
ever), ``die`` (close the connection), ``garbage``, ``huge``, or any other text: refuse with it.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from patience import patiently

Answer = dict[str, Any]


class ExamplePlugin:
    """Serves until it is closed. ``calls`` are the methods it was asked for, ``mounts`` the ids that have a
    volume mounted."""

    def __init__(self, address: Path, data: Path) -> None:
        self.address, self.data = address, data
        self.calls: list[str] = []
        self.mounts: dict[str, set[str]] = {}
        self.options: dict[str, Answer] = {}
        self.misbehave: dict[str, str] = {}
        self._end = threading.Event()
        data.mkdir(parents=True, exist_ok=True)
        address.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(address))
        self._server.listen(64)
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._end.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.address.unlink(missing_ok=True)
        for thread in self._threads:
            thread.join(patiently(10))

    def _serve(self) -> None:
        while not self._end.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._handle, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _handle(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rwb") as stream:
            method = stream.readline().split()[1].decode().strip("/")
            length = 0
            while (line := stream.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            body = json.loads(stream.read(length) or b"{}")
            self.calls.append(method)
            how = self.misbehave.get(method, "")
            if how == "hang":
                self._end.wait()
            elif how == "drip":
                stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not self._end.wait(0.02):
                    stream.write(b" ")
                    stream.flush()
            elif how == "garbage":
                self._reply(stream, b"<html>")
            elif how == "huge":
                self._reply(stream, b" " * (5 << 20))
            elif how != "die":
                self._reply(stream, json.dumps({"Err": how} if how else self.answer(method, body)).encode())

    @staticmethod
    def _reply(stream: Any, body: bytes) -> None:
        stream.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        stream.flush()

    def answer(self, method: str, body: Answer) -> Answer:
        if method == "Plugin.Activate":
            return {"Implements": ["VolumeDriver"]}
        _, _, action = method.partition(".")
        name = str(body.get("Name", ""))
        path = self.data / name
        if action == "Capabilities":
            return {"Capabilities": {"Scope": "global"}}
        if action == "List":
            return {"Volumes": [{"Name": p.name} for p in sorted(self.data.iterdir())], "Err": ""}
        if action == "Create":
            path.mkdir(exist_ok=True)
            self.options[name] = body.get("Opts") or {}
            return {"Err": ""}
        if not name or not path.is_dir():
            return {"Err": f"no volume {name}"}
        users = self.mounts.setdefault(name, set())
        if action == "Remove":
            shutil.rmtree(path)
        elif action == "Mount":
            users.add(str(body["ID"]))
            return {"Mountpoint": str(path), "Err": ""}
        elif action == "Unmount":
            users.discard(str(body["ID"]))
        elif action == "Path":
            return {"Mountpoint": str(path) if users else "", "Err": ""}
        elif action == "Get":
            status = {"users": len(users)}
            return {"Volume": {"Name": name, "Mountpoint": str(path), "Status": status}, "Err": ""}
        return {"Err": ""}
