"""What clients make in the chaos besides containers: volumes, networks, secrets, builds, pushes and pulls.

Each thing is known by its kind and name: ``True`` once the daemon has acknowledged it, ``None`` while a
request is open. What was acknowledged must be there after every kill, and what was removed must not.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any

from buildlab import archive
from daemonlab import Answer, LabDaemon

VOLUME, NETWORK, SECRET, IMAGE = "volumes", "networks", "secrets", "images"
_MOST = {VOLUME: 6, NETWORK: 3, SECRET: 4, IMAGE: 4}
"""Of each kind a client has: subnets are few, and every image is looked at after every kill."""


def where(kind: str, name: str) -> str:
    return f"/images/{name}/json" if kind == IMAGE else f"/{kind}/{name}"


class Things:
    """One client's. ``ask`` sends a request and raises when the daemon dies before it answers."""

    def __init__(self, name: str, ask: Callable[..., Answer], chance: random.Random, registry: str) -> None:
        self._name, self._ask, self._random, self._registry = name, ask, chance, registry
        self._number = 0
        self.there: dict[tuple[str, str], bool | None] = {}
        self.gone: set[tuple[str, str]] = set()
        self.pushed: set[str] = set()
        self.works = [
            self.volume,
            self.network,
            self.secret,
            self.build,
            self.build,
            self.push,
            self.pull,
            self.drop,
        ]

    def _new(self, kind: str, name: str = "") -> str | None:
        """A name for one more; ``None`` when there are enough."""
        if sum(k == kind for k, _ in self.there) >= _MOST[kind]:
            return None
        self._number += 1
        name = name or f"{self._name}-{kind}-{self._number}"
        self.there[kind, name] = None
        self.gone.discard((kind, name))
        return name

    def _made(self, kind: str, name: str, answer: Answer) -> None:
        assert answer.status == 201, (kind, name, answer.status, answer.body)
        self.there[kind, name] = True

    def volume(self) -> None:
        if name := self._new(VOLUME):
            self._made(VOLUME, name, self._ask("POST", "/volumes/create", {"Name": name}))

    def network(self) -> None:
        if name := self._new(NETWORK):
            self._made(NETWORK, name, self._ask("POST", "/networks/create", {"Name": name}))

    def secret(self) -> None:
        if name := self._new(SECRET):
            body = {"Name": name, "Data": base64.b64encode(name.encode()).decode()}
            self._made(SECRET, name, self._ask("POST", "/secrets/create", body))

    def build(self) -> None:
        if name := self._new(IMAGE):
            text = f"FROM busybox\nCOPY f /f\nRUN echo {self._random.randrange(3)} > /made\nLABEL of={name}\n"
            context = archive({"Dockerfile": text, "f": f"{self._random.randrange(3)}"})
            self._streamed(self._ask("POST", f"/build?t={name}", context))
            self.there[IMAGE, name] = True

    def push(self) -> None:
        """Under a name in the registry, which goes on being an image's here."""
        local = self._one(IMAGE, lambda name: "/" not in name)
        name = self._new(IMAGE, f"{self._registry}/{local}") if local else None
        if name is None:
            return
        answer = self._ask("POST", f"/images/{local}/tag?repo={name}&tag=latest")
        assert answer.status == 201, answer.body
        self.there[IMAGE, name] = True
        self._streamed(self._ask("POST", f"/images/{name}/push?tag=latest"))
        self.pushed.add(name)

    def pull(self) -> None:
        """What was pushed and is not here any more."""
        name = next((name for name in sorted(self.pushed) if (IMAGE, name) not in self.there), "")
        if name and self._new(IMAGE, name):
            self._streamed(self._ask("POST", f"/images/create?fromImage={name}&tag=latest"))
            self.there[IMAGE, name] = True

    def drop(self) -> None:
        kind = self._random.choice([VOLUME, NETWORK, SECRET, IMAGE])
        name = self._one(kind, lambda _name: True)
        if not name:
            return
        self.there[kind, name] = None
        path = f"/images/{name}?force=1" if kind == IMAGE else f"/{kind}/{name}"
        answer = self._ask("DELETE", path)
        assert answer.status in (200, 204, 404), (kind, name, answer.status, answer.body)
        del self.there[kind, name]
        self.gone.add((kind, name))

    def _one(self, kind: str, fits: Callable[[str], bool]) -> str:
        found = [n for (k, n), there in self.there.items() if k == kind and there and fits(n)]
        return self._random.choice(found) if found else ""

    @staticmethod
    def _streamed(answer: Answer) -> None:
        assert answer.status == 200, (answer.status, answer.body)
        lines: list[dict[str, Any]] = [json.loads(line) for line in answer.body.splitlines() if line.strip()]
        errors = [line["error"] for line in lines if "error" in line]
        assert not errors, errors

    # after a kill

    def verify(self, daemon: LabDaemon) -> None:
        for (kind, name), there in self.there.items():
            if there:
                answer = daemon.api("GET", where(kind, name))
                assert answer.status == 200, f"{kind}/{name} was acknowledged and is lost: {answer.body!r}"
        for kind, name in self.gone:
            assert daemon.api("GET", where(kind, name)).status == 404, f"{kind}/{name} is back"

    def settle(self, daemon: LabDaemon) -> None:
        """Learn how the open requests ended."""
        for (kind, name), there in list(self.there.items()):
            if there is None:
                if daemon.api("GET", where(kind, name)).status == 200:
                    self.there[kind, name] = True
                else:
                    del self.there[kind, name]

    def remove(self, daemon: LabDaemon) -> None:
        for kind, name in self.there:
            daemon.api("DELETE", f"/images/{name}?force=1" if kind == IMAGE else f"/{kind}/{name}")
