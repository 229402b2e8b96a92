"""The parts of a layer that are not ordinary files:
whiteouts and extended attributes (image-spec, layer.md)."""

from __future__ import annotations

OVERLAY, MERGE = "overlay", "merge"
"""The two ways to treat whiteouts; see :mod:`wherry.storage.confined.child.apply`."""
WHITEOUT = b".wh."
"""The prefix of a whiteout: it hides the rest of the name in the layers below."""
OPAQUE = WHITEOUT + b".wh..opq"
"""The name that hides everything in its directory in the layers below."""
AUFS = WHITEOUT + b".wh."
"""The prefix of AUFS's own files."""
_XATTRS = frozenset({b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"})


def carries(xattr: bytes) -> bool:
    """Whether a layer carries an extended attribute; those of the kernel and of overlayfs are left out."""
    return xattr in _XATTRS or (xattr.startswith(b"user.") and not xattr.startswith(b"user.overlay."))
