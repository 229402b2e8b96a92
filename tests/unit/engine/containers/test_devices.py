"""``--gpus`` as devices that a vendor describes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wherry.engine.containers.devices import Devices
from wherry.errors import InvalidArgument
from wherry.model.container import DeviceRequest
from wherry.runtime.cdi import CdiRegistry

GPU = [["gpu"]]


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    names = ["0", "1", "10", "2", "all"]
    spec = {
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": n, "containerEdits": {"env": [f"GPU_{n}=1"]}} for n in names],
    }
    (tmp_path / "nvidia.json").write_text(json.dumps(spec))
    return Devices(CdiRegistry([tmp_path]))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (DeviceRequest(count=-1, capabilities=GPU), ["GPU_all=1"]),
        (DeviceRequest(count=2, capabilities=GPU), ["GPU_0=1", "GPU_1=1"]),
        (DeviceRequest(count=3, capabilities=GPU), ["GPU_0=1", "GPU_1=1", "GPU_2=1"]),
        (DeviceRequest(device_ids=["10"], capabilities=GPU), ["GPU_10=1"]),
        (DeviceRequest(driver="nvidia", count=1, capabilities=[["gpu", "utility"]]), ["GPU_0=1"]),
        (DeviceRequest(driver="cdi", device_ids=["nvidia.com/gpu=2"]), ["GPU_2=1"]),
    ],
)
def test_what_is_chosen(devices: Devices, request_: DeviceRequest, expected: list[str]) -> None:
    assert list(devices.resolve([request_]).env) == expected


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (DeviceRequest(driver="amd", count=-1, capabilities=GPU), 'device driver "amd" with capabilities'),
        (DeviceRequest(count=-1, capabilities=[["tpu"]]), r"capabilities: \[\[tpu\]\]"),
        (DeviceRequest(count=9, capabilities=GPU), "cannot give 9 GPUs"),
        (DeviceRequest(count=1, device_ids=["0"], capabilities=GPU), "both Count and DeviceIDs"),
        (DeviceRequest(driver="cdi", device_ids=["nope"]), "invalid CDI device name"),
        (DeviceRequest(driver="cdi", device_ids=["a/b=c"]), "unresolvable CDI devices a/b=c"),
        (DeviceRequest(device_ids=["77"], capabilities=GPU), "unresolvable CDI devices nvidia.com/gpu=77"),
    ],
)
def test_what_is_refused(devices: Devices, request_: DeviceRequest, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        devices.resolve([request_])


def test_without_specs_there_is_no_driver(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match='could not select device driver "" with capabilities'):
        Devices(CdiRegistry([tmp_path])).resolve([DeviceRequest(count=-1, capabilities=GPU)])
