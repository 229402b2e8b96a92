"""Signatures of images by key, as cosign makes them: in a manifest of their own, or in a bundle.

A signature manifest (tag ``sha256-<hex>.sig``, or a referrer) has layers whose content is a "simple signing"
document that names the image's digest; the annotation holds the signature over these very bytes. A bundle
(Sigstore bundle 0.3) holds a DSSE envelope around an in-toto statement whose subject is the digest.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from wherry.errors import InvalidArgument

SIGNATURE = "dev.cosignproject.cosign/signature"
"""The annotation of a layer."""
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIZE_MAX = 1 << 20


def check_key(pem: str) -> str:
    """Parse a public key: ECDSA, Ed25519 or RSA. :raises InvalidArgument: not a public key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as e:
        raise InvalidArgument("not a public key in PEM format: use the file cosign.pub") from e
    return pem


def tag_of(digest: str) -> str:
    """The tag under which cosign keeps the signatures of an image."""
    return f"{digest.replace(':', '-')}.sig"


def signs(payload: bytes, signature: str, digest: str, pem: str) -> bool:
    """Whether ``payload`` is a "simple signing" document about ``digest``, signed by the key."""
    named = _get(_object(payload), "critical", "image", "docker-manifest-digest")
    return named == digest and _is_right(pem, _decoded(signature), payload)


def bundle_signs(bundle: bytes, digest: str, pem: str) -> bool:
    """Whether a bundle holds a statement about ``digest``, signed by the key."""
    envelope = _object(bundle).get("dsseEnvelope")
    if not isinstance(envelope, dict):
        return False
    payload, kind = _decoded(envelope.get("payload")), str(envelope.get("payloadType", ""))
    algorithm, _, text = digest.partition(":")
    subjects = _object(payload).get("subject")
    if not isinstance(subjects, list) or not any(_get(s, "digest", algorithm) == text for s in subjects):
        return False
    # DSSE v1 signs this encoding, not the bare payload.
    signed = b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)
    signatures = envelope.get("signatures")
    return isinstance(signatures, list) and any(
        _is_right(pem, _decoded(_get(one, "sig")), signed) for one in signatures[:16]
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _get(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return b""


def _is_right(pem: str, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(pem.encode())
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        else:
            return False
    except InvalidSignature:
        return False
    return True
