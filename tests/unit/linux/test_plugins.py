"""Plugins that are found, and those that hang, die or talk nonsense."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from exampleplugin import ExamplePlugin
from patience import patiently, until

from wherry.errors import Internal, NotFound, Unavailable, WherryError
from wherry.linux.plugins import Directories, Plugins


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(f"/tmp/wherry-plugins-{secrets.token_hex(4)}")
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def plugin(place: Path, tmp_path: Path) -> Iterator[ExamplePlugin]:
    plugin = ExamplePlugin(place / "p.sock", tmp_path / "data")
    yield plugin
    plugin.close()


def plugins(place: Path, timeout: float = 0.3) -> Plugins:
    return Plugins(Directories(sockets=(place,), specs=(place,)), timeout=timeout)


def test_found_by_socket_and_description(plugin: ExamplePlugin, place: Path) -> None:
    (place / "sub").mkdir()
    (place / "sub" / "sub.sock").symlink_to(plugin.address)
    (place / "spec.spec").write_text(f"unix://{plugin.address}\n")
    (place / "json.json").write_text(json.dumps({"Name": "json", "Addr": f"unix://{plugin.address}"}))
    for name in ("p", "sub", "spec", "json"):
        assert plugins(place).call(name, "VolumeDriver.List") == {"Volumes": [], "Err": ""}
    for name in ("none", "../p", "", "a" * 200):
        with pytest.raises(NotFound, match="not found"):
            plugins(place).find(name, "VolumeDriver")
    with pytest.raises(NotFound):
        plugins(place).find("p", "NetworkDriver")
    (place / "bad.json").write_text("{}")
    (place / "odd.spec").write_text("ftp://x")
    (place / "gone.spec").write_text("unix:///nowhere.sock")
    with pytest.raises(Internal, match="description of plugin bad"):
        plugins(place).find("bad", "VolumeDriver")
    for name, words in (("odd", "no known kind"), ("gone", "No such file")):
        with pytest.raises(Unavailable, match=words):
            plugins(place).find(name, "VolumeDriver")


@pytest.mark.parametrize("how", ["hang", "drip", "die", "garbage", "huge", "no, thanks"])
def test_one_that_misbehaves_is_a_clear_error(plugin: ExamplePlugin, place: Path, how: str) -> None:
    plugin.misbehave = {"VolumeDriver.List": how}
    words = {
        "hang": "does not answer VolumeDriver.List within 0.3 s",
        "drip": "does not answer VolumeDriver.List within 0.3 s",
        "die": "does not answer VolumeDriver.List: ",
        "garbage": "answers VolumeDriver.List with no JSON",
        "huge": "with more than",
    }.get(how, "plugin p: VolumeDriver.List: no, thanks")
    with pytest.raises(WherryError, match=words):
        plugins(place).call("p", "VolumeDriver.List")


def test_a_plugin_that_hangs_takes_so_many_threads_and_no_more(plugin: ExamplePlugin, place: Path) -> None:
    found = plugins(place, timeout=patiently(60))
    plugin.misbehave = {"VolumeDriver.Mount": "hang"}
    said: list[str] = []

    def mount() -> None:
        try:
            found.call("p", "VolumeDriver.Mount")
        except WherryError as e:
            said.append(e.message)

    found.find("p", "VolumeDriver")
    threads = [threading.Thread(target=mount) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(said) == 2)
    assert said == ["plugin p does not answer VolumeDriver.Mount: it has 6 calls to answer already"] * 2
    plugin.close()  # it dies: who waits is told
    for thread in threads:
        thread.join(patiently(10))
    assert len(said) == 8 and not any(thread.is_alive() for thread in threads)


def test_one_that_comes_back_is_found_again(plugin: ExamplePlugin, place: Path, tmp_path: Path) -> None:
    found = plugins(place)
    assert found.call("p", "VolumeDriver.List")["Volumes"] == []
    plugin.close()
    with pytest.raises(Unavailable):
        found.call("p", "VolumeDriver.List")
    with pytest.raises(NotFound):
        found.call("p", "VolumeDriver.List")
    again = ExamplePlugin(plugin.address, tmp_path / "data")
    try:
        assert found.call("p", "VolumeDriver.List")["Volumes"] == []
    finally:
        again.close()
