"""Every confinement is tested on both ways in which a child is started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from patience import patiently

from wherry.linux.forkserver import ForkServer
from wherry.storage.confined import children


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    server = children.new_server()
    assert server.wait_ready(patiently(20))
    yield server
    server.stop()


@pytest.fixture(autouse=True, params=["alone", "forked"])
def _how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """``alone``: a new interpreter. ``forked``: a fork of the server."""
    forked = request.param == "forked"
    monkeypatch.setattr(children, "SERVER", request.getfixturevalue("fork_server") if forked else None)
