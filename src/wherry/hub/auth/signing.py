"""JSON web tokens of this hub's own making: the compact form (RFC 7515) with ES256 (RFC 7518, 3.4) only.

Nothing in a token chooses how it is checked: its first part must be, byte for byte, the one that a key of
ours writes. Tokens of others (:mod:`~wherry.hub.auth.identities`) are checked by PyJWT, which takes twice the
processor time and is imported when the first one comes.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

ALGORITHM = "ES256"
_HALF = 32
"""Bytes of each of the two numbers of a signature."""
_ECDSA = ec.ECDSA(hashes.SHA256())


class Forged(Exception):
    """The text was not signed by this key."""


class SigningKey:
    """:ivar kid: its id. :ivar head: the first part of each of its tokens."""

    def __init__(self, kid: str, pem: str) -> None:
        private = serialization.load_pem_private_key(pem.encode(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        self._private, self._public = private, private.public_key()
        self.kid = kid
        self.head = _coded(_json({"alg": ALGORITHM, "kid": kid, "typ": "JWT"}))

    def sign(self, claims: dict[str, Any]) -> str:
        """The token."""
        text = f"{self.head}.{_coded(_json(claims))}"
        r, s = decode_dss_signature(self._private.sign(text.encode(), _ECDSA))
        return f"{text}.{_coded(r.to_bytes(_HALF, 'big') + s.to_bytes(_HALF, 'big'))}"

    def claims(self, token: str) -> Any:
        """What a token says. :raises Forged:"""
        text, _, last = token.rpartition(".")
        head, _, middle = text.partition(".")
        if head != self.head:
            raise Forged("signed by another key")
        try:
            both = _decoded(last)
            if len(both) != 2 * _HALF:
                raise Forged("no signature")
            r, s = int.from_bytes(both[:_HALF], "big"), int.from_bytes(both[_HALF:], "big")
            self._public.verify(encode_dss_signature(r, s), text.encode(), _ECDSA)
            return json.loads(_decoded(middle))
        except InvalidSignature as e:
            raise Forged("the signature is wrong") from e
        except (binascii.Error, ValueError) as e:
            raise Forged(str(e)) from e


def new_pem() -> str:
    """A new private key."""
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
