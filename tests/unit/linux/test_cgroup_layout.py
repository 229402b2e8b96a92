"""Which controllers a daemon mounts before the runtime needs them."""

from __future__ import annotations

import pytest

from wherry.linux.cgroups import missing_controllers

OWN = "10:hugetlb:/\n9:name=systemd:/\n3:cpuset:/a:b\n1:cpu,cpuacct:/\n0::/\n"
ALL = {"hugetlb", "name=systemd", "cpuset", "cpu", "cpuacct"}


@pytest.mark.parametrize(
    ("mounted", "owned_by_v2", "own_cgroups", "wanted"),
    [
        pytest.param(ALL, "", OWN, [], id="all are there"),
        pytest.param(
            ALL - {"hugetlb"}, "hugetlb\n", OWN.replace("10:hugetlb:/\n", ""), ["hugetlb"], id="v2 has it"
        ),
        pytest.param(ALL - {"hugetlb"}, "", OWN, ["hugetlb"], id="mounted in another namespace only"),
        pytest.param(ALL - {"hugetlb"}, "hugetlb", OWN, ["hugetlb"], id="both say so"),
        pytest.param(ALL - {"cpu", "cpuacct"}, "", OWN, ["cpu,cpuacct"], id="two in one hierarchy"),
        pytest.param(ALL - {"name=systemd"}, "", OWN, [], id="a named hierarchy is not the runtime's"),
    ],
)
def test_missing_controllers(
    mounted: set[str], owned_by_v2: str, own_cgroups: str, wanted: list[str]
) -> None:
    assert missing_controllers(mounted, owned_by_v2, own_cgroups) == wanted
