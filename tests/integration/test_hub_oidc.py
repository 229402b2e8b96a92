"""Signing in to the hub's pages by another service, which speaks OIDC: here one of the test's own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hublab import LabHub
from hubpages import PASSWORD, Visitor, pages

pytestmark = [pytest.mark.xdist_group("hub-pages"), pytest.mark.patient(240)]
CLIENT, SECRET = "the-hub", "a secret of the tests"


class LabIssuer:
    """It takes everybody for the person it is told, and checks what a client must send (PKCE, secret,
    code)."""

    def __init__(self) -> None:
        self.person = {"sub": "4711", "email": "nina@example.org", "email_verified": True, "name": "Nina"}
        self.codes: dict[str, dict[str, str]] = {}
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(issuer.get(urlsplit(self.path).path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._send(issuer.exchange(parse_qs(body), self.headers.get("Authorization", "")))

            def _send(self, document: object) -> None:
                data = json.dumps(document).encode()
                self.send_response(200 if document is not None else 400)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def get(self, path: str) -> object:
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url, "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token", "userinfo_endpoint": f"{self.url}/userinfo",
                "jwks_uri": f"{self.url}/keys", "code_challenge_methods_supported": ["S256"],
            }  # fmt: skip
        if path == "/keys":
            key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
            return {"keys": [key | {"kid": "one", "alg": "RS256", "use": "sig"}]}
        return self.person if path == "/userinfo" else None

    def authorize(self, url: str) -> str:
        """What a person's browser does there. :returns: where it is sent back to."""
        assert url.startswith(f"{self.url}/authorize?"), url
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["client_id"] == CLIENT and asked["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        target = urlsplit(asked["redirect_uri"])
        return f"{target.path}?{urlencode({'code': code, 'state': asked['state']})}"

    def exchange(self, form: dict[str, list[str]], authorization: str) -> object:
        asked = self.codes.pop(form["code"][0], None)
        secret = form.get("client_secret", [""])[0]
        if not secret and authorization.startswith("Basic "):
            secret = unquote_plus(base64.b64decode(authorization[6:]).decode().partition(":")[2])
        if asked is None or secret != SECRET:
            return None
        verifier = hashlib.sha256(form["code_verifier"][0].encode()).digest()
        if base64.urlsafe_b64encode(verifier).rstrip(b"=").decode() != asked["code_challenge"]:
            return None
        claims = {"iss": self.url, "aud": CLIENT, "iat": int(time.time()), "exp": int(time.time()) + 300}
        token = jwt.encode({**claims, **self.person}, self._key, "RS256", {"kid": "one"})
        return {"access_token": "x", "token_type": "Bearer", "id_token": token, "expires_in": 300}


@contextlib.contextmanager
def issuer() -> Iterator[LabIssuer]:
    made = LabIssuer()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


def through(lab: LabHub, visitor: Visitor, there: LabIssuer) -> str:
    """Go to the other service and come back. :returns: where the hub leads to then."""
    page = visitor.post("/account/oidc/sso/login/", {}, at="/account/login/", status=302)
    back = visitor.ask(there.authorize(page.headers["Location"]))
    assert back.status == 302, back.text[:2000]
    return str(back.headers["Location"])


def test_somebody_comes_from_another_service() -> None:
    with (
        issuer() as there,
        pages(
            "--oidc",
            there.url,
            "--oidc-client",
            CLIENT,
            "--oidc-secret",
            SECRET,
            "--oidc-name",
            "the company",
        ) as lab,
    ):
        nina = Visitor(lab)
        login = nina.get("/account/login/")
        assert "The company" in login.text
        assert f"form-action 'self' {there.url};" in login.headers["Content-Security-Policy"]
        assert through(lab, nina, there) == "/account/3rdparty/signup/"
        nina.post("/account/3rdparty/signup/", {"username": "nina", "email": "nina@example.org"}, status=302)
        assert "nina" in nina.get("/account/profile/").text
        # There is no password, so clients get a token.
        made = nina.post("/account/tokens/", {"name": "x", "scope": "write", "life": "30"}, status=200)
        assert "wht_" in made.text
        again = Visitor(lab)
        assert through(lab, again, there) == "/"
        assert "nina" in again.get("/account/profile/").text
        # The same address from there does not open an account that somebody else has here.
        lab.command(
            "account", "add", "olga", "--password-stdin", "--email", "olga@example.org", stdin=PASSWORD
        )
        there.person = {"sub": "0815", "email": "olga@example.org", "email_verified": True, "name": "Olga"}
        stranger = Visitor(lab)
        assert through(lab, stranger, there) == "/account/3rdparty/signup/"
        assert stranger.ask("/account/profile/").status == 302
        # What did not begin here is refused.
        forged = Visitor(lab).ask("/account/oidc/sso/login/callback/?code=code-9&state=forged")
        assert forged.status in (200, 302, 400, 401) and "Sign out" not in forged.text
