from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument
from wherry.model.ports import check_port


@pytest.mark.parametrize(
    ("text", "expected"),
    [("80", (80, 80, "tcp")), ("80/udp", (80, 80, "udp")), ("8000-8010/sctp", (8000, 8010, "sctp"))],
)
def test_ports(text: str, expected: tuple[int, int, str]) -> None:
    assert check_port(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "x", "80/icmp", "9-8", "-1", "+1", " 1", "1_0", "²", "80/", "1-"]
)
def test_bad_ports(text: str) -> None:
    if text == "80/":
        assert check_port(text) == (80, 80, "tcp")
        return
    with pytest.raises(InvalidArgument):
        check_port(text)
