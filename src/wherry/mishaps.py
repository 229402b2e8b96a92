"""An error of one object stays with it: the one place where an error of whatever type ends.

What the daemon does for many (at its start for every container, network and build) must not end with the
first that goes wrong in a way nobody thought of. So each is done within :func:`contained`, which writes the
log line and lets the caller note the error as the object's own state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wherry.errors import WherryError

log = logging.getLogger(__name__)


@contextmanager
def contained(what: str, told: Callable[[str], None] | None = None) -> Iterator[None]:
    """Run a block whose error concerns one object alone.

    :param what: what was to be done to it, as in "adopt container 0123456789ab".
    :param told: notes the reason as the object's state. It may fail too, which is logged.
    """
    try:
        yield
    except Exception as e:
        reason = reason_of(e)
        # An error of ours says all there is to say; of any other the place is wanted.
        log.error("cannot %s: %s", what, reason, exc_info=None if isinstance(e, WherryError) else e)
        if told is not None:
            try:
                told(reason)
            except Exception:
                log.exception("cannot note what kept from this: %s", what)


def reason_of(error: BaseException) -> str:
    """The error in words."""
    return error.message if isinstance(error, WherryError) else f"{type(error).__name__}: {error}"
