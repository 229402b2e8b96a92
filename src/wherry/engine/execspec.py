"""What an exec runs, as the OCI runtime wants it: the container's own process, changed as asked."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from wherry.engine.bundle import environment
from wherry.engine.normalise import as_list
from wherry.errors import InvalidArgument
from wherry.linux import users
from wherry.model.container import Container
from wherry.model.exec import ExecConfig
from wherry.runtime import limits
from wherry.runtime.spec import Process, capability_set, parse_security_options, process_section


def process_document(
    record: Container, config: ExecConfig, rootfs: Path, console_size: tuple[int, int] | None = None
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
    env += [e for e in config.env or () if "=" in e]
    process = Process(
        args=as_list(config.cmd),
        env=env,
        cwd=cwd,
        user=user,
        terminal=config.tty,
        console_size=console_size or (0, 0),
    )
    privileged = msgspec.structs.replace(host, privileged=True) if config.privileged else host
    security = parse_security_options(host.security_opt or (), privileged=host.privileged)
    section = process_section(
        process,
        caps=capability_set(privileged),
        rlimits=limits.rlimits(host),
        no_new_privileges=security.no_new_privileges and not config.privileged,
    )
    return msgspec.json.encode(section)
