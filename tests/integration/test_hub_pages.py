"""The hub's pages by HTTP: what people do, and what attackers try. Each test of a defence fails without
it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator

import hubstores
import pytest
from hublab import ADMIN, LabHub, hub
from hubpages import PASSWORD, Visitor, fill, image, mails, pages, routes
from patience import until

pytestmark = [pytest.mark.xdist_group("hub-pages"), pytest.mark.patient(240)]
EVIL = "<script>alert(1)</script>"
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(
    scope="module",
    params=[
        "sqlite",
        pytest.param(
            "postgres",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not hubstores.HAVE_POSTGRES, reason="no PostgreSQL here, or not root"),
            ],
        ),
    ],
)
def lab(request: pytest.FixtureRequest) -> Iterator[LabHub]:
    with contextlib.ExitStack() as stack:
        database = ""
        if request.param == "postgres":
            database = stack.enter_context(hubstores.postgres()).database()
        found = stack.enter_context(pages("--sign-up", "open", database=database))
        fill(found)
        yield found


@pytest.fixture
def admin(lab: LabHub) -> Visitor:
    return Visitor(lab).log_in(ADMIN[0], ADMIN[1])


@pytest.fixture(scope="module")
def members(lab: LabHub) -> dict[str, Visitor]:
    """People who are logged in: to log in costs a hash, and attempts are limited."""
    return {name: Visitor(lab).log_in(name) for name in ("bob", "carol")}


def link(text: str, part: str) -> str:
    found = re.findall(rf"https?://[^\s/]+(/[^\s]*{part}[^\s]*)", text)
    assert found, text
    return str(found[-1])


# ---- what people do ------------------------------------------------------------------------------------


def test_somebody_signs_up_confirms_and_resets(lab: LabHub) -> None:
    dave = Visitor(lab)
    form = {"username": "dave", "email": "dave@example.org", "password1": PASSWORD, "password2": PASSWORD}
    dave.post("/account/signup/", form, status=302)
    confirm = link(mails(lab), "confirm-email")
    dave.post(confirm, {}, status=302)
    dave.log_in("dave@example.org")
    assert "Your repositories" in dave.get("/").text
    # The same name and password are for docker login, and the namespace is there.
    lab.ask("GET", "/v2/", user=("dave", PASSWORD)).expect(200)
    image(lab, "dave/app", "latest", seed="dave", user=("dave", PASSWORD))
    assert "dave/app" in dave.get("/n/dave").text

    other = Visitor(lab)
    other.post("/account/password/reset/", {"email": "dave@example.org"}, status=302)
    path = link(mails(lab), "password/reset/key")
    first = other.ask(path)
    assert first.status == 302  # the key leaves the address bar
    form_path = first.headers["Location"]
    other.post(
        form_path, {"password1": "an even newer one 7", "password2": "an even newer one 7"}, status=302
    )
    lab.ask("GET", "/v2/", user=("dave", PASSWORD)).expect(401)
    lab.ask("GET", "/v2/", user=("dave", "an even newer one 7")).expect(200)
    assert other.ask(path).headers.get("Location", "") == "" or "key" in other.ask(path).text


def test_an_organisation_from_nothing(lab: LabHub, members: dict[str, Visitor]) -> None:
    bob, carol = members["bob"], members["carol"]
    bob.post("/new/organisation", {"name": "crew", "title": "The Crew"})
    page = bob.post("/n/crew/-/members", {"action": "invite", "email": "", "role": "editor"}, status=200)
    secret = re.search(r"/account/invitation/([^/]+)/", page.text)
    assert secret is not None
    carol.ask(f"/account/invitation/{secret[1]}/")
    carol.post("/account/invitation/", {})
    assert "carol" in bob.get("/n/crew/-/members").text
    # Once only.
    assert Visitor(lab).ask(f"/account/invitation/{secret[1]}/").status == 404
    image(lab, "crew/tool", "v1", seed="v1", user=("carol", PASSWORD))
    bad = image(lab, "crew/tool", "v1", seed="bad", user=("carol", PASSWORD))
    history = bob.get("/r/crew/tool/-/history/v1")
    digests = re.findall(r'name="digest" value="(sha256:[0-9a-f]+)"', history.text)
    bob.post("/r/crew/tool/-/history/v1", {"digest": digests[-1]})
    now = lab.ask("GET", "/v2/crew/tool/manifests/v1", user=("carol", PASSWORD)).expect(200)
    assert now.headers["Docker-Content-Digest"] == digests[-1] != bad

    robot = bob.post(
        "/n/crew/-/robots", {"action": "add", "robot": "ci", "level": "write", "token": "yes"}, status=200
    )
    token = re.search(r"wht_[A-Za-z0-9_-]+", robot.text)
    assert token is not None
    lab.ask("GET", "/v2/", user=("crew+ci", token[0])).expect(200)
    bob.post("/n/crew/-/teams", {"action": "add", "team": "dev"})
    bob.post("/n/crew/-/teams", {"action": "join", "team": "dev", "account": "carol"})
    bob.post("/n/crew/-/teams", {"action": "grant", "team": "dev", "repository": "*", "level": "admin"})
    assert "Settings" in carol.get("/r/crew/tool").text


def test_rename_keeps_pulls_and_links(lab: LabHub, members: dict[str, Visitor]) -> None:
    bob = members["bob"]
    image(lab, "bob/before", "latest", seed="rename", user=("bob", PASSWORD))
    bob.post("/r/bob/before/-/settings", {"action": "rename", "after": "bob/after", "confirm": "bob/before"})
    assert bob.ask("/r/bob/before").headers["Location"] == "/r/bob/after"
    lab.ask("GET", "/v2/bob/before/manifests/latest", user=("bob", PASSWORD)).expect(200)
    bearer = {"Authorization": lab.token("repository:bob/before:pull", user=("bob", PASSWORD))}
    lab.ask("GET", "/v2/bob/before/manifests/latest", headers=bearer).expect(200)
    # Somebody else can neither read it by the old name nor put something else there.
    lab.ask("GET", "/v2/bob/before/manifests/latest", user=("carol", PASSWORD)).expect(404)
    assert members["carol"].ask("/r/bob/before").status == 404
    answer = lab.ask("POST", "/v2/bob/before/blobs/uploads/", b"", user=("bob", PASSWORD))
    assert answer.status == 403, answer.body


def test_an_archived_repository_does_not_change(lab: LabHub, members: dict[str, Visitor]) -> None:
    bob = members["bob"]
    image(lab, "bob/old", "latest", seed="archive", user=("bob", PASSWORD))
    bearer = {"Authorization": lab.token("repository:bob/old:pull,push,delete", user=("bob", PASSWORD))}
    bob.post("/r/bob/old/-/settings", {"action": "archive"})
    lab.ask("GET", "/v2/bob/old/manifests/latest", user=("bob", PASSWORD)).expect(200)
    lab.ask("DELETE", "/v2/bob/old/manifests/latest", headers=bearer).expect(401, 403)
    lab.ask("DELETE", "/v2/bob/old/manifests/latest", user=("bob", PASSWORD)).expect(403)
    bob.post("/r/bob/old/-/settings", {"action": "unarchive"})
    image(lab, "bob/old", "latest", seed="again", user=("bob", PASSWORD))


def test_stars_follows_feeds_badges_reports(lab: LabHub, admin: Visitor, members: dict[str, Visitor]) -> None:
    carol = members["carol"]
    for _ in range(2):  # once is as good as twice
        carol.post("/r/team/app/-/star", {"on": "yes"}, at="/r/team/app")
    carol.post("/r/team/app/-/follow", {"on": "yes"}, at="/r/team/app")
    assert lab.ask("GET", "/api/v1/repositories/team/app", user=None).json["stars"] == 1
    assert "team/app" in carol.get("/").text
    image(lab, "team/app", "1.2", seed="three")
    assert "1.2" in carol.get("/r/team/app/-/feed.atom").text
    assert carol.get("/r/team/app/-/badge/stars.svg").headers["Content-Type"] == "image/svg+xml"
    carol.post("/r/team/app/-/report", {"reason": "spam", "message": EVIL}, at="/r/team/app")
    page = admin.get("/admin/reports").text
    assert EVIL not in page and "&lt;script&gt;" in page
    number = re.search(r'name="report" value="([0-9]+)"', page)
    assert number is not None
    admin.post("/admin/reports", {"report": number[1]})
    carol.post("/r/team/app/-/star", {"on": "no"}, at="/r/team/app")


def test_tokens_and_the_end_of_an_account(lab: LabHub, admin: Visitor) -> None:
    lab.add_account("erin", PASSWORD)
    erin = Visitor(lab).log_in("erin")
    image(lab, "erin/app", "latest", seed="erin", user=("erin", PASSWORD))
    page = erin.post(
        "/account/tokens/", {"name": "ci", "scope": "read", "life": "30", "patterns": "erin/*"}, status=200
    )
    token = re.search(r"wht_[A-Za-z0-9_-]+", page.text)
    assert token is not None
    lab.ask("GET", "/v2/erin/app/manifests/latest", user=("erin", token[0])).expect(200)
    # A token for reading changes nothing, and gives no further tokens.
    lab.ask(
        "POST", "/api/v1/tokens", b'{"name":"x"}', {"Content-Type": "application/json"}, ("erin", token[0])
    ).expect(403)
    lab.ask("PUT", "/api/v1/repositories/team/app/-/star", user=("erin", token[0])).expect(403)
    assert token[0] not in erin.get("/account/tokens/").text
    exported = erin.post("/account/export/", {}, status=200)
    assert json.loads(exported.text)["repositories"][0]["name"] == "erin/app"
    assert "argon2" not in exported.text
    erin.post("/account/delete/", {"confirm": "erin"})
    assert erin.ask("/account/profile/").status == 302
    lab.ask("GET", "/v2/", user=("erin", PASSWORD)).expect(401)
    lab.ask("GET", "/v2/", user=("erin", token[0])).expect(401)
    assert admin.ask("/r/erin/app").status == 404
    assert "erin" in lab.command("account", "add", "erin", "--password-stdin", stdin=PASSWORD, status=1)


def test_webhooks_and_rules(lab: LabHub, members: dict[str, Visitor]) -> None:
    bob = members["bob"]
    image(lab, "bob/ruled", "n-1", seed="r1", user=("bob", PASSWORD))
    image(lab, "bob/ruled", "n-2", seed="r2", user=("bob", PASSWORD))
    here = "/r/bob/ruled/-/settings"
    dry = bob.get(f"{here}/rules?tags=n-*&last=0").text
    assert "<code>n-1</code>" in dry and "<code>n-2</code>" in dry
    bob.post(f"{here}/rules", {"action": "immutable", "tags": "n-*"})
    lab.ask("DELETE", "/v2/bob/ruled/manifests/n-1", user=("bob", PASSWORD)).expect(403)
    for bad in ("http://127.0.0.1/", "https://169.254.169.254:22/", "ftp://x.example/"):
        page = bob.post(f"{here}/webhooks", {"url": bad, "event": ["manifest.push"]})
        assert "message error" in bob.get(page.headers["Location"]).text
    made = bob.post(
        f"{here}/webhooks", {"url": "https://ci.example/hook", "event": ["manifest.push"]}, status=200
    )
    number = re.search(r"settings/webhooks/([0-9]+)", made.text)
    assert number is not None and "shown only now" in made.text
    bob.post(f"{here}/webhooks/{number[1]}", {"action": "test"})
    assert "webhook.test" in bob.get(f"{here}/webhooks/{number[1]}").text
    bob.post(f"{here}/webhooks/{number[1]}", {"action": "remove"})


# ---- what attackers try --------------------------------------------------------------------------------


def test_text_of_users_stays_text(lab: LabHub, members: dict[str, Visitor]) -> None:
    bob = members["bob"]
    image(lab, "bob/evil", "latest", seed=EVIL, user=("bob", PASSWORD))
    here = "/r/bob/evil/-/settings"
    readme = (
        f"{EVIL}\n\n[a](javascript:alert(1)) [b](//evil.example) <img src=x onerror=alert(1)>\n\n"
        "![p](https://evil.example/p.png) [c](data:text/html,x) [d](/account/logout/) "
        '<a href="x" onclick="alert(1)">e</a>\n\n```\n</code></pre><script>alert(2)</script>\n```\n'
    )
    bob.post(here, {"action": "readme", "readme": readme})
    bob.post(here, {"action": "describe", "description": f'"{EVIL}', "category": []})
    for path in ("", "/-/tags", "/-/tag/latest", "/-/activity", "/-/settings"):
        text = bob.get(f"/r/bob/evil{path}").text
        assert "<script>alert" not in text, path
        # What a tag could do is tags; the words may stand in attributes' values and in text, escaped.
        for tag in re.findall(r"<[a-z][^>]*>", text):
            assert not re.search(r"\son[a-z]+\s*=", tag.lower()), tag
            assert "javascript:" not in tag or "textarea" in tag, tag
    article = re.search(
        r'<article class="panel readme">(.*?)</article>', bob.get("/r/bob/evil").text, re.DOTALL
    )
    assert article is not None
    links = re.findall(r"<a [^>]*>", article[1])
    assert not [one for one in links if "evil.example" in one and 'href="https://' not in one], links
    assert "<img" not in article[1] and 'href="/account' not in article[1]
    assert all('rel="ugc nofollow noopener noreferrer"' in one for one in links), links
    feed = bob.get("/n/bob/-/feed.atom").text
    assert EVIL not in feed


def test_headers_on_every_answer(lab: LabHub, members: dict[str, Visitor]) -> None:
    for path in (
        "/",
        "/search?q=x",
        "/r/team/app",
        "/account/login/",
        "/r/no/such",
        "/account/profile/",
        "/nowhere",
    ):
        headers = members["bob"].ask(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, path
        assert "frame-ancestors 'none'" in policy and headers["X-Frame-Options"] == "DENY", path
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "same-origin"
    assert not re.search(r"<script>|<style|style=\"|\son[a-z]+=\"", Visitor(lab).get("/r/team/app").text)


def test_forms_of_other_sites_do_nothing(lab: LabHub, members: dict[str, Visitor]) -> None:
    bob = members["bob"]
    for path, form in (
        ("/r/bob/private/-/settings", {"action": "publish"}), ("/account/tokens/", {"name": "x"}),
        ("/r/team/app/-/star", {"on": "yes"}), ("/account/logout/", {}),
    ):  # fmt: skip
        assert bob.ask(path, form).status == 403, path
    assert not lab.ask("GET", "/api/v1/repositories/bob/private", user=("bob", PASSWORD)).json["public"]
    # The API has no use for the cookie that the browser would send.
    cookies = "; ".join(f"{one.name}={one.value}" for one in bob.jar)
    body, kind = b'{"public":true}', "application/json"
    lab.ask(
        "PATCH", "/api/v1/repositories/bob/private", body, {"Cookie": cookies, "Content-Type": kind}, None
    ).expect(401)
    # Nor does it take what a form of another site can send.
    lab.ask(
        "PATCH", "/api/v1/repositories/bob/private", body, {"Content-Type": "text/plain"}, ("bob", PASSWORD)
    ).expect(415)
    # GET changes nothing.
    assert bob.ask("/r/team/app/-/star").status == 405
    assert "Sign out" in bob.ask("/account/logout/").text or bob.get("/account/profile/")


def test_log_ins_by_clients_leave_sessions_alone(lab: LabHub) -> None:
    """Both sides must find each other's hashes good enough, in either order."""
    for name in ("lena", "mike"):
        lab.add_account(name, PASSWORD)
    lena = Visitor(lab).log_in("lena")
    lab.ask("GET", "/v2/", user=("lena", PASSWORD)).expect(200)
    new = "quite another password 8"
    lena.post(
        "/account/password/change/", {"oldpassword": PASSWORD, "password1": new, "password2": new}, status=302
    )
    lab.ask("GET", "/v2/", user=("lena", new)).expect(200)
    assert "lena" in lena.get("/account/profile/").text


