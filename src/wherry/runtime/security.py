"""``--security-opt``, and the administrator's defaults for containers without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wherry.errors import InvalidArgument


@dataclass(frozen=True)
class SecurityDefaults:
    """``seccomp`` is as in :class:`SecurityOptions`, ``profile`` how it is called: ``builtin``,
    ``unconfined`` or the
    path of its file."""

    seccomp: str = ""
    profile: str = "builtin"
    no_new_privileges: bool = False


BUILTIN = SecurityDefaults()


@dataclass(frozen=True)
class SecurityOptions:
    """``--security-opt``, parsed. ``seccomp`` is ``""`` (default), ``unconfined``, or a profile as JSON."""

    seccomp: str = ""
    no_new_privileges: bool = False
    unmask: bool = False
    writable_cgroups: bool = False


def parse_security_options(
    options: Sequence[str], *, privileged: bool, defaults: SecurityDefaults = BUILTIN
) -> SecurityOptions:
    """:raises InvalidArgument: an unknown option, or one that this host's kernel does not support."""
    seccomp_value, unmask, writable_cgroups = None, False, False
    no_new_privileges = defaults.no_new_privileges
    for option in options:
        key, separator, value = option.partition("=")
        if not separator:
            key, separator, value = option.partition(":")
        if key == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
            no_new_privileges = value != "false"
        elif key == "seccomp":
            seccomp_value = "" if value == "builtin" else value
        elif key == "writable-cgroups":
            if value not in ("", "true", "false"):
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
            writable_cgroups = value != "false"
        elif key == "systempaths" and value == "unconfined":
            unmask = True
        elif key == "apparmor":
            if value not in ("unconfined", ""):
                raise InvalidArgument(f"cannot apply AppArmor profile {value}: this host has no AppArmor")
        elif key == "label":
            if value != "disable":
                raise InvalidArgument(f"cannot apply label {value}: this host has no SELinux")
        else:
            raise InvalidArgument(f'invalid --security-opt {2 if separator else 1}: "{option}"')
    if privileged:
        seccomp_value = seccomp_value or "unconfined"
    if seccomp_value is None:
        seccomp_value = defaults.seccomp
    return SecurityOptions(seccomp_value, no_new_privileges, unmask or privileged, writable_cgroups)
