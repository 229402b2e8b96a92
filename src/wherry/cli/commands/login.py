"""``wherry login`` and ``wherry logout``."""

from __future__ import annotations

import sys

from wherry.cli.command import Command, Failure
from wherry.cli.console import on_terminal
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, STRING
from wherry.client import registries
from wherry.client.credentials import HUB, Auth, CredentialStore, host_of, key_for
from wherry.errors import Unauthorized

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options


def login(ctx: Context, options: Options, args: list[str]) -> int:
    key = _key(args[0] if args else "")
    store = CredentialStore(ctx.config_dir)
    username, password = options.text("username"), options.text("password")
    if options.on("password-stdin"):
        if options.given("password"):
            raise Failure("--password and --password-stdin are mutually exclusive")
        if not username:
            raise Failure("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
        if not password:
            raise Failure("password is empty")
    elif options.given("password"):
        ctx.complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if not username and not password and (known := store.get(key)):
        ctx.say("Authenticating with existing credentials...")
        try:
            return _check(ctx, store, known)
        except Unauthorized as e:
            ctx.complain(f"Login did not succeed, error: {e.message}")
            username = known.username
    auth = Auth(key, *_ask(ctx, key, username, password))
    return _check(ctx, store, auth)


def _ask(ctx: Context, key: str, username: str, password: str) -> tuple[str, str]:
    if not (username and password) and not on_terminal(0):
        raise Failure("cannot perform an interactive login from a non-TTY device")
    if not username:
        ctx.write(f"Username for {host_of(key)}: ")
        sys.stdout.flush()
        username = sys.stdin.readline().strip()
        if not username:
            raise Failure("username is required")
    if not password:
        from getpass import getpass

        password = getpass("Password: ")
        if not password:
            raise Failure("password is required")
    return username, password


def _check(ctx: Context, store: CredentialStore, auth: Auth) -> int:
    answer = registries.login(ctx.api, auth.wire)
    if token := str(answer.get("IdentityToken") or ""):
        auth = Auth(auth.server, auth.username, "", token)
    path = store.put(auth)
    if path:
        ctx.complain(
            f"\nWARNING! The credentials are now in {path}, not encrypted. "
            "A credential helper (credsStore, credHelpers) avoids that.\n"
        )
    ctx.say(str(answer.get("Status") or "Login Succeeded"))
    return 0


def logout(ctx: Context, _options: Options, args: list[str]) -> int:
    key = _key(args[0] if args else "")
    shown = "docker.io" if key == HUB else key
    if CredentialStore(ctx.config_dir).remove(key):
        ctx.say(f"Removing login credentials for {shown}")
    else:
        ctx.say(f"Not logged in to {shown}")
    return 0


def _key(server: str) -> str:
    """The key of a registry as the user names it."""
    host = host_of(server) if server else ""
    if host and (not host.isprintable() or any(c in host for c in " ?#@")):
        raise Failure(f"invalid registry {server!r}")
    return key_for(host)


LOGIN = Command(
    "[OPTIONS] [SERVER]",
    login,
    (
        Flag("password", "p", STRING, "Password or Personal Access Token (PAT)"),
        Flag("password-stdin", "", BOOL, "Take the Password or Personal Access Token (PAT) from stdin"),
        Flag("username", "u", STRING, "Username"),
    ),
    most=1,
    description="Log in to a registry, Docker Hub if none is named",
)
LOGOUT = Command(
    "[SERVER]", logout, most=1, description="Log out from a registry, Docker Hub if none is named"
)
