"""CDI spec files: what they give a container, and those that are left out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from wherry.errors import InvalidArgument
from wherry.runtime.cdi import CdiRegistry, is_qualified


def write(directory: Path, name: str, **spec: Any) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "vendor.com/net", **spec}))


def device(name: str, **edits: Any) -> dict[str, Any]:
    return {"name": name, "containerEdits": edits}


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("vendor.com/class=name", True),
        ("a/b=0", True),
        ("vendor/class=", False),
        ("/dev/null", False),
        ("vendor=x", False),
        ("v/c=a b", False),
        ("v/c=../x", False),
    ],
)
def test_qualified_names(name: str, good: bool) -> None:
    assert is_qualified(name) is good


def test_everything_a_device_can_bring(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.json",
        containerEdits={"env": ["KIND=1", "BOTH=kind"]},
        devices=[
            device(
                "eth9",
                env=["BOTH=device"],
                deviceNodes=[
                    {"path": "/dev/zero9", "hostPath": "/dev/zero", "permissions": "r"},
                    {"path": "/dev/own", "type": "c", "major": 7, "minor": 8, "fileMode": 0o600, "gid": 5},
                ],
                mounts=[{"hostPath": "/usr/lib", "containerPath": "/lib9", "options": ["ro", "bind"]}],
                hooks=[{"hookName": "createContainer", "path": "/bin/true", "args": ["true", "x"]}],
                additionalGids=[44, 44],
            ),
            device("other"),
        ],
    )
    registry = CdiRegistry([tmp_path, tmp_path / "missing"])
    assert registry.names() == ["vendor.com/net=eth9", "vendor.com/net=other"]
    got = registry.inject(["vendor.com/net=eth9", "vendor.com/net=other"])
    assert got.env == ("KIND=1", "BOTH=device")
    zero = os.stat("/dev/zero").st_rdev
    assert (got.nodes[0]["major"], got.nodes[0]["minor"]) == (os.major(zero), os.minor(zero))
    assert got.rules[0]["access"] == "r"
    assert (got.nodes[1]["fileMode"], got.nodes[1]["gid"]) == (0o600, 5)
    assert got.mounts == (("/lib9", "bind", "/usr/lib", ("ro", "bind")),)
    assert got.hooks == {"createContainer": [{"path": "/bin/true", "args": ["true", "x"], "env": []}]}
    assert got.groups == (44,)


def test_yaml(tmp_path: Path) -> None:
    text = "cdiVersion: 0.6.0\nkind: v.org/c\ndevices:\n- name: '0'\n  containerEdits:\n    env: [A=b]\n"
    (tmp_path / "x.yaml").write_text(text)
    assert CdiRegistry([tmp_path]).inject(["v.org/c=0"]).env == ("A=b",)


def test_unknown_devices_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"unresolvable CDI devices v/c=a, v/c=b"):
        CdiRegistry([tmp_path]).inject(["v/c=a", "v/c=b"])


def test_later_directories_win_and_doubles_count_for_nothing(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    write(low, "a.json", devices=[device("x", env=["A=low"]), device("y", env=["A=low"])])
    write(high, "a.json", devices=[device("x", env=["A=high"]), device("z")])
    write(high, "b.json", devices=[device("z")])
    registry = CdiRegistry([low, high])
    assert registry.inject(["vendor.com/net=x"]).env == ("A=high",)
    assert registry.names() == ["vendor.com/net=x", "vendor.com/net=y"]


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "{}",
        '{"cdiVersion":"1","kind":"../x","devices":[]}',
        '{"cdiVersion":"1","kind":"a/b","devices":[{"name":"a b"}]}',
        '{"cdiVersion":"1","kind":"a/b","devices":[{"name":"a","containerEdits":{"hooks":'
        '[{"hookName":"no-such","path":"/x"}]}}]}',
        '{"cdiVersion":"1","kind":"a/b","devices":[{"name":"a","containerEdits":{"hooks":'
        '[{"hookName":"poststop","path":"relative"}]}}]}',
        '{"cdiVersion":"1","kind":"a/b","devices":[{"name":"a","containerEdits":{"deviceNodes":'
        '[{"path":"x"}]}}]}',
    ],
)
def test_bad_specs_are_left_out_and_the_others_stay(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    (tmp_path / "bad.yaml").write_text("- [unclosed")
    os.mkfifo(tmp_path / "fifo.json")
    write(tmp_path, "good.json", devices=[device("x")])
    assert CdiRegistry([tmp_path]).names() == ["vendor.com/net=x"]


def test_a_node_the_host_does_not_have(tmp_path: Path) -> None:
    write(tmp_path, "a.json", devices=[device("x", deviceNodes=[{"path": "/dev/no-such-node"}])])
    with pytest.raises(InvalidArgument, match="the host has no device '/dev/no-such-node'"):
        CdiRegistry([tmp_path]).inject(["vendor.com/net=x"])
