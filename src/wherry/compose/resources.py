"""Networks and volumes of a project: create missing ones, and replace those whose
configuration has changed."""

from __future__ import annotations

from wherry.client import containers, networks, volumes
from wherry.compose import hashing, labels
from wherry.compose.places import ComposeError
from wherry.errors import Conflict, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.client.api import Api
    from wherry.compose.project import Project
    from wherry.compose.reporting import ProjectReporter
    from wherry.compose.state import ProjectContainer

    Object = dict[str, Any]


def ensure_network(
    api: Api,
    project: Project,
    key: str,
    report: ProjectReporter,
    found: Sequence[ProjectContainer],
    *,
    dry_run: bool,
) -> None:
    """:raises ComposeError: an external network does not exist, or the network belongs to another project."""
    definition = project.networks[key]
    name = project.resource_name("networks", key)
    existing = _network(api, name)
    if definition.get("external"):
        if existing is None and name not in ("host", "none", "bridge"):
            raise ComposeError(f"network {name} declared as external, but could not be found")
        return
    wanted = hashing.of_network(definition)
    if existing is not None:
        own = existing.get("Labels") or {}
        if own.get(labels.PROJECT) != project.name or own.get(labels.NETWORK) != key:
            if not own.get(labels.NETWORK):
                report.warn(
                    f"a network with name {name} exists but was not created by compose.\n"
                    f"Set `external: true` to use an existing network"
                )
                return
            raise ComposeError(
                f"network {name} was found but has incorrect label {labels.NETWORK} set to "
                f'"{own.get(labels.NETWORK)}" '
                f'(expected: "{key}")'
            )
        if own.get(labels.CONFIG_HASH) in (wanted, None, ""):
            return
        _remove_diverged(api, name, report, found, dry_run=dry_run)
    report.network(name, "Creating")
    if not dry_run:
        try:
            networks.create(api, network_body(project, key, definition, wanted))
        except Conflict:
            if _network(api, name) is None:
                raise
        except WherryError as e:
            report.network(name, "Error")
            raise ComposeError(f"failed to create network {name}: {e.message}") from e
    report.network(name, "Created")


def _network(api: Api, name: str) -> Object | None:
    listed = networks.listing(api, {"name": [name]})
    return next((one for one in listed if one.get("Name") == name), None)


def _remove_diverged(
    api: Api, name: str, report: ProjectReporter, found: Sequence[ProjectContainer], *, dry_run: bool
) -> None:
    """Its containers are stopped and disconnected first; they are replaced afterwards, because their networks
    have changed."""
    if dry_run:
        return
    attached = (networks.inspect(api, name).get("Containers") or {}).keys()
    for container in found:
        if container.id in attached:
            report.container(container.name, "Stopping")
            containers.stop(api, container.id)
            networks.disconnect(api, name, container.id, force=True)
            container.lost_network(name)
            report.container(container.name, "Stopped")
    report.network(name, "Removing")
    networks.remove(api, name)
    report.network(name, "Removed")


def network_body(project: Project, key: str, definition: Any, config_hash: str) -> Object:
    ipam = definition.get("ipam") or {}
    body: Object = {
        "Name": project.resource_name("networks", key),
        "Driver": definition.get("driver") or "",
        "Options": {k: str(v) for k, v in (definition.get("driver_opts") or {}).items()},
        "Internal": bool(definition.get("internal")),
        "Attachable": bool(definition.get("attachable")),
        "Labels": {
            **(definition.get("labels") or {}),
            labels.NETWORK: key,
            labels.PROJECT: project.name,
            labels.VERSION: labels.SPOKEN,
            labels.CONFIG_HASH: config_hash,
        },
    }
    if ipam:
        pools = [
            {
                member: one[part]
                for part, member in (("subnet", "Subnet"), ("ip_range", "IPRange"), ("gateway", "Gateway"))
                if one.get(part)
            }
            | ({"AuxiliaryAddresses": dict(one["aux_addresses"])} if one.get("aux_addresses") else {})
            for one in ipam.get("config") or ()
        ]
        body["IPAM"] = {
            "Driver": ipam.get("driver") or "default",
            "Config": pools,
            "Options": dict(ipam.get("options") or {}),
        }
    for part, member in (("enable_ipv4", "EnableIPv4"), ("enable_ipv6", "EnableIPv6")):
        if part in definition:
            body[member] = definition[part]
    return body


def ensure_volume(
    api: Api,
    project: Project,
    key: str,
    report: ProjectReporter,
    found: Sequence[ProjectContainer],
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    """:raises ComposeError: an external volume does not exist."""
    definition = project.volumes[key]
    name = project.resource_name("volumes", key)
    existing = _volume(api, name)
    if definition.get("external"):
        if existing is None:
            raise ComposeError(f'external volume "{name}" not found')
        return
    wanted = hashing.of_volume(definition)
    if existing is not None:
        own = existing.get("Labels") or {}
        if labels.PROJECT not in own:
            report.warn(
                f'volume "{name}" already exists but was not created by Docker Compose. Use `external: '
                "true` to use an "
                "existing volume"
            )
        elif own[labels.PROJECT] != project.name:
            report.warn(
                f'volume "{name}" already exists but was created for project "{own[labels.PROJECT]}" '
                f'(expected "{project.name}"). Use `external: true` to use an existing volume'
            )
        recorded = own.get(labels.CONFIG_HASH)
        if not recorded or recorded == wanted:
            return
        question = f'Volume "{name}" exists but doesn\'t match configuration in compose file.'
        if not (yes or report.confirm(f"{question} Recreate (data will be lost)?")):
            return
        _drop_volume(api, name, report, found, dry_run=dry_run)
    report.volume(name, "Creating")
    if not dry_run:
        try:
            volumes.create(api, volume_body(project, key, definition, wanted))
        except WherryError as e:
            report.volume(name, "Error")
            raise ComposeError(f"failed to create volume {name}: {e.message}") from e
    report.volume(name, "Created")


def _volume(api: Api, name: str) -> Object | None:
    try:
        return volumes.inspect(api, name)
    except NotFound:
        return None


def _drop_volume(
    api: Api, name: str, report: ProjectReporter, found: Sequence[ProjectContainer], *, dry_run: bool
) -> None:
    if dry_run:
        return
    for container in found:
        if any(one.get("Name") == name for one in container.about.get("Mounts") or ()):
            report.container(container.name, "Removing")
            containers.stop(api, container.id)
            containers.remove(api, container.id, force=True)
            container.removed = True
            report.container(container.name, "Removed")
    report.volume(name, "Removing")
    volumes.remove(api, name)
    report.volume(name, "Removed")


def volume_body(project: Project, key: str, definition: Any, config_hash: str) -> Object:
    return {
        "Name": project.resource_name("volumes", key),
        "Driver": definition.get("driver") or "local",
        "DriverOpts": {k: str(v) for k, v in (definition.get("driver_opts") or {}).items()},
        "Labels": {
            **(definition.get("labels") or {}),
            labels.VOLUME: key,
            labels.PROJECT: project.name,
            labels.VERSION: labels.SPOKEN,
            labels.CONFIG_HASH: config_hash,
        },
    }
