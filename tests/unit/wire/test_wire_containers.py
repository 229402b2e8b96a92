"""The command in a list of containers, as Docker's daemon words it."""

from __future__ import annotations

import pytest

from wherry.wire.containers import command


@pytest.mark.parametrize(
    ("path", "arguments", "want"),
    [
        ("sleep", ("1000",), "sleep 1000"),
        ("sh", ("-c", "exit 3"), "sh -c 'exit 3'"),
        ("/a b", ("c",), "/a b c"),
        ("true", (), "true"),
    ],
)
def test_arguments_with_spaces_are_quoted(path: str, arguments: tuple[str, ...], want: str) -> None:
    assert command(path, arguments) == want
