"""``wherry update``: limits, restart policy, mounts, devices and ports of containers, also while they run."""

from __future__ import annotations

from wherry.cli.command import UNLIMITED, Command, each
from wherry.cli.console import indented
from wherry.cli.create import ports
from wherry.cli.create.body import POLICIES, device, restart_policy
from wherry.cli.create.flags import MOUNT, RESOURCES
from wherry.cli.create.kinds import is_ip
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import LIST, STRING
from wherry.client import containers
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

    Object = dict[str, Any]

_NUMBERS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}
_TEXTS = {"cpuset-cpus": "CpusetCpus", "cpuset-mems": "CpusetMems"}


def update(ctx: Context, options: Options, args: list[str]) -> int:
    if not any(options.given(flag.name) for flag in UPDATE.flags):
        raise InvalidArgument("you must provide one or more flags when using this command")
    body = build(options)

    def one(name: str) -> str:
        answer = containers.update(ctx.api, name, body)
        for warning in answer.get("Warnings") or []:
            ctx.complain(indented(str(warning)))
        return name

    return each(ctx, args, one)


def build(options: Options) -> Object:
    """The body of ``POST /containers/{id}/update``: only the given flags."""
    body: Object = {member: options.number(flag) for flag, member in _NUMBERS.items() if options.given(flag)}
    body |= {member: options.text(flag) for flag, member in _TEXTS.items() if options.given(flag)}
    if options.given("restart"):
        policy = restart_policy(options.text("restart"))
        if policy["Name"] not in POLICIES:
            raise InvalidArgument(f"invalid restart policy: unknown policy '{policy['Name']}'")
        body["RestartPolicy"] = policy
    if options.given("mount-add"):
        body["MountsAdd"] = options.get("mount-add")
    if options.given("device-add"):
        body["DevicesAdd"] = [device(spec) for spec in options.many("device-add")]
    if options.given("publish-add"):
        body["PublishAdd"] = ports.parse(options.many("publish-add"))
    for flag, member in (("mount-rm", "MountsRemove"), ("device-rm", "DevicesRemove")):
        if options.given(flag):
            body[member] = options.many(flag)
    if options.given("publish-rm"):
        body["PublishRemove"] = [_published(spec) for spec in options.many("publish-rm")]
    return body


def _published(spec: str) -> str:
    """A published port in the API's form, ``[address:]port[/protocol]``; the form of ``-p`` is accepted as
    well."""
    place, slash, protocol = spec.partition("/")
    head, colon, _container = place.rpartition(":")
    if colon and not is_ip(head.strip("[]")):
        place = head  # [address:]port:container-port
    return place + slash + protocol


def _resource(name: str) -> Flag:
    return next(flag for flag in RESOURCES if flag.name == name)


UPDATE = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    update,
    (
        *(_resource(name) for name in (*_NUMBERS, *_TEXTS)),
        Flag("restart", "", STRING, "Restart policy to apply when a container exits"),
        Flag("mount-add", "", MOUNT, "Mount a filesystem into the container (as --mount of run)"),
        Flag("mount-rm", "", LIST, "Unmount what is mounted at a path of the container"),
        Flag("device-add", "", LIST, "Add a host device to the container", complete="file"),
        Flag("device-rm", "", LIST, "Take a device that was added from the container"),
        Flag("publish-add", "", LIST, "Publish a further port (as --publish of run)"),
        Flag("publish-rm", "", LIST, "Take back a published port ([address:]host-port[/protocol])"),
    ),
    least=1,
    most=UNLIMITED,
    complete="container",
)
