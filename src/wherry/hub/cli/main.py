"""``wherry-hub``, the console script."""

from __future__ import annotations

import sys


def entry() -> None:
    try:
        from wherry.hub.cli.commands import main

        status = main(sys.argv[1:])
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] == "wherry":
            raise
        print(f"wherry-hub: {e.name} is not installed: pip install 'wherry[hub]'", file=sys.stderr)
        sys.exit(1)
    sys.exit(status)


if __name__ == "__main__":
    entry()
