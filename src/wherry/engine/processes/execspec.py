"""The OCI ``process`` of an exec: the container's own process with the requested changes."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from wherry.engine.containers.bundle import environment
from wherry.errors import InvalidArgument
from wherry.linux import users
from wherry.model.container import Container
from wherry.model.exec import ExecConfig
from wherry.runtime import limits
from wherry.runtime.security import SecurityDefaults, parse_security_options
from wherry.runtime.spec import Process, capability_set, process_section


def check_user(record: Container, user: str, rootfs: Path) -> None:
    """:raises InvalidArgument: no such user or group in the container now; with Docker's message."""
    root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        users.lookup(root_fd, user, record.host_config.group_add or ())
    finally:
        os.close(root_fd)


def process_document(
    record: Container,
    config: ExecConfig,
    rootfs: Path,
    defaults: SecurityDefaults,
    console_size: tuple[int, int] | None = None,
) -> bytes:
    """OCI ``process`` as JSON. The user is looked up in the container's root as it is now.

    :raises InvalidArgument: no such user, or a working directory that is not absolute.
    """
    host = record.host_config
    root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        spec = config.user or record.config.user
        user = users.lookup(root_fd, spec, host.group_add or ())
    finally:
        os.close(root_fd)
    cwd = config.working_dir or record.config.working_dir or "/"
    if not cwd.startswith("/"):
        raise InvalidArgument(f"the working directory '{cwd}' is invalid, it needs to be an absolute path")
    env = environment(record, user.home, record.config.hostname or record.id[:12])
    if config.tty:
        env = [e for e in env if not e.startswith("TERM=")] + ["TERM=xterm"]
    if config.user and not any(e.startswith("HOME=") for e in record.config.env or ()):
        env = [e for e in env if not e.startswith("HOME=")] + [f"HOME={user.home}"]
    named = {e.partition("=")[0] for e in config.env or () if "=" in e}
    removed = {e for e in config.env or () if "=" not in e}
    env = [e for e in env if e.partition("=")[0] not in named | removed]
    env += [e for e in config.env or () if "=" in e and e != "HOME="]
    if not any(e.startswith("HOME=") for e in env):
        env.append(f"HOME={user.home}")
    process = Process(
        args=(config.cmd or []),
        env=env,
        cwd=cwd,
        user=user,
        terminal=config.tty,
        console_size=console_size or (0, 0),
        oom_score_adj=host.oom_score_adj,
    )
    privileged = msgspec.structs.replace(host, privileged=True) if config.privileged else host
    security = parse_security_options(host.security_opt or (), privileged=host.privileged, defaults=defaults)
    section = process_section(
        process,
        caps=capability_set(privileged),
        rlimits=limits.rlimits(host),
        no_new_privileges=security.no_new_privileges,
    )
    return msgspec.json.encode(section)
