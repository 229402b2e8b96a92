"""The arrows of docs/architecture.md, held against the imports of every module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "wherry"

# Which rooms a room may import besides itself. ``errors`` and the package's own version are everyone's.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    "linux": {"model"},
    "state": {"model"},
    "storage": {"linux", "state", "model"},
    "images": {"storage", "linux", "state", "model"},
    "registry": {"storage", "linux", "state", "model"},
    "runtime": {"linux", "model"},
    "logs": {"linux", "model"},
    "network": {"linux", "state", "model"},
    "volumes": {"linux", "state", "model"},
    "build": {"model"},
    "engine": {
        "images", "storage", "build", "registry", "network", "volumes", "runtime", "logs", "state",
        "linux", "model",
    },
    "wire": {"model"},
    "api": {"engine", "wire", "model"},
    "client": {"wire", "model"},
    "cli": {"client", "wire", "model"},
    "daemon": {
        "api", "engine", "wire", "images", "storage", "build", "registry", "network", "volumes", "runtime",
        "logs", "state", "linux", "model",
    },
    "hub": {"registry", "model"},
    "compose": {"client", "model"},
}  # fmt: skip

# Modules of the outside world that only one room may touch.
ONLY_IN: dict[str, set[str]] = {
    "ctypes": {"linux"},
    "subprocess": {"linux", "cli", "client"},
    "sqlite3": {"state"},
    "aiohttp": {"api", "registry", "hub"},
}


# What only one module may call, as it does so safely.
CALLED_ONLY_IN: dict[str, str] = {
    r"msgspec\.json\.decode\([^()]*(\([^()]*\)[^()]*)*type=": "model/typed.py",
    r"msgspec\.convert\(": "model/typed.py",
    r"msgspec\.json\.Decoder\(": "model/typed.py",
}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Absolute names of everything a module imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "wherry" else {module}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_arrows_go_down_only(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in ALLOWED, f"{path}: {room} is not a room of the house"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "wherry" and rest:
            target = rest.split(".")[0]
            fine = {room, "errors", "__version__"} | ALLOWED[room]
            assert target in fine, f"{path}: {room} must not import {target} ({name})"
        owners = ONLY_IN.get(top)
        assert owners is None or room in owners, f"{path}: {top} belongs to {sorted(owners or ())}"


def test_every_room_has_a_rule() -> None:
    rooms = {p.name.removesuffix(".py") for p in SOURCE.iterdir() if p.name != "py.typed"}
    assert rooms - {"__init__", "__pycache__"} <= set(ALLOWED)


def test_no_file_outgrows_its_purpose() -> None:
    """About 500 lines a file; a longer one wants to be two."""
    long = {str(p.relative_to(SOURCE)): n for p in modules() if (n := len(p.read_text().splitlines())) > 560}
    assert not long, long


@pytest.mark.parametrize("call", CALLED_ONLY_IN)
def test_calls_that_belong_to_one_module(call: str) -> None:
    callers = {str(p.relative_to(SOURCE)) for p in modules() if re.search(call, p.read_text())}
    assert callers == {CALLED_ONLY_IN[call]}