def test_a_log_in_is_a_new_session(lab: LabHub) -> None:
    lab.add_account("frank", PASSWORD)
    frank = Visitor(lab)
    token = frank.get("/account/login/").token
    before = {one.name: one.value for one in frank.jar}
    frank.ask(
        "/account/login/", {"csrfmiddlewaretoken": token, "login": "frank", "password": PASSWORD},
        {"Referer": f"http://{lab.host}/account/login/"},
    )  # fmt: skip
    after = {one.name: one.value for one in frank.jar}
    assert "hub-session" in after and after["hub-session"] != before.get("hub-session")
    assert after["hub-csrf"] != before["hub-csrf"]
    cookies = [one for one in frank.jar if one.name.startswith("hub-")]
    assert all(one.has_nonstandard_attr("HttpOnly") for one in cookies)
    # A changed password ends the other sessions, and what clients got with the old one.
    bearer = {"Authorization": lab.token("repository:team/app:pull", user=("frank", PASSWORD))}
    second = Visitor(lab).log_in("frank")
    new = "quite another password 9"
    frank.post(
        "/account/password/change/", {"oldpassword": PASSWORD, "password1": new, "password2": new}, status=302
    )
    assert second.ask("/account/profile/").status == 302
    assert "frank" in frank.get("/account/profile/").text
    until(
        lambda: lab.ask("GET", "/v2/team/app/manifests/latest", headers=bearer).status == 401, "it is revoked"
    )


