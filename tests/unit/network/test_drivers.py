"""Drivers are asked, not named: a new one is a file and a line in ``builtin``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from databases import open_database

import wherry
from wherry.errors import NotFound
from wherry.linux.plugins import Directories, Plugins
from wherry.network.catalog import Catalog
from wherry.network.drivers.builtin import Drivers, Makings, built_in
from wherry.network.drivers.remote import RemoteDriver
from wherry.network.types import Instance, Network, NetworkConfig
from wherry.state import schema
from wherry.state.networks import Networks

SOURCE = Path(wherry.__file__).parent
OWN = SOURCE / "network" / "drivers"
ROOMS = ("network", "engine", "api", "daemon", "wire")
NAMES = {"bridge", "host", "null", "macvlan", "ipvlan", "overlay"}


def named_drivers(path: Path) -> list[int]:
    """Lines that compare something's ``driver`` with a driver's name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        asked = any(isinstance(s, ast.Attribute) and s.attr == "driver" for s in sides)
        texts = {c.value for s in sides for c in ast.walk(s) if isinstance(c, ast.Constant)}
        # "" and "bridge" together say that nobody chose
        if asked and texts & NAMES and "" not in texts:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_nobody_asks_for_a_drivers_name(room: str) -> None:
    files = [path for path in sorted((SOURCE / room).rglob("*.py")) if not path.is_relative_to(OWN)]
    found = {str(path.relative_to(SOURCE)): lines for path in files if (lines := named_drivers(path))}
    assert found == {}


def test_the_look_for_names_sees_them(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text('if network.driver == "overlay":\n    pass\nx = n.driver in ("host", "null")\n')
    assert named_drivers(code) == [1, 3]


@pytest.fixture
def drivers(tmp_path: Path) -> Drivers:
    rows = Networks(open_database(":memory:", schema.MIGRATIONS))
    made = Makings(Instance("default"), NetworkConfig(), rows, Catalog(rows))
    nowhere = (tmp_path,)
    return Drivers(built_in(made), Plugins(Directories(sockets=nowhere, specs=nowhere)))


def test_those_that_are_built_in(drivers: Drivers) -> None:
    assert drivers.names == sorted(NAMES)
    assert {n for n in NAMES if drivers.traits(n).publishes} == {"bridge", "overlay"}
    assert {n for n in NAMES if not drivers.traits(n).shared} == {"host", "null"}
    assert {n for n in NAMES if not drivers.traits(n).namespace} == {"host"}
    assert {n for n in NAMES if "global" in drivers.traits(n).scopes} == {"overlay"}


def test_a_plugin_that_is_away(drivers: Drivers) -> None:
    network = Network(id="a" * 64, name="theirs", driver="theirs", created=1)
    assert not drivers.has(network)
    assert drivers.own(network) is None
    assert drivers.traits("theirs") == RemoteDriver.traits
    with pytest.raises(NotFound, match='plugin "theirs" not found'):
        drivers.of(network)
