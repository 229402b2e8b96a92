"""The configuration of an image, for people: what it runs, its layers with the instructions that made them,
and the difference of two images. Documents of users: every field is checked, and nothing here raises for a
strange one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SIZE_MAX = 1 << 20
"""The largest configuration that is read, in bytes."""
_TEXT_MAX = 4000


def _text(value: Any) -> str:
    return value[:_TEXT_MAX] if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [_text(one) for one in value[:500] if isinstance(one, str)] if isinstance(value, list) else []


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class LayerLine:
    """A layer: the instruction that made it (may be empty), and its compressed size in bytes. Instructions
    that made no layer have no digest."""

    instruction: str
    digest: str = ""
    size: int = 0
    media_type: str = ""


@dataclass(frozen=True)
class ShownConfig:
    platform: str = ""
    created: str = ""
    author: str = ""
    user: str = ""
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    directory: str = ""
    environment: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    health: str = ""
    stop_signal: str = ""
    history: list[tuple[str, bool]] = field(default_factory=list)
    """The instruction, and whether it made a layer."""

    def label(self, name: str) -> str:
        """An annotation of the image specification: ``source`` of ``org.opencontainers.image.source``."""
        return self.labels.get(f"org.opencontainers.image.{name}", "")

    def facts(self) -> list[tuple[str, list[str]]]:
        """Name and lines of each, in the order of a page."""
        found = [
            ("Platform", [self.platform]), ("Created", [self.created]), ("Author", [self.author]),
            ("User", [self.user or "root"]),
            ("Entrypoint", [json.dumps(self.entrypoint)] * bool(self.entrypoint)),
            ("Command", [json.dumps(self.command)] * bool(self.command)), ("Directory", [self.directory]),
            ("Ports", self.ports), ("Volumes", self.volumes), ("Environment", self.environment),
            ("Health check", [self.health]), ("Stop signal", [self.stop_signal]),
            ("Labels", [f"{name}={value}" for name, value in sorted(self.labels.items())]),
        ]  # fmt: skip
        return [(name, [line for line in lines if line]) for name, lines in found if any(lines)]


def parse(data: bytes) -> ShownConfig:
    """An image's configuration (image-spec, config.md); an empty one if it cannot be read."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return ShownConfig()
    top = _map(document)
    inner = _map(top.get("config"))
    words = [_text(top.get(name)) for name in ("os", "architecture", "variant")]
    history = top.get("history")
    health = _texts(_map(inner.get("Healthcheck")).get("Test"))
    return ShownConfig(
        platform="/".join(word for word in words if word),
        created=_text(top.get("created"))[:40],
        author=_text(top.get("author"))[:200],
        user=_text(inner.get("User")),
        entrypoint=_texts(inner.get("Entrypoint")),
        command=_texts(inner.get("Cmd")),
        directory=_text(inner.get("WorkingDir")),
        environment=_texts(inner.get("Env")),
        ports=sorted(_map(inner.get("ExposedPorts")))[:200],
        volumes=sorted(_map(inner.get("Volumes")))[:200],
        labels={_text(k): _text(v) for k, v in list(_map(inner.get("Labels")).items())[:200]},
        health=" ".join(health),
        stop_signal=_text(inner.get("StopSignal")),
        history=[
            (_instruction(_text(one.get("created_by"))), one.get("empty_layer") is not True)
            for one in (history[:1000] if isinstance(history, list) else [])
            if isinstance(one, dict)
        ],
    )


def _instruction(text: str) -> str:
    """As it stands in a Dockerfile: the classic builder writes shells around it, BuildKit a comment
    behind."""
    short = text.removesuffix("# buildkit").strip()
    if short.startswith("/bin/sh -c #(nop)"):
        return short.removeprefix("/bin/sh -c #(nop)").strip()
    if short.startswith("/bin/sh -c "):
        return "RUN " + short.removeprefix("/bin/sh -c ").strip()
    return short


def layers(descriptors: Sequence[Mapping[str, Any]], config: ShownConfig) -> list[LayerLine]:
    """The layers of a manifest, with the instructions of the configuration."""
    found: list[LayerLine] = []
    left = list(descriptors)
    for instruction, made in config.history:
        if made and left:
            found.append(_layer(left.pop(0), instruction))
        elif not made:
            found.append(LayerLine(instruction))
    return found + [_layer(one, "") for one in left]


def _layer(descriptor: Mapping[str, Any], instruction: str) -> LayerLine:
    size = descriptor.get("size")
    return LayerLine(
        instruction, _text(descriptor.get("digest")), size if isinstance(size, int) else 0,
        _text(descriptor.get("mediaType")),
    )  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One line of a comparison; what is only in one of them is empty in the other."""

    name: str
    before: str
    after: str


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[Difference]:
    """What was added, removed or changed, in the order of the names."""
    return [
        Difference(name, before.get(name, ""), after.get(name, ""))
        for name in sorted(set(before) | set(after))
        if before.get(name) != after.get(name)
    ]
