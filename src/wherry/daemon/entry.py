"""``wherryd``, the console script. It imports the daemon as fast as it can: the first answer waits for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from wherry import memory

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def entry() -> None:
    sys.exit(imported().main(sys.argv[1:]))


def imported() -> ModuleType:
    """The module ``wherry.daemon.main``."""
    memory.grow()
    with _without_certificates():
        from wherry.daemon import main
    return main


@contextmanager
def _without_certificates() -> Iterator[None]:
    """Imports only: OpenSSL finds none of the host's certificates.

    aiohttp makes two TLS contexts when it is imported, for connectors that say nothing of TLS, and reads all
    certificates for each: 40 ms, and memory. The daemon's connectors have contexts of their own
    (``registry.transport.host_tls``).
    """
    before = {name: os.environ.get(name) for name in _CERTIFICATES}
    os.environ.update(dict.fromkeys(_CERTIFICATES, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":
    entry()
