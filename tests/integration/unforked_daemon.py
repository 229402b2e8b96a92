"""The daemon without a fork server: every confined child is an interpreter of its own."""

from __future__ import annotations

import sys
from typing import Any

from wherry.daemon.entry import imported
from wherry.storage.confined import children

if __name__ == "__main__":
    children.SERVER = None
    daemon: Any = imported()
    sys.exit(daemon.main(sys.argv[1:]))