def test_nobody_learns_who_has_an_account(lab: LabHub) -> None:
    def attempt(path: str, **form: str) -> str:
        visitor = Visitor(lab)
        page = visitor.ask(
            path, {"csrfmiddlewaretoken": visitor.get(path).token, **form},
            {"Referer": f"http://{lab.host}{path}"},
        )  # fmt: skip
        text = re.sub(r'value="[^"]*"', "", page.text)
        return f"{page.status} {page.headers.get('Location')} {text}"

    path = "/account/login/"
    assert attempt(path, login="bob", password="wrong") == attempt(path, login="zoe", password="wrong")
    lab.command("account", "add", "grace", "--password-stdin", "--email", "grace@example.org", stdin=PASSWORD)
    reset = "/account/password/reset/"
    assert attempt(reset, email="grace@example.org") == attempt(reset, email="nobody@example.org")
    form = {"password1": PASSWORD, "password2": PASSWORD}
    known = attempt("/account/signup/", username="heidi", email="grace@example.org", **form)
    assert known == attempt("/account/signup/", username="ivan", email="ivan@example.org", **form)
    assert "heidi" not in lab.command("account", "ls")


def filled(route: str, name: str) -> str:
    """The path of a route, for a repository or a namespace, with values that could exist."""
    for kind, value in (
        (r"<repo:\w+>", name), (r"<space:\w+>", name), (r"<tag:\w+>", "latest"), (r"<digest:\w+>", DIGEST),
        (r"<slug:\w+>", "pulls"), (r"<int:\w+>", "1"), (r"<\w+:\w+>", "x"),
    ):  # fmt: skip
        route = re.sub(kind, value, route)
    return f"/{route}"


