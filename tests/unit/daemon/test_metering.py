"""The options of metrics, and which containers have metrics of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wherry.daemon import config as configuration
from wherry.daemon.metricsconfig import MetricsConfig
from wherry.errors import InvalidArgument
from wherry.metrics.reading import ShownContainers, label_names
from wherry.model.container import Container, ContainerConfig, ContainerState, HostConfig
from wherry.model.digest import Digest
from wherry.state.containers import ContainerRow


def loaded(tmp_path: Path, *arguments: str, **keys: object) -> MetricsConfig | None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps(keys))
    return configuration.load([*arguments, "--config-file", str(file)])[0].metrics


def test_flags_and_keys_say_the_same(tmp_path: Path) -> None:
    expected = MetricsConfig(("127.0.0.1", 9323), "team=blue", ("team", "com.example/x"))
    flags = (
        "--metrics-label",
        "team",
        "--metrics-label",
        "com.example/x",
        "--metrics-containers",
        "team=blue",
    )
    assert loaded(tmp_path, "--metrics-addr", "127.0.0.1:9323", *flags) == expected
    keys = {"metrics-labels": ["team", "com.example/x"], "metrics-containers": "team=blue"}
    assert loaded(tmp_path, **{"metrics-addr": "127.0.0.1:9323", **keys}) == expected
    assert loaded(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [(":9323", ("0.0.0.0", 9323)), ("[::1]:80", ("::1", 80)), ("host.example:0", ("host.example", 0))],
)
def test_addresses(tmp_path: Path, text: str, address: tuple[str, int]) -> None:
    found = loaded(tmp_path, "--metrics-addr", text)
    assert found is not None and found.address == address


@pytest.mark.parametrize("text", ["9323", "host:", "host:65536", "http://host:1", "::1:80", "host:1/metrics"])
def test_what_is_no_address(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidArgument, match="expected HOST:PORT"):
        loaded(tmp_path, "--metrics-addr", text)


@pytest.mark.parametrize("keys", [{"metrics-labels": ["a"]}, {"metrics-containers": "none"}])
def test_the_others_are_not_ignored_without_it(tmp_path: Path, keys: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="need metrics-addr"):
        loaded(tmp_path, **keys)


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ("all", True),
        ("none", False),
        ("team", True),
        ("team=blue", True),
        ("team=red", False),
        ("other", False),
    ],
)
def test_which_containers_are_shown(which: str, wanted: bool) -> None:
    config = ContainerConfig(image="x", labels={"team": "blue"})
    record = Container(
        id="1" * 64, created=1, image_ref="x", image_id=Digest(f"sha256:{1:064}"), chain_id=None,
        platform="linux/amd64", path="sh", args=[], config=config, host_config=HostConfig(), networks={},
        mounts=[], storage_driver="overlay",
    )  # fmt: skip
    assert ShownContainers(which).wants(ContainerRow("name", record, ContainerState())) is wanted


def test_names_of_labels_are_names_of_prometheus() -> None:
    assert label_names(["team", "com.example/x-y"]) == [
        "container_label_team",
        "container_label_com_example_x_y",
    ]
