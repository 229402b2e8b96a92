"""What events say of volumes, images and archives."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from buildlab import archive, post, stream
from daemonlab import LabDaemon, wait_until

pytestmark = pytest.mark.kernel


def told(daemon: LabDaemon, **filters: list[str]) -> list[dict[str, Any]]:
    return daemon.api("GET", "/events", since=1, until=f"{time.time():.6f}", filters=filters).lines


def test_volumes_are_mounted_and_unmounted(daemon: LabDaemon, name: str) -> None:
    box = daemon.docker("create", "-v", f"{name}:/v:ro", "busybox", "true").ok()
    daemon.docker("start", "-a", box).ok()
    wait_until(lambda: len(told(daemon, volume=[name])) == 3)
    created, mounted, unmounted = told(daemon, volume=[name])
    assert (created["Action"], mounted["Action"], unmounted["Action"]) == ("create", "mount", "unmount")
    assert mounted["Actor"] == {
        "ID": name,
        "Attributes": {
            "container": box,
            "destination": "/v",
            "driver": "local",
            "propagation": "",
            "read/write": "false",
        },
    }
    assert unmounted["Actor"] == {"ID": name, "Attributes": {"container": box, "driver": "local"}}
    order = [e["Action"] for e in told(daemon) if box in json.dumps(e)]
    assert order.index("connect") < order.index("mount") < order.index("start")
    assert order.index("disconnect") < order.index("unmount")
    daemon.docker("rm", box).ok()
    daemon.docker("volume", "rm", name).ok()


def test_images_are_told_with_their_labels(daemon: LabDaemon, name: str) -> None:
    stream(post(daemon, archive({"Dockerfile": f"FROM busybox\nLABEL mine={name}\n"}), t=f"{name}:1"))
    image = daemon.api("GET", f"/images/{name}:1/json").json["Id"]
    daemon.docker("tag", f"{name}:1", f"{name}:2").ok()
    daemon.docker("save", f"{name}:1").ok()
    daemon.docker("rmi", f"{name}:2", f"{name}:1").ok()
    events = told(daemon, label=[f"mine={name}"], type=["image"])
    shown = [(e["Action"], e["Actor"]["ID"], e["Actor"]["Attributes"]["name"]) for e in events]
    assert shown == [
        ("create", image, image),
        ("tag", image, f"{name}:1"),
        ("tag", image, f"{name}:2"),
        ("save", image, f"{name}:1"),
        ("untag", image, f"{name}:2"),
        ("untag", image, f"{name}:1"),
        ("delete", image, image),
    ]


def test_an_archive_is_told_also_to_who_goes_away(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox").ok()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        client.sendall(f"GET /containers/{name}/archive?path=/bin HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(10)
    wait_until(lambda: told(daemon, container=[name], event=["archive-path"]))
    daemon.docker("rm", name).ok()


def test_a_prune_takes_names_that_no_container_has(daemon: LabDaemon, name: str) -> None:
    stream(post(daemon, archive({"Dockerfile": f"FROM busybox\nLABEL n={name}\n"}), t=f"{name}:used"))
    daemon.docker("tag", f"{name}:used", f"{name}:spare").ok()
    box = daemon.docker("create", f"{name}:used").ok()
    before = daemon.tags()
    answer = daemon.api("POST", "/images/prune", filters={"dangling": ["false"], "label": [f"n={name}"]})
    assert answer.json["ImagesDeleted"] == [{"Untagged": f"{name}:spare"}]
    assert before - daemon.tags() == {f"{name}:spare"}
    daemon.docker("rm", box).ok()
    daemon.docker("rmi", f"{name}:used").ok()


def test_a_prune_leaves_what_is_used_by_its_id(daemon: LabDaemon, name: str) -> None:
    stream(post(daemon, archive({"Dockerfile": f"FROM busybox\nLABEL n={name}\n"}), t=f"{name}:one"))
    image = daemon.api("GET", f"/images/{name}:one/json").json["Id"]
    box = daemon.docker("create", image).ok()
    answer = daemon.api("POST", "/images/prune", filters={"dangling": ["false"], "label": [f"n={name}"]})
    assert answer.json["ImagesDeleted"] is None and f"{name}:one" in daemon.tags()
    daemon.docker("rm", box).ok()
    daemon.docker("rmi", f"{name}:one").ok()