def test_a_foreign_account_gets_nothing_from_any_page(lab: LabHub, members: dict[str, Visitor]) -> None:
    carol, anybody = members["carol"], Visitor(lab)
    token = carol.get("/account/profile/").token
    ours = [one for one in routes() if one.startswith("r/<repo:")]
    assert len(ours) > 18
    for route in ours:
        path, absent = filled(route, "bob/private"), filled(route, "bob/absent")
        for visitor in (carol, anybody):
            for form in (None, {"csrfmiddlewaretoken": token, "action": "publish", "on": "yes"}):
                headers = {"Referer": f"http://{lab.host}/"}
                found, nothing = (visitor.ask(one, form, headers) for one in (path, absent))
                assert found.status in (302, 403, 404, 405), (path, found.status)
                texts = [
                    re.sub(
                        r'value="[^"]*"',
                        "",
                        page.text.replace(name, "NAME").replace(name.replace("/", "%2F"), "NAME"),
                    )
                    for page, name in ((found, "bob/private"), (nothing, "bob/absent"))
                ]
                assert (found.status, texts[0]) == (nothing.status, texts[1]), path
    assert not lab.ask("GET", "/api/v1/repositories/bob/private", user=("bob", PASSWORD)).json["public"]
    for route in [one for one in routes() if one.startswith("n/<space:")]:
        path = filled(route, "team")
        if route.endswith(("<space:name>", "feed.atom", "follow")):
            continue  # public: names of organisations, and what is public in them
        assert carol.ask(path).status in (403, 404), path
        form = {"csrfmiddlewaretoken": token, "action": "add", "account": "carol", "role": "owner"}
        assert carol.ask(path, form, {"Referer": f"http://{lab.host}/"}).status in (403, 404, 405), path
    assert "carol" not in lab.command("org", "ls")
    for route in [one for one in routes() if one.startswith("admin/")]:
        assert carol.ask(filled(route, "")).status == 404, route
        assert anybody.ask(filled(route, "")).status == 302, route


