"""Default paths."""

from __future__ import annotations

from pathlib import Path

DEFAULT_ROOT = Path("/var/lib/wherry")
DEFAULT_RUN = Path("/run/wherry")
DEFAULT_CONFIG = Path("/etc/wherry/daemon.json")
DEFAULT_CDI = (Path("/etc/cdi"), Path("/var/run/cdi"))
LEVELS = ("debug", "info", "warn", "error", "fatal")
