"""nftables through libnftables (libnftables(3)), and a watch on its notifications.

The library is loaded at first use: about 2.4 MiB, and 50 microseconds for a transaction, where starting
``nft`` costs 4 milliseconds. Commands are nft(8)'s language; callers put only checked values into it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
from collections import deque
from collections.abc import Callable

from wherry.errors import Internal, Unavailable
from wherry.linux import netlink as nl
from wherry.linux.netlink import NetlinkError, NetlinkMessage, NetlinkSocket, Received

_LIBRARY = "libnftables.so.1"
_NFNL_SUBSYS_NFTABLES, _NFNLGRP_NFTABLES = 10, 7
_NFT_MSG_GETTABLE, _NFT_MSG_DELTABLE, _NFT_MSG_NEWGEN, _NFT_MSG_GETGEN = 1, 2, 15, 16
_DELETIONS = (_NFT_MSG_DELTABLE, 5, 8, 11, 14)  # of a table, chain, rule, set, element
_ADDED_RULE = 6
_NFTA_TABLE_NAME = 1
"""Of every message about a table, or what is in one."""
_NFTA_GEN_ID = 1
_OWN_KEPT = 256
_NFPROTO_INET = 1
_NFGENMSG = struct.Struct("!BBH")
_OUTPUT_JSON = 1 << 4


class NftError(Internal):
    """A transaction was refused as a whole. :ivar missing: something it names does not exist."""

    def __init__(self, text: str) -> None:
        super().__init__(f"cannot change nftables: {text}")
        # only the library knows the elements of an interval set
        self.missing = os.strerror(errno.ENOENT) in text or "element does not exist" in text


class Nft:
    """One libnftables context. Safe to use from any thread of one network namespace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library: ctypes.CDLL | None = None
        self._context: int | None = None
        self._own: deque[int] = deque(maxlen=_OWN_KEPT)

    def made(self, generation: int) -> bool:
        """Whether this object has made a generation of the rule set."""
        return generation in self._own

    def run(self, commands: str, *, json: bool = False) -> str:
        """Run commands as one transaction: all of them take effect, or none.

        :param json: output (of ``list``) as libnftables-json(5).
        :raises NftError: the kernel or the parser refused.
        :raises Unavailable: libnftables is not installed.
        """
        with self._lock:
            library = self._open()
            library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON if json else 0)
            result = library.nft_run_cmd_from_buffer(self._context, commands.encode())
            error: bytes = library.nft_ctx_get_error_buffer(self._context)
            output: bytes = library.nft_ctx_get_output_buffer(self._context)
            if result == 0 and not json:
                self._own.append(_generation())
        if result != 0:
            # the first line names the error, the next two quote the command
            raise NftError(error.decode(errors="replace").strip().split("\n")[0] or "no reason given")
        return output.decode(errors="replace")

    def close(self) -> None:
        with self._lock:
            if self._library is not None and self._context is not None:
                self._library.nft_ctx_free(self._context)
                self._context = None

    def _open(self) -> ctypes.CDLL:
        library = self._library or _load()
        self._library = library
        if self._context is None:
            self._context = library.nft_ctx_new(0)
            if not self._context:
                self._context = None
                raise Internal("cannot change nftables: no memory for a context")
            library.nft_ctx_buffer_output(self._context)
            library.nft_ctx_buffer_error(self._context)
        return library


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as e:
        raise Unavailable(
            f"cannot change nftables: {_LIBRARY} cannot be loaded ({e}); install libnftables1"
        ) from e
    pointer = ctypes.c_void_p
    library.nft_ctx_new.argtypes, library.nft_ctx_new.restype = [ctypes.c_uint32], pointer
    library.nft_ctx_free.argtypes, library.nft_ctx_free.restype = [pointer], None
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [pointer]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [pointer]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [pointer, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [pointer, ctypes.c_char_p]
    return library


def table_exists(name: str) -> bool:
    """Whether the inet table ``name`` exists."""
    payload = _NFGENMSG.pack(_NFPROTO_INET, 0, 0) + nl.string(_NFTA_TABLE_NAME, name)
    try:
        with NetlinkSocket(nl.NETLINK_NETFILTER) as sock:
            sock.request(NetlinkMessage(_NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_GETTABLE, 0, payload))
    except NetlinkError as e:
        if e.errno == errno.ENOENT:
            return False
        raise
    return True


def _generation() -> int:
    """The number of the present rule set; every transaction, whoever makes it, increments it."""
    with NetlinkSocket(nl.NETLINK_NETFILTER) as sock:
        payload = _NFGENMSG.pack(0, 0, 0)
        answers = sock.request(NetlinkMessage(_NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_GETGEN, 0, payload))
    return _generation_of(answers[0].payload)


def _generation_of(payload: bytes) -> int:
    return int.from_bytes(nl.attributes(payload[_NFGENMSG.size :]).get(_NFTA_GEN_ID, b""), "big")


class TableWatch:
    """Calls back, on its own thread, when something of an inet table with a given name is removed, or a rule
    is added to it.

    A host firewall's reload usually begins with ``flush ruleset``, which takes every table with it. The
    callback gets the rule set's generation number (see :meth:`Nft.made`), or None if notifications were lost,
    so that the change is unknown.
    """

    def __init__(self, name: str, changed: Callable[[int | None], None]) -> None:
        self._name = name
        self._changed = changed
        self._concerned = False
        self._socket = NetlinkSocket(nl.NETLINK_NETFILTER, group=_NFNLGRP_NFTABLES)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="nft-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._socket.close()
        os.close(self._stop)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop in ready:
                return
            try:
                received = self._socket.notifications()
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
                self._changed(None)
                continue
            for message in received:
                self._look_at(message)

    def _look_at(self, message: Received) -> None:
        """A transaction's messages come one after another; that of the new generation is the last."""
        if message.kind >> 8 != _NFNL_SUBSYS_NFTABLES:
            return
        kind = message.kind & 0xFF
        if kind == _NFT_MSG_NEWGEN:
            if self._concerned:
                self._concerned = False
                self._changed(_generation_of(message.payload))
        elif kind in _DELETIONS or kind == _ADDED_RULE:
            name = nl.attributes(message.payload[_NFGENMSG.size :]).get(_NFTA_TABLE_NAME, b"")
            if message.payload[0] == _NFPROTO_INET and nl.text_of(name) == self._name:
                self._concerned = True