def test_a_foreign_account_gets_nothing_from_the_api(lab: LabHub) -> None:
    paths = lab.ask("GET", "/api/v1/openapi.json", user=None).json["paths"]
    body, kind = (
        b'{"description":"x","name":"bob/other","level":"admin"}',
        {"Content-Type": "application/json"},
    )
    seen = 0
    for path, methods in paths.items():
        if "{repository}" not in path:
            continue
        for method in methods:
            seen += 1
            answers = []
            for name in ("bob/private", "bob/absent"):
                filled_in = (
                    path.replace("{repository}", name).replace("{tag}", "latest").replace("{digest}", DIGEST)
                )
                filled_in = filled_in.replace("{number}", "1").replace("{account}", "carol")
                send = None if method == "get" else body
                answer = lab.ask(method.upper(), filled_in, send, kind, ("carol", PASSWORD))
                answers.append((answer.status, answer.body.replace(name.encode(), b"NAME")))
            assert answers[0] == answers[1], path
            assert answers[0][0] in (403, 404, 400), (method, path, answers[0])
    assert seen > 25
    for path in ("/api/v1/admin/events", "/api/v1/admin/storage", "/api/v1/namespaces/team/events"):
        lab.ask("GET", path, user=("carol", PASSWORD)).expect(403)


