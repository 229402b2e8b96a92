"""RUN: turn the instruction into an operation: words, variables, mounts."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from wherry.dockerfile import configs, lines
from wherry.dockerfile import instructions as ins
from wherry.dockerfile.args import PROXIES
from wherry.dockerfile.errors import is_text
from wherry.errors import InvalidArgument
from wherry.model.oci import ImageRunConfig
from wherry.solver.graph import MountOp, RunOp

_ID_MAX = (1 << 31) - 1
_SIZE = re.compile(r"(\d{1,15})([kmgt]?)b?", re.IGNORECASE | re.ASCII)
_PIPES = "/dev/pipes"
_SECRETS = "/run/secrets"
_AGENT = "/run/buildkit/ssh_agent"


def operation(
    run: ins.Run,
    config: ImageRunConfig,
    *,
    args: Mapping[str, str],
    proxies: Mapping[str, str],
    sources: Mapping[str, int],
    network: str,
    entitlements: frozenset[str],
    epoch: int | None,
) -> RunOp:
    """:param args: those that take precedence over variables of the same name.
    :param sources: the index into the vertex's sources for each mount's ``from``.

    :raises InvalidArgument: an invalid value, or something that the client did not allow.
    """
    words, files = _command(run, config)
    if not words:
        raise InvalidArgument("RUN needs a command")
    environment = {**configs.environment(config), **{k: v for k, v in args.items() if k not in PROXIES}}
    if epoch is not None:
        environment.setdefault("SOURCE_DATE_EPOCH", str(epoch))
    chosen = run.network if run.network != "default" else network
    if run.network == "host" and "network.host" not in entitlements:
        raise InvalidArgument("granting entitlement network.host is not allowed by build --allow")
    if run.security == "insecure" and "security.insecure" not in entitlements:
        raise InvalidArgument("granting entitlement security.insecure is not allowed by build --allow")
    secret = {**proxies, **{k: v for k, v in args.items() if k in PROXIES}}
    cwd = config.working_dir or "/"
    return RunOp(
        args=words,
        env=tuple(f"{key}={value}" for key, value in environment.items()),
        cwd=cwd,
        user=config.user,
        mounts=tuple(_mount(mount, cwd, sources) for mount in run.mounts),
        network=chosen,
        security=run.security,
        devices=run.devices,
        files=files,
        secret_env=tuple(f"{key}={value}" for key, value in sorted(secret.items())),
    )


def _command(run: ins.Run, config: ImageRunConfig) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The words to execute, and the scripts that they need.

    A here-document that is the whole command is the script itself; with its own interpreter (``#!``) it
    becomes a file. Any other is passed to the shell as it is.
    """
    if not run.heredocs:
        return tuple(configs.command(run, config)), ()
    shell = tuple(config.shell or configs.DEFAULT_SHELL)
    first = run.heredocs[0]
    line = run.words[0] if run.words else ""
    if lines.heredoc_mark(line) is not None:
        if first.content.startswith("#!"):
            path = f"{_PIPES}/{first.name}"
            return (path,), ((path, first.content),)
        text = first.content
    else:
        text = line
        for heredoc in run.heredocs:
            text += f"\n{heredoc.content}{heredoc.name}"
    if not is_text(text):
        raise InvalidArgument("RUN has bytes that are not valid UTF-8")
    return (*shell, text), ()


def _mount(mount: ins.RunMount, cwd: str, sources: Mapping[str, int]) -> MountOp:
    target = configs.clean(posixpath.join(cwd, mount.target)) if mount.target else ""
    identifier = mount.id
    if mount.type in ("secret", "ssh"):
        if mount.type == "ssh":
            identifier = identifier or "default"
            target = target or f"{_AGENT}.0"
        elif not identifier:
            identifier = posixpath.basename(target)
        if mount.type == "secret":
            if not identifier:
                raise InvalidArgument("a secret mount needs an id or a target")
            if not target and mount.env is None:
                target = f"{_SECRETS}/{posixpath.basename(identifier)}"
    elif not target:
        raise InvalidArgument(f"invalid mount target {mount.target!r} of type {mount.type}")
    if target == "/":
        raise InvalidArgument('invalid mount target "/"')
    uses_source = mount.type == "bind" or bool(mount.from_)
    return MountOp(
        type=mount.type,
        target=target,
        source=sources[mount.from_.lower()] if uses_source else -1,
        path=configs.clean(mount.source) if mount.source else "/",
        readonly=mount.readonly,
        id=identifier or target,
        sharing=mount.sharing or "shared",
        mode=_mode(mount.mode),
        uid=_number(mount.uid, "uid"),
        gid=_number(mount.gid, "gid"),
        size=_size(mount.size),
        required=mount.required,
        env=mount.env,
    )


def _mode(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise InvalidArgument(f"invalid mount mode {text!r}")
    return int(text, 8)


def _number(text: str, what: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 11 and int(text) <= _ID_MAX):
        raise InvalidArgument(f"invalid mount {what} {text!r}")
    return int(text)


def _size(text: str) -> int:
    if not text:
        return 0
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"invalid mount size {text!r}")
    return int(found[1]) << 10 * " kmgt".index((found[2] or " ").lower())


def history(op: RunOp, args: Mapping[str, str], *hidden: str) -> str:
    """Docker's form: the number of arguments, each argument, the words. Proxies are left out."""
    shown = [f"{k}={v}" for k, v in sorted(args.items()) if k not in PROXIES and k not in hidden]
    prefix = [f"|{len(shown)}", *shown] if shown else []
    return " ".join([*prefix, *op.args])
