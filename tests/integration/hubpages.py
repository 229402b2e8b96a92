"""What tests of the hub's pages share: a hub with content as people have it, and a browser.

The browser is Debian's Chromium, driven by Playwright for Python; nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from freeports import free_port
from hublab import ADMIN, CONFIG, INDEX, LAYER, MANIFEST, LabHub, hub, sha

CHROMIUM = "/usr/bin/chromium"
AXE = Path(__file__).parent.parent.parent / ".cache" / "axe" / "axe.min.js"
PASSWORD = "a password of the tests"
README = """# Sample

An image **for tests**. Run it:

```sh
docker run --rm {host}/{name}
```

| Variable | Meaning |
| --- | --- |
| `PORT` | where it listens |

- small
- signed by nobody

See [the docs](https://docs.example) and ![a picture](https://elsewhere.example/p.png).
"""


def image(
    lab: LabHub, name: str, tag: str, *, seed: str, architecture: str = "amd64", layers: int = 3, **more: Any
) -> str:
    """Push an image with a configuration as builders write it; its digest."""
    blobs = [f"layer {number} of {seed}".encode() * (40_000 * (number + 1)) for number in range(layers)]
    config = json.dumps(
        {
            "os": "linux", "architecture": architecture, "created": "2026-11-29T10:00:00Z",
            "config": {
                "Env": ["PATH=/usr/local/bin:/usr/bin", f"VERSION={tag}", "LANG=C.UTF-8", "PORT=8080"],
                "Entrypoint": ["/usr/bin/entry"], "Cmd": ["serve", "--port", "8080"], "User": "app",
                "WorkingDir": "/srv", "ExposedPorts": {"8080/tcp": {}},
                "Labels": {
                    "org.opencontainers.image.source": "https://code.example/sample",
                    "org.opencontainers.image.licenses": "Apache-2.0",
                    "org.opencontainers.image.version": tag,
                },
            },
            "history": [
                {"created_by": f"COPY rootfs-{seed} / # buildkit"},
                {"created_by": "ENV PATH=/usr/local/bin:/usr/bin", "empty_layer": True},
                *({"created_by": f"RUN install-step --number {n} # buildkit"} for n in range(1, layers)),
                {"created_by": "CMD [\"serve\"]", "empty_layer": True},
            ],
            "rootfs": {"type": "layers", "diff_ids": [sha(blob) for blob in blobs]},
        }
    ).encode()  # fmt: skip
    for blob in (*blobs, config):
        lab.blob(name, blob, **more)
    document = {
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": sha(config), "size": len(config)},
        "layers": [{"mediaType": LAYER, "digest": sha(blob), "size": len(blob)} for blob in blobs],
    }  # fmt: skip
    return lab.manifest(name, document, tag, **more)


def index(lab: LabHub, name: str, tag: str, *, seed: str, **more: Any) -> str:
    """Push an image for three platforms; its digest."""
    members = []
    for architecture in ("amd64", "arm64", "riscv64"):
        digest = image(lab, name, "", seed=f"{seed}-{architecture}", architecture=architecture, **more)
        size = len(lab.ask("GET", f"/v2/{name}/manifests/{digest}", **more).expect(200).body)
        members.append(
            {
                "mediaType": MANIFEST, "digest": digest, "size": size,
                "platform": {"os": "linux", "architecture": architecture},
            }
        )  # fmt: skip
    return lab.manifest(name, {"schemaVersion": 2, "mediaType": INDEX, "manifests": members}, tag, **more)


def attach_packages(lab: LabHub, name: str, digest: str, packages: Mapping[str, str], **more: Any) -> str:
    """Attach an SPDX document to an image."""
    size = len(lab.ask("GET", f"/v2/{name}/manifests/{digest}", **more).expect(200).body)
    body = json.dumps(
        {
            "spdxVersion": "SPDX-2.3",
            "packages": [
                {
                    "name": package, "versionInfo": version, "licenseConcluded": "MIT",
                    "externalRefs": [{"referenceLocator": f"pkg:deb/debian/{package}@{version}"}],
                }
                for package, version in packages.items()
            ],
        }
    ).encode()  # fmt: skip
    empty = b"{}"
    for blob in (body, empty):
        lab.blob(name, blob, **more)
    document = {
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/spdx+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha(empty),
        "size": len(empty)},
        "layers": [{"mediaType": "application/spdx+json", "digest": sha(body), "size": len(body)}],
        "subject": {"mediaType": MANIFEST, "digest": digest, "size": size},
    }  # fmt: skip
    return lab.manifest(name, document, **more)


class Visitor:
    """A client of the pages that keeps cookies and fills forms in; it does not follow redirects by itself."""

    def __init__(self, lab: LabHub) -> None:
        self.base = f"http://{lab.host}"
        self.jar = http.cookiejar.CookieJar()

        class Still(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *args: Any, **named: Any) -> None:
                return None

        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.jar), Still()
        )

    def ask(
        self, path: str, form: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Page:
        data = urllib.parse.urlencode(form, doseq=True).encode() if form is not None else None
        request = urllib.request.Request(self.base + path, data, dict(headers or {}))
        try:
            with self._opener.open(request, timeout=60) as answer:
                return Page(answer.status, answer.headers, answer.read().decode(errors="replace"))
        except urllib.error.HTTPError as e:
            with e:
                return Page(e.code, e.headers, e.read().decode(errors="replace"))

    def get(self, path: str, status: int = 200) -> Page:
        page = self.ask(path)
        assert page.status == status, f"{path}: {page.status}: {page.text[:2000]}"
        return page

    def post(self, path: str, form: Mapping[str, Any], at: str = "", status: int = 303) -> Page:
        """Send a form that stands on the page ``at`` (by default ``path``)."""
        token = self.get(at or path).token
        page = self.ask(path, {"csrfmiddlewaretoken": token, **form}, {"Referer": self.base + (at or path)})
        assert page.status == status, f"{path}: {page.status}: {page.text[:3000]}"
        return page

    def log_in(self, name: str, password: str = PASSWORD) -> Visitor:
        page = self.post("/account/login/", {"login": name, "password": password}, status=302)
        assert page.headers["Location"] == "/", page.headers["Location"]
        return self


class Page:
    def __init__(self, status: int, headers: Any, text: str) -> None:
        self.status, self.headers, self.text = status, headers, text

    @property
    def token(self) -> str:
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.text)
        assert found is not None, "the page has no form"
        return found[1]


def fill(lab: LabHub) -> None:
    """Accounts, an organisation, and repositories with some history."""
    for name in ("bob", "carol"):
        lab.add_account(name, PASSWORD)
    lab.command("org", "add", "team", ADMIN[0])
    lab.command("org", "member", "team", "bob", "editor")
    boss = {"user": ADMIN}
    first = image(lab, "team/app", "1.0", seed="one", **boss)
    second = image(lab, "team/app", "1.1", seed="two", **boss)
    attach_packages(
        lab, "team/app", first, {"libc6": "2.36-9", "openssl": "3.0.11", "zlib1g": "1.2.13"}, **boss
    )
    attach_packages(lab, "team/app", second, {"libc6": "2.36-9", "openssl": "3.0.15", "curl": "7.88"}, **boss)
    image(lab, "team/app", "latest", seed="one", **boss)
    image(lab, "team/app", "latest", seed="two", **boss)
    index(lab, "team/app", "multi", seed="many", **boss)
    image(lab, "library/hello", "latest", seed="hello", **boss)
    image(lab, "bob/private", "latest", seed="bob", user=("bob", PASSWORD))
    for name in ("team/app", "library/hello"):
        lab.command("repository", "publish", name)
    for _ in range(7):
        lab.ask("GET", "/v2/team/app/manifests/latest", headers={"User-Agent": "docker/28.5"}, user=None)
    admin = Visitor(lab).log_in(ADMIN[0])
    here = "/r/team/app/-/settings"
    admin.post(
        here,
        {"action": "describe", "description": "The application of the team, for tests", "category": ["web",
        "tools"]},
    )  # fmt: skip
    admin.post(here, {"action": "readme", "readme": README.format(host=lab.host, name="team/app")})


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip("Chromium is not installed (scripts/setup --with-tests)")
    with sync.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server"])
        try:
            yield started
        finally:
            started.close()


@contextlib.contextmanager
def pages(*more: str, secure: bool = False, database: str = "") -> Iterator[LabHub]:
    """A hub whose address is known from the start, which sends its mail into files below :func:`mails`."""
    port = free_port()
    mail = tempfile.mkdtemp(prefix="whm")
    address = f"http{'s' if secure else ''}://127.0.0.1:{port}"
    try:
        with hub(
            "--listen", f"127.0.0.1:{port}", "--url", address, "--mail", f"file://{mail}",
            "--admin-second-factor", "false", "--collect-every", "1", "--role", "registry,web,worker",
            *more, database=database,
        ) as lab:  # fmt: skip
            MAILS[lab.port] = Path(mail)
            yield lab
    finally:
        shutil.rmtree(mail, ignore_errors=True)


MAILS: dict[int, Path] = {}


def mails(lab: LabHub) -> str:
    """All mail that the hub has sent so far, as text."""
    files = sorted(MAILS[lab.port].iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return "\n".join(path.read_text() for path in files)


def routes() -> list[str]:
    """The paths of all pages, with the kinds of their places: ``r/<repo:name>/-/tags``."""
    program = """
import sys
from wherry.hub.web.configuring import WebConfig, configure
configure(WebConfig(database=sys.argv[1], secret="x"))
from django.urls import get_resolver
def walk(patterns, before):
    for one in patterns:
        path = before + str(one.pattern)
        if hasattr(one, "url_patterns"):
            walk(one.url_patterns, path)
        else:
            print(path)
walk(get_resolver().url_patterns, "")
"""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-c", program, f"{scratch}/hub.db"], capture_output=True, text=True, check=True
        )
    return done.stdout.split()