def test_who_has_access_is_for_those_who_manage(lab: LabHub, members: dict[str, Visitor]) -> None:
    bob, carol = members["bob"], members["carol"]
    image(lab, "bob/shown", "latest", seed="shown", user=("bob", PASSWORD))
    bob.post("/r/bob/shown/-/settings", {"action": "publish"})
    bob.post("/r/bob/shown/-/settings/access", {"account": "carol", "level": "read"})
    assert "changed who has access" in bob.get("/r/bob/shown/-/activity").text
    assert "changed who has access" not in carol.get("/r/bob/shown/-/activity").text
    for user, seen in ((("bob", PASSWORD), True), (("carol", PASSWORD), False), (None, False)):
        found = lab.ask("GET", "/api/v1/repositories/bob/shown/-/events", user=user).expect(200).json
        assert ("repository.grant" in {one["action"] for one in found["events"]}) == seen
        assert all("address" not in one for one in found["events"])


def test_signed_tags_are_marked(lab: LabHub, members: dict[str, Visitor]) -> None:
    user = {"user": ("bob", PASSWORD)}
    signed = image(lab, "bob/seals", "signed", seed="signed", **user)
    image(lab, "bob/seals", "plain", seed="plain", **user)
    image(lab, "bob/seals", signed.replace(":", "-") + ".sig", seed="signature", **user)
    text = members["bob"].get("/r/bob/seals/-/tags").text
    rows = {re.findall(r"<code>([^<]+)</code>", row)[0]: row for row in text.split("<tr>")[2:]}
    assert 'title="signed"' in rows["signed"] and 'title="signed"' not in rows["plain"]


