from __future__ import annotations

from pathlib import Path

import pytest

from wherry.errors import Internal
from wherry.linux import sysctl


def test_names_with_dots_are_one_part() -> None:
    assert sysctl.path("net", "ipv4", "conf", "eth0.5", "forwarding") == Path(
        "/proc/sys/net/ipv4/conf/eth0.5/forwarding"
    )


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "/etc", "a\0b"])
def test_parts_do_not_lead_elsewhere(part: str) -> None:
    with pytest.raises(Internal, match="cannot name a kernel parameter"):
        sysctl.path("net", part)


def test_read() -> None:
    assert sysctl.read("kernel", "ostype") == "Linux"
    with pytest.raises(FileNotFoundError):
        sysctl.read("kernel", "no-such-thing")
