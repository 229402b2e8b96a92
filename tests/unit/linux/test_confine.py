"""What a child that has shut itself in cannot do any more; tried in a child, as nothing gives it back."""

from __future__ import annotations

import subprocess
import sys

import pytest
from patience import patiently

_SCRIPT = """
import ctypes, mmap, os
from wherry.linux import confine
confine.drop_capabilities(())
confine.deny_new_code()
confine.deny_system_calls()
try:
    {attempt}
except (OSError, ImportError) as e:
    os._exit(7)
os._exit(0)
"""


@pytest.mark.parametrize(
    "attempt",
    [
        "ctypes.CDLL('libresolv.so.2')",
        "import wave",
        "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
        "os.execv('/bin/true', ['true'])",
        "os.mknod('/tmp/wherry-confined', 0o20600, 259)",
        "import socket; socket.socket()",
    ],
)
def test_nothing_new_is_loaded_or_run(attempt: str) -> None:
    """CVE-2019-14271: a library of the container's, loaded by a helper that had its root already."""
    script = _SCRIPT.format(attempt=attempt)
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=patiently(20)).returncode == 7


def test_what_was_there_before_goes_on() -> None:
    script = _SCRIPT.format(attempt="open('/proc/self/status').read(); mmap.mmap(-1, 4096)")
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=patiently(20)).returncode == 0
