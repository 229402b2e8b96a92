"""Where a redirect may lead."""

from __future__ import annotations

import pytest

from wherry.registry.download import is_local, shown


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("169.254.169.254", True),
        ("::1", True),
        ("[fe80::1%eth0]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("100.64.0.1", True),
        ("93.184.216.34", False),
        ("2606:2800:220:1::1", False),
        ("name.example", False),
    ],
)
def test_addresses(address: str, local: bool) -> None:
    assert is_local(address) == local


def test_addresses_are_shown_without_secrets() -> None:
    assert shown("https://user:secret@host:1/path?token=x#y") == "https://host:1/path"