def test_redirects_stay_here(lab: LabHub) -> None:
    for target in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"):
        visitor = Visitor(lab)
        page = visitor.post(
            f"/account/login/?next={target}",
            {"login": "bob", "password": PASSWORD, "next": target},
            status=302,
        )
        assert page.headers["Location"] in ("/", "/account/profile/"), target


def test_hosts_and_addresses_cannot_be_forged(lab: LabHub, admin: Visitor) -> None:
    visitor = Visitor(lab)
    token = visitor.get("/account/password/reset/").token
    before = mails(lab)
    for headers in ({"Host": "evil.example"}, {"X-Forwarded-Host": "evil.example"}):
        visitor.ask(
            "/account/password/reset/", {"csrfmiddlewaretoken": token, "email": "grace@example.org"},
            {"Referer": f"http://{lab.host}/", **headers},
        )  # fmt: skip
    assert "evil.example" not in mails(lab)[len(before) :]
    assert visitor.ask("/", headers={"Host": "evil.example"}).status == 400
    forged = {"X-Forwarded-For": "203.0.113.9", "Remote-Addr": "203.0.113.9", "Remote_Addr": "203.0.113.9"}
    visitor.ask(
        "/account/login/",
        {"csrfmiddlewaretoken": visitor.get("/account/login/").token, "login": "bob", "password": PASSWORD},
        {"Referer": f"http://{lab.host}/account/login/", **forged},
    )  # fmt: skip
    assert "203.0.113.9" not in admin.get("/admin/audit?actor=bob").text


def test_lines_cannot_be_put_into_headers(lab: LabHub, members: dict[str, Visitor]) -> None:
    for path in (
        "/r/team%0d%0aSet-Cookie:x=1/app", "/search?q=%0d%0aSet-Cookie:x=1", "/r/team/app/-/tag/a%0d%0ab",
        "/account/login/?next=/%0d%0aSet-Cookie:x=1",
    ):  # fmt: skip
        answer = members["bob"].ask(path)
        assert "x=1" not in str(answer.headers.get_all("Set-Cookie")), path
        assert answer.status in (200, 302, 400, 404), path


