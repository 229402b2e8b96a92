"""Everything of a daemon as archives and requests, and a script that puts them into a Docker Engine.

images.tar              what ``docker load`` takes
volumes/<name>.tar      the files of a volume
requests/…json          the bodies of the requests that make volumes, networks and containers
restore.sh              carries all of it out, with curl and docker
"""

from __future__ import annotations

import json
import os

from wherry.client import containers as container_api
from wherry.client import images as image_api
from wherry.client import networks as network_api
from wherry.client import volumes as volume_api
from wherry.client.files import write_all
from wherry.errors import Conflict, InvalidArgument
from wherry.migrate.definitions import PREDEFINED, ContainerPlan, in_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from wherry.client.api import Api

    Object = dict[str, Any]

_NETWORK = ("Name", "Driver", "Internal", "Attachable", "EnableIPv4", "EnableIPv6", "Options", "Labels")
_OURS = ("Secrets",)
"""What Docker's HostConfig does not know."""

_SCRIPT = """#!/bin/sh
# Puts what lies beside this file into the Docker Engine of this host: sh restore.sh [SOCKET]
# What is there already under the same name makes a step fail; the others go on.
cd "$(dirname "$0")" || exit 1
socket=${1:-/var/run/docker.sock}
export DOCKER_HOST="unix://$socket"
failed=0
ask() { # PATH FILE
    answer=$(curl -sS --unix-socket "$socket" -H 'Content-Type: application/json' -d "@$2" \\
        -w '%{http_code}' "http://docker$1") || answer="$answer 000"
    case $answer in
    *20[0-9]) echo "$2" ;;
    *) echo "$2: FAILED: $answer" >&2; failed=1 ;;
    esac
}
[ ! -e images.tar ] || docker load -q -i images.tar || failed=1
"""


def export(api: Api, directory: str, say: Callable[[str], None]) -> None:
    """Write everything to ``directory``, which is made; ``say`` is told of each part.

    :raises Conflict: the directory has something in it. :raises InvalidArgument: it cannot be written."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if os.listdir(directory):
            raise Conflict(f"{directory} is not empty")
        for name in ("volumes", "requests"):
            os.mkdir(os.path.join(directory, name), 0o700)
    except OSError as e:
        raise InvalidArgument(f"cannot write to {directory}: {e.strerror}") from e
    steps = [_SCRIPT]
    _images(api, directory, say)
    steps += _volumes(api, directory, say)
    steps += _networks(api, directory, say)
    steps += _containers(api, directory, say)
    steps.append("exit $failed\n")
    _write(os.path.join(directory, "restore.sh"), ["".join(steps).encode()])
    say(f"written: sh {os.path.join(directory, 'restore.sh')} puts it into a Docker Engine")


def _images(api: Api, directory: str, say: Callable[[str], None]) -> None:
    names = sorted(
        {tag for image in image_api.listing(api) for tag in image.get("RepoTags") or ()} - {"<none>:<none>"}
    )
    if names:
        _write(os.path.join(directory, "images.tar"), image_api.save(api, names))
    say(f"images: {len(names)}")


def _volumes(api: Api, directory: str, say: Callable[[str], None]) -> list[str]:
    steps = []
    for volume in volume_api.listing(api).get("Volumes") or ():
        name = str(volume["Name"])
        body = {"Name": name, "Driver": volume["Driver"], "Labels": volume.get("Labels") or {}}
        body["DriverOpts"] = volume.get("Options") or {}
        steps.append(_request(directory, "volume", name, body, "/volumes/create"))
        if volume["Driver"] == "local" and not body["DriverOpts"]:
            file = os.path.join("volumes", f"{name}.tar")
            _write(os.path.join(directory, file), volume_api.export(api, name, compression="none"))
            steps.append(
                f"place=$(docker volume inspect --format '{{{{.Mountpoint}}}}' {name}) && "
                f"tar --numeric-owner --xattrs --xattrs-include='*' -xpf {file} -C \"$place\" || failed=1\n"
            )
        say(f"volume {name}")
    return steps


def _networks(api: Api, directory: str, say: Callable[[str], None]) -> list[str]:
    steps = []
    for network in network_api.listing(api):
        name = str(network["Name"])
        if name in PREDEFINED:
            continue
        body = {key: network[key] for key in _NETWORK if key in network}
        ipam = network.get("IPAM") or {}
        body["IPAM"] = {"Driver": ipam.get("Driver") or "default", "Config": ipam.get("Config") or []}
        steps.append(_request(directory, "network", name, body, "/networks/create"))
        say(f"network {name}")
    return steps


def _containers(api: Api, directory: str, say: Callable[[str], None]) -> list[str]:
    """Each after what it needs."""
    listed = sorted(container_api.listing(api, all=True), key=lambda each: int(each["Created"]))
    found = {str(each["Id"]): container_api.inspect(api, each["Id"]) for each in listed}
    plans = [ContainerPlan(_stored(container)) for container in found.values()]
    names = {plan.id: plan.name for plan in plans}
    for plan in plans:
        plan.look(names)
    steps = []
    for plan in in_order(plans):
        body = plan.body(names, plan.image_name)
        body["HostConfig"] |= {"Runtime": ""}
        body["HostConfig"] = {key: value for key, value in body["HostConfig"].items() if key not in _OURS}
        path = f"/containers/create?name={plan.name}"
        steps.append(_request(directory, "container", plan.name, body, path))
        if (found[plan.id].get("State") or {}).get("Running"):
            steps.append(f"docker start {plan.name} || failed=1\n")
        say(f"container {plan.name}")
    return steps


def _stored(container: Object) -> Object:
    """What the API tells of a container, as dockerd writes it down."""
    points = {
        point["Destination"]: {key: point.get(key) for key in ("Type", "Name", "RW")}
        for point in container.get("Mounts") or ()
    }
    config = {**container, "ID": container["Id"], "MountPoints": points}
    return {"config": config, "host": container["HostConfig"]}


def _request(directory: str, kind: str, name: str, body: Object, path: str) -> str:
    file = os.path.join("requests", f"{kind}-{name}.json")
    _write(os.path.join(directory, file), [json.dumps(body, indent=1).encode()])
    return f"ask '{path}' {file}\n"


def _write(path: str, pieces: Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in pieces:
            write_all(descriptor, piece)
    finally:
        os.close(descriptor)
