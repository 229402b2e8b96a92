"""``doctor --fix``: install the packages that findings name. Nothing else of the host is changed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from wherry.doctor.findings import Finding
from wherry.errors import Unavailable

_PACKAGE = re.compile(r"\binstall package ([a-z0-9.+-]+)")


def packages(found: Sequence[Finding]) -> list[str]:
    """The packages that are missing."""
    return sorted({name for one in found for name in _PACKAGE.findall(one.do)})


def install(names: Sequence[str]) -> None:
    """:raises Unavailable: this is not root on Debian, or apt-get fails, which says why on the terminal."""
    if not names:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(f"cannot install {' '.join(names)}: this needs root, and apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install_them = ["apt-get", "install", "-y", "--no-install-recommends", *names]
    for command in (["apt-get", "update"], install_them):
        if subprocess.run(command, env=environment, check=False).returncode:
            raise Unavailable(f"{' '.join(command)} failed")
