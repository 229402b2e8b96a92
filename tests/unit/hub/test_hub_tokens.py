"""The hub's own tokens: PyJWT says what they should be."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from wherry.hub.auth.bearer import Invalid, Tokens
from wherry.hub.auth.signing import Forged, SigningKey, new_pem
from wherry.hub.core.rights import READ, Principal

PEM, OTHER = new_pem(), new_pem()


def _private(pem: str) -> ec.EllipticCurvePrivateKey:
    found = load_pem_private_key(pem.encode(), None)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    return found


def _tokens() -> Tokens:
    made, key = Tokens("here"), SigningKey("k1", PEM)
    made._keys, made._newest = {key.head: key}, key
    return made


def _claims(**changes: Any) -> dict[str, Any]:
    made = _tokens().make(Principal(1, "alice"), {"a/b": READ})
    claims: dict[str, Any] = jwt.decode(made, options={"verify_signature": False})
    return {**claims, **changes}


def _encoded(claims: dict[str, Any], pem: str = PEM, kid: str = "k1") -> str:
    return jwt.encode(claims, _private(pem), "ES256", headers={"kid": kid})


def test_each_reads_what_the_other_writes() -> None:
    """Replicas of an earlier version made their tokens with PyJWT."""
    key = SigningKey("k1", PEM)
    for claims in ({"sub": "alice"}, {"sub": "ä", "access": [{"name": "a/b"}] * 50}):
        ours, theirs = key.sign(claims), _encoded(claims)
        assert ours.rpartition(".")[0] == theirs.rpartition(".")[0]
        assert jwt.decode(ours, _private(PEM).public_key(), ["ES256"]) == claims
        assert key.claims(theirs) == claims


def test_what_is_not_ours_is_refused() -> None:
    key, good = SigningKey("k1", PEM), _encoded({"sub": "alice"})
    head, middle, last = good.split(".")
    more = base64.urlsafe_b64encode(json.dumps({"sub": "root"}).encode()).rstrip(b"=").decode()
    bad = [
        "", ".", "..", "a.b.c", f"{head}..", f"{head}.{middle}", f"{head}.{middle}.",
        f"{head}.{more}.{last}", f"{head}.{middle}.{last[:-4]}", f"{head}.{middle}.{last}AAAA",
        f"{head}.{middle}.{'A' * 86}", f"{head}.{middle}.{'!' * 86}", f"{head}.{middle}.{last}.{last}",
        _encoded({"sub": "alice"}, OTHER), _encoded({"sub": "alice"}, PEM, "k2"),
        jwt.encode({"sub": "alice"}, "", "none", headers={"kid": "k1"}),
        jwt.encode({"sub": "alice"}, "x" * 32, "HS256", headers={"kid": "k1"}),
        jwt.encode({"sub": "alice"}, _private(PEM), "ES256", headers={"kid": "k1", "jku": "https://evil"}),
    ]  # fmt: skip
    for token in bad:
        with pytest.raises(Forged):
            key.claims(token)
        with pytest.raises(Invalid):
            _tokens().check(token)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 1},
        {"nbf": int(time.time()) + 10**6},
        {"aud": "there"},
        {"aud": ["here"]},
        {"iss": "there"},
        {"exp": "soon"},
        {"exp": None},
        {"wherry": {}},
        {"access": [1]},
    ],
)
def test_claims_that_do_not_count(changes: dict[str, Any]) -> None:
    tokens = _tokens()
    assert tokens.check(_encoded(_claims())).access == {"a/b": READ}
    with pytest.raises(Invalid):
        tokens.check(_encoded(_claims(**changes)))
    for name in changes:
        claims = _claims()
        del claims[name]
        with pytest.raises(Invalid):
            tokens.check(_encoded(claims))
