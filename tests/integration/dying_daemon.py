"""The daemon, but it kills itself beside one of its own functions: ``dying_daemon.py TARGET WHEN FILE …``.

TARGET is ``module:attribute`` or ``module:Class.attribute``, WHEN ``before`` or ``after``. It happens once
FILE is there; the remaining arguments are the daemon's.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from wherry.daemon.main import main


def deadly(function: Callable[..., Any], when: str, file: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        armed = os.path.exists(file)
        if armed and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if armed:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapper


if __name__ == "__main__":
    target, when, file = sys.argv[1:4]
    module_name, _, path = target.partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, deadly(getattr(owner, name), when, file))
    sys.exit(main(sys.argv[4:]))