def test_what_is_too_large_or_broken(lab: LabHub, members: dict[str, Visitor]) -> None:
    bob = members["bob"]
    token = bob.get("/account/profile/").token
    headers = {"Referer": f"http://{lab.host}/"}
    here = "/r/bob/private/-/settings"
    large = {"csrfmiddlewaretoken": token, "action": "readme", "readme": "x" * (1 << 21)}
    assert bob.ask(here, large, headers).status in (400, 413)
    huge = bob.ask(here, {"csrfmiddlewaretoken": token, "readme": "x" * 3_000_000}, headers)
    assert huge.status == 413
    page = bob.post(here, {"action": "readme", "readme": "y" * 300_000})
    assert "message error" in bob.get(page.headers["Location"]).text
    for path in (
        "/search?q=%00&page=99999999999&within=x&arch=%27", "/r/team/app/-/tags?page=-1&sort=;drop",
        "/r/team/app/-/insights?days=1e9", "/r/team/app/-/compare?a=%27&b=../..", "/search?q=%ff%fe",
        "/r/team/app/-/tag/latest?show=%00&platform=%00", "/r/team/app/-/activity?before=abc", "/?%00",
        "/r/team/app/-/compare?a=sha256:zz&b=1.0", "/n/team?page=0",
    ):  # fmt: skip
        assert bob.ask(path).status in (200, 404), path
    for path in (
        "/r/team/app/-/tags/%2e%2e/%2e%2e/admin/",
        "/static/../hub.db",
        "/static/hub.css",
        "/R/team/app",
    ):
        assert bob.ask(path).status == 404, path


def test_guesses_are_limited(lab: LabHub) -> None:
    lab.add_account("judy", PASSWORD)
    visitor = Visitor(lab)
    statuses = []
    for _ in range(8):
        page = visitor.ask(
            "/account/login/",
            {"csrfmiddlewaretoken": visitor.get("/account/login/").token, "login": "judy", "password": "x"},
            {"Referer": f"http://{lab.host}/account/login/"},
        )  # fmt: skip
        statuses.append("Too many failed login attempts" in page.text or page.status == 429)
    assert statuses[-1] and not statuses[0]


def test_addresses_with_tls_have_strict_cookies() -> None:
    with pages(secure=True) as lab:
        answer = lab.ask("GET", "/account/login/", headers={"Host": lab.host}, user=None).expect(200)
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("__Host-hub-csrf=") and "Secure" in cookie and "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie and "max-age=" in answer.headers["Strict-Transport-Security"]


def test_by_invitation_only() -> None:
    with pages("--sign-up", "invitation") as lab:
        anybody = Visitor(lab)
        assert 'name="username"' not in anybody.get("/account/signup/").text
        admin = Visitor(lab).log_in(*ADMIN)
        admin.post("/admin/invitations", {"email": "kim@example.org"})
        path = link(mails(lab), "account/invitation")
        anybody.ask(path)
        form = {"username": "kim", "password1": PASSWORD, "password2": PASSWORD}
        other = anybody.post("/account/signup/", {**form, "email": "other@example.org"}, status=200)
        assert "invitation was sent" in other.text
        anybody.post("/account/signup/", {**form, "email": "kim@example.org"}, status=302)
        assert "Your repositories" in anybody.get("/").text  # the address is confirmed: the mail was read
        assert Visitor(lab).ask(path).status == 404


def test_administration_needs_a_second_factor() -> None:
    with hub("--role", "registry,web") as lab:
        admin = Visitor(lab).log_in(*ADMIN)
        assert admin.ask("/admin/").status == 403
        lab.add_account("bob", PASSWORD)
        image(lab, "bob/private", "latest", seed="bob", user=("bob", PASSWORD))
        assert admin.ask("/r/bob/private").status == 404


def test_a_registry_alone_has_no_pages_and_loads_none() -> None:
    with hub("--role", "registry", env={"PYTHONPROFILEIMPORTTIME": "1"}) as lab:
        lab.ask("GET", "/", user=None).expect(404)
        lab.ask("GET", "/api/v1/me").expect(404)
        lab.ask("GET", "/v2/").expect(200)
        assert "aiohttp" in lab.log and "django" not in lab.log and "allauth" not in lab.log
    with hub("--role", "web") as lab:
        lab.ask("GET", "/", user=None).expect(200)
        lab.ask("GET", "/v2/").expect(404)
        lab.ask("GET", "/healthz", user=None).expect(200)
