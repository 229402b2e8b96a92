"""Which answers wait until the disk has what they promise."""

from __future__ import annotations

import pytest

from wherry.api import server


@pytest.mark.parametrize(
    "path",
    [
        "/containers/c/exec", "/containers/c/attach", "/containers/c/wait", "/containers/c/resize",
        "/exec/e/start", "/exec/e/resize", "/exec/e/kill",
    ],
)  # fmt: skip
def test_what_a_power_cut_ends_anyway_does_not_wait(path: str) -> None:
    assert server._is_of_the_moment(path)


@pytest.mark.parametrize(
    "path",
    [
        "/containers/create", "/containers/c/start", "/containers/c/stop", "/containers/c/kill",
        "/containers/c", "/containers/c/rename", "/containers/c/update", "/volumes/create", "/volumes/exec",
        "/images/create", "/networks/wait", "/containers/wait", "/containers/exec", "/exec/e",
    ],
)  # fmt: skip
def test_what_it_must_not_undo_waits(path: str) -> None:
    assert not server._is_of_the_moment(path)


def test_a_container_may_be_called_like_what_is_done_to_one() -> None:
    """Its removal makes files go as well as its row."""
    assert server._is_of_life("/containers/c/stop")
    assert not server._is_of_life("/containers/stop")
