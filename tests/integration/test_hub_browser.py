"""The hub's pages in a real browser: the journeys of a visitor, a member, an owner and an administrator;
without JavaScript; at both widths; and axe's rules for accessibility on every page.

``HUB_SCREENSHOTS=DIR`` keeps a picture of every page at 390 and 1280 pixels, light and dark, for a look.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hublab import ADMIN, LabHub, hub
from hubpages import AXE, CHROMIUM, PASSWORD, browser, fill, image, pages

pytestmark = [
    pytest.mark.xdist_group("hub-browser"),
    pytest.mark.patient(400),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs scripts/setup --with-browser"),
]
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 800}
PUBLIC = (
    "/", "/search", "/search?q=app&arch=arm64", "/search?q=nothing-of-this-name", "/r/team/app",
    "/r/team/app/-/tags",
    "/r/team/app/-/tag/1.1", "/r/team/app/-/tag/1.1?show=packages", "/r/team/app/-/tag/1.1?show=referrers",
    "/r/team/app/-/tag/multi?show=raw", "/r/team/app/-/compare?a=1.0&b=1.1", "/r/team/app/-/history/latest",
    "/r/team/app/-/activity", "/r/team/app/-/insights", "/n/team", "/n/carol", "/account/login/",
    "/account/signup/",
    "/account/password/reset/", "/r/no/such",
)  # fmt: skip
PRIVATE = (
    "/", "/new", "/new/organisation", "/r/team/app", "/r/team/app/-/tags", "/r/team/app/-/history/latest",
    "/r/team/app/-/settings", "/r/team/app/-/settings/access", "/r/team/app/-/settings/rules",
    "/r/team/app/-/settings/webhooks", "/n/team", "/n/team/-/members", "/n/team/-/teams", "/n/team/-/robots",
    "/n/team/-/audit", "/n/team/-/settings", "/account/profile/", "/account/tokens/", "/account/email/",
    "/account/password/change/", "/account/2fa/", "/account/sessions/", "/account/export/",
    "/account/delete/",
    "/admin/", "/admin/accounts", "/admin/invitations", "/admin/reports", "/admin/storage", "/admin/audit",
)  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[LabHub]:
    with pages("--sign-up", "open") as found:
        fill(found)
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


class Tab:
    """A window with cookies of its own. What the browser complains about (a script that the policy refuses,
    an exception) fails the test."""

    def __init__(self, chromium: Any, lab: LabHub, **more: Any) -> None:
        self.base = f"http://{lab.host}"
        self.context = chromium.new_context(viewport=more.pop("viewport", WIDE), **more)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _said(self, message: Any) -> None:
        if message.type == "error" and "status of 404" not in message.text:
            self.complaints.append(message.text)

    def go(self, path: str) -> Any:
        self.page.goto(self.base + path)
        return self.page

    def press(self, name: str) -> None:
        """Press a button of the page, and wait for what follows."""
        with self.page.expect_navigation():
            self.page.get_by_role("button", name=name).first.click()

    def log_in(self, name: str, password: str = PASSWORD) -> Tab:
        self.go("/account/login/")
        self.page.locator("[name=login]").fill(name)
        self.page.locator("[name=password]").fill(password)
        self.press("Sign in")
        return self

    def sees(self, text: str) -> None:
        assert text in self.page.inner_text("body"), self.page.inner_text("body")[:3000]

    def close(self) -> None:
        self.context.close()
        assert not self.complaints


@pytest.fixture
def tab(chromium: Any, lab: LabHub) -> Iterator[Tab]:
    found = Tab(chromium, lab)
    yield found
    found.close()


@pytest.fixture(scope="module")
def cookies(chromium: Any, lab: LabHub) -> list[Any]:
    """Those of an administrator who is logged in."""
    made = Tab(chromium, lab).log_in(*ADMIN)
    found: list[Any] = made.context.cookies()
    made.close()
    return found


def test_a_visitor_finds_an_image(tab: Tab) -> None:
    page = tab.go("/")
    page.get_by_label("Search for an image").fill("application")
    tab.press("Search")
    page.get_by_role("link", name=re.compile("app")).first.click()
    tab.sees("docker pull")
    page.get_by_text("podman", exact=True).click()
    assert page.get_by_text("podman pull").is_visible() and not page.get_by_text("docker pull").is_visible()
    page.get_by_label("Repository").get_by_role("link", name=re.compile("^Tags")).click()
    page.get_by_label("Filter tags").fill("1.1")
    page.locator("#tags tbody tr").nth(1).wait_for(state="detached")  # htmx
    assert "q=1.1" in page.url
    page.get_by_role("link", name="1.1", exact=True).click()
    tab.sees("RUN install-step --number 1")
    page.get_by_label("Image", exact=True).get_by_role("link", name=re.compile("Packages")).click()
    tab.sees("openssl")
    tab.go("/r/team/app/-/compare?a=1.0&b=1.1")
    tab.sees("3.0.11")
    tab.sees("3.0.15")


def test_a_copy_button_copies(chromium: Any, lab: LabHub) -> None:
    tab = Tab(chromium, lab, permissions=["clipboard-read", "clipboard-write"])
    page = tab.go("/r/team/app")
    page.get_by_role("button", name="Copy the command").first.click()
    page.locator("button.copy.done").first.wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == f"docker pull {lab.host}/team/app:latest"
    tab.close()


def test_a_member_pushes_stars_and_makes_a_token(tab: Tab, lab: LabHub) -> None:
    tab.log_in("carol")
    tab.sees("Push the first image")
    image(lab, "carol/tool", "latest", seed="carol", user=("carol", PASSWORD))
    page = tab.go("/")
    tab.sees("carol/\ntool" if "carol/\ntool" in page.inner_text("body") else "carol/tool")
    tab.go("/r/team/app")
    tab.press("Star")
    tab.sees("Starred")
    tab.press("Follow")
    page = tab.go("/account/tokens/")
    page.get_by_label("What for").fill("ci")
    tab.press("Create token")
    token = re.search(r"wht_[A-Za-z0-9_-]+", page.inner_text("body"))
    assert token is not None
    lab.ask("GET", "/v2/carol/tool/manifests/latest", user=("carol", token[0])).expect(200)


def test_an_owner_reverts_a_bad_tag(tab: Tab, lab: LabHub) -> None:
    good = image(lab, "bob/site", "live", seed="good", user=("bob", PASSWORD))
    image(lab, "bob/site", "live", seed="bad", user=("bob", PASSWORD))
    tab.log_in("bob")
    tab.go("/r/bob/site/-/history/live")
    tab.press("Revert to this")
    tab.sees("points to")
    found = lab.ask("GET", "/v2/bob/site/manifests/live", user=("bob", PASSWORD))
    assert found.headers["Docker-Content-Digest"] == good
    page = tab.go("/r/bob/site/-/settings")
    tab.press("Make public")
    tab.sees("Everybody can pull it now")
    page.get_by_label(re.compile("to delete it")).fill("bob/site")
    tab.press("Delete repository")
    tab.press("Restore")
    lab.ask("GET", "/v2/bob/site/manifests/live", user=None).expect(200)


def test_an_administrator_blocks_and_looks(tab: Tab, lab: LabHub) -> None:
    lab.add_account("mallory", PASSWORD)
    tab.log_in(*ADMIN)
    page = tab.go("/admin/accounts?q=mallory")
    page.get_by_label("Action for mallory").select_option("block")
    tab.press("Do")
    lab.ask("GET", "/v2/", user=("mallory", PASSWORD)).expect(401)
    page = tab.go("/admin/")
    page.get_by_label(re.compile("A line on every page")).fill("Closed on Friday")
    tab.press("Save")
    tab.go("/")
    tab.sees("Closed on Friday")
    tab.go("/admin/storage")
    tab.sees("Without sharing")


def test_an_authenticator_then_needs_a_token_for_clients(tab: Tab, lab: LabHub) -> None:
    lab.add_account("oscar", PASSWORD)
    tab.log_in("oscar")
    page = tab.go("/account/2fa/totp/activate/")
    if "reauthenticate" in page.url:
        page.get_by_label("Password").fill(PASSWORD)
        tab.press("Confirm")
    secret = page.get_by_label(re.compile("secret", re.IGNORECASE)).input_value()
    page.get_by_label(re.compile("code", re.IGNORECASE)).fill(_code(secret))
    tab.press("Activate")
    lab.ask("GET", "/v2/", user=("oscar", PASSWORD)).expect(401)
    page = tab.go("/account/tokens/")
    page.get_by_label("What for").fill("docker")
    tab.press("Create token")
    token = re.search(r"wht_[A-Za-z0-9_-]+", page.inner_text("body"))
    assert token is not None
    lab.ask("GET", "/v2/", user=("oscar", token[0])).expect(200)
    tab.context.clear_cookies()
    tab.log_in("oscar")
    assert "2fa/authenticate" in page.url


def _code(secret: str) -> str:
    """RFC 6238 with SHA-1, 30 seconds, six digits."""
    import base64
    import hmac
    import struct
    import time

    key = base64.b32decode(secret.replace(" ", "") + "=" * (-len(secret) % 8))
    mac = hmac.new(key, struct.pack(">Q", int(time.time()) // 30), "sha1").digest()
    at = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[at : at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06d}"


def test_a_passkey_logs_in(chromium: Any) -> None:
    with hub("--role", "registry,web") as lab:
        lab.add_account("peggy", PASSWORD)
        _passkey(chromium, lab)


def _passkey(chromium: Any, lab: LabHub) -> None:
    tab = Tab(chromium, lab)
    tab.base = f"http://localhost:{lab.port}"  # browsers have no passkeys for addresses
    session = tab.context.new_cdp_session(tab.page)
    session.send("WebAuthn.enable")
    session.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2", "transport": "internal", "hasResidentKey": True,
                "hasUserVerification": True, "isUserVerified": True, "automaticPresenceSimulation": True,
            }
        },
    )  # fmt: skip
    tab.log_in("peggy")
    page = tab.go("/account/2fa/webauthn/add/")
    if "reauthenticate" in page.url:
        page.get_by_label("Password").fill(PASSWORD)
        tab.press("Confirm")
    page.get_by_label("Passwordless").check()
    with page.expect_navigation():
        page.get_by_role("button", name="Add").click()
    tab.context.clear_cookies()
    page = tab.go("/account/login/")
    with page.expect_navigation():
        page.get_by_role("button", name="Sign in with a passkey").click()
    tab.sees("peggy")
    tab.close()


def test_without_scripts(chromium: Any, lab: LabHub, cookies: list[Any]) -> None:
    tab = Tab(chromium, lab, java_script_enabled=False)
    tab.context.add_cookies(cookies)
    page = tab.go("/r/team/app")
    assert page.get_by_role("button", name=re.compile("Copy")).count() == 0
    page.get_by_text("wherry", exact=True).first.click()
    assert page.get_by_text("wherry pull").is_visible()
    page = tab.go("/r/team/app/-/tags")
    page.get_by_label("Filter tags").fill("mul")
    tab.press("Filter")
    tab.sees("multi")
    assert page.locator("tbody tr").count() == 1
    page = tab.go("/")
    page.locator("details.menu summary").click()
    with page.expect_navigation():
        page.get_by_role("link", name="Tokens").click()
    page.get_by_label("What for").fill("no scripts")
    tab.press("Create token")
    tab.sees("it is not shown again")
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["390", "1280"])
def test_every_page_is_accessible_and_fits(
    chromium: Any, lab: LabHub, cookies: list[Any], size: dict[str, int], scheme: str
) -> None:
    """No serious or critical finding of axe, no sideways scrolling, no complaint of the browser."""
    if not AXE.exists():
        pytest.skip("axe-core is missing (scripts/fetch-axe)")
    findings = []
    for paths, mine in ((PUBLIC, False), (PRIVATE, True)):
        tab = Tab(chromium, lab, viewport=size, color_scheme=scheme, bypass_csp=True)
        if mine:
            tab.context.add_cookies(cookies)
        for path in paths:
            page = tab.go(path)
            page.add_script_tag(path=str(AXE))
            found = page.evaluate(
                "async () => (await axe.run({resultTypes: ['violations']})).violations"
                ".filter(v => ['serious', 'critical'].includes(v.impact))"
                ".map(v => v.id + ': ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).slice(0,"
                " 3).join('; '))"
            )
            findings += [f"{path}: {one}" for one in found]
            over = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            if over > 0:
                findings.append(f"{path}: {over} pixels too wide")
            _keep(page, path, mine, size["width"], scheme)
        tab.close()
    assert not findings, "\n".join(findings)


def _keep(page: Any, path: str, mine: bool, width: int, scheme: str) -> None:
    if "HUB_SCREENSHOTS" in os.environ:
        directory = Path(os.environ["HUB_SCREENSHOTS"])
        directory.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^a-z0-9.]+", "-", path.strip("/")).strip("-") or "home"
        page.screenshot(
            path=str(directory / f"{'member' if mine else 'visitor'}-{name}-{width}-{scheme}.png"),
            full_page=True,
        )
