"""What the administrator says for containers that have no ``--security-opt`` of the kind."""

from __future__ import annotations

import pytest

from wherry.runtime.security import SecurityDefaults, parse_security_options

PROFILE = '{"defaultAction": "SCMP_ACT_ALLOW"}'
STRICT = SecurityDefaults(PROFILE, "/etc/p.json", no_new_privileges=True)


@pytest.mark.parametrize(
    ("options", "privileged", "seccomp", "no_new_privileges"),
    [
        ([], False, PROFILE, True),
        (["seccomp=builtin"], False, "", True),
        (["seccomp=unconfined"], False, "unconfined", True),
        (["no-new-privileges=false"], False, PROFILE, False),
        (["no-new-privileges"], False, PROFILE, True),
        ([], True, "unconfined", True),
    ],
)
def test_defaults(options: list[str], privileged: bool, seccomp: str, no_new_privileges: bool) -> None:
    found = parse_security_options(options, privileged=privileged, defaults=STRICT)
    assert (found.seccomp, found.no_new_privileges) == (seccomp, no_new_privileges)


def test_without_any() -> None:
    found = parse_security_options([], privileged=False)
    assert (found.seccomp, found.no_new_privileges) == ("", False)
