"""A daemon in which calls fail in a way nobody thought of: ``failing_daemon.py WHERE[,WHERE…] ARGUMENTS…``.

WHERE is ``module:function`` or ``module:Class.method``, with ``*N`` for the first N calls alone. It raises
:class:`ZeroDivisionError`. With ``~SECONDS`` it does not fail, but begins that much later.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
from typing import Any


def fail(where: str) -> None:
    place, _, pause = where.partition("~")
    place, _, count = place.partition("*")
    module_name, _, path = place.partition(":")
    owner: Any = importlib.import_module(module_name)
    *classes, last = path.split(".")
    for name in classes:
        owner = getattr(owner, name)
    original, left = getattr(owner, last), [int(count or 1 << 30)]

    @functools.wraps(original)
    def failing(*arguments: Any, **keywords: Any) -> Any:
        if pause:
            time.sleep(float(pause))
        elif left[0] > 0:
            left[0] -= 1
            raise ZeroDivisionError("nobody thought of this")
        return original(*arguments, **keywords)

    setattr(owner, last, failing)


if __name__ == "__main__":
    for where in sys.argv.pop(1).split(","):
        fail(where)
    from wherry.daemon.main import main

    sys.exit(main(sys.argv[1:]))
