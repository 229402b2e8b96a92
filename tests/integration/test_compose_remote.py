"""Compose files that lie elsewhere: in git repositories, and in registries, where ``publish`` sends them."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon
from freeports import free_port
from patience import until
from projectlab import ProjectLab
from registrylab import LabRegistry, registry

pytestmark = pytest.mark.kernel


@pytest.fixture
def lab(daemon: LabDaemon, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ProjectLab:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return ProjectLab(daemon, tmp_path, name)


@pytest.fixture(scope="module")
def store() -> Iterator[LabRegistry]:
    with registry() as lab:
        yield lab


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None: ...


class Repository:
    """A bare repository behind plain HTTP, and a work tree to commit from."""

    def __init__(self, where: Path) -> None:
        self.tree, self.bare = where / "tree", where / "served" / "shop.git"
        self.git("init", "-q", "--bare", str(self.bare), cwd=where)
        self.git("init", "-q", "-b", "main", str(self.tree), cwd=where)
        self.url = ""

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        author = ("-c", "user.name=x", "-c", "user.email=x@x")
        done = subprocess.run(
            ["git", *author, *arguments], cwd=cwd or self.tree, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str], branch: str = "main") -> str:
        for path, text in files.items():
            target = self.tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-qm", "x")
        self.git("push", "-q", str(self.bare), f"HEAD:{branch}")
        self.git("symbolic-ref", "HEAD", "refs/heads/main", cwd=self.bare)
        self.git("update-server-info", cwd=self.bare)
        return self.git("rev-parse", "HEAD")


@pytest.fixture(params=["git", "http"])
def repository(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Repository]:
    """By git's own protocol, and as plain files by HTTP, where a commit cannot be had alone."""
    place = tmp_path / "git"
    (place / "served").mkdir(parents=True)
    made = Repository(place)
    serve = by_daemon if request.param == "git" else by_http
    with serve(place / "served") as address:
        made.url = f"{address}/shop.git"
        yield made


@contextlib.contextmanager
def by_http(directory: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def by_daemon(directory: Path) -> Iterator[str]:
    port = free_port()
    listen = ("--listen=127.0.0.1", f"--port={port}", "--reuseaddr")
    command = ["/usr/lib/git-core/git-daemon", "--export-all", f"--base-path={directory}", *listen]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            until(lambda: answers(port))
            yield f"git://127.0.0.1:{port}"
        finally:
            server.terminate()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def images(lab: ProjectLab, *arguments: str) -> list[str]:
    return sorted(lab.run(*arguments, "config", "--images").split())


def service(image: str, name: str = "web") -> str:
    return f"services:\n  {name}:\n    image: {image}\n"


def test_a_project_from_git(lab: ProjectLab, repository: Repository) -> None:
    first = repository.commit({"compose.yaml": service("one"), "sub/compose.yml": service("inner")})
    assert images(lab, "-f", repository.url) == ["one"]
    assert images(lab, "-f", f"{repository.url}#main:sub") == ["inner"]
    assert images(lab, "-f", f"{repository.url}#:sub/compose.yml") == ["inner"]
    repository.commit({"compose.yaml": service("two")})
    repository.git("tag", "v2")
    repository.git("push", "-q", str(repository.bare), "v2")
    repository.git("update-server-info", cwd=repository.bare)
    repository.commit({"compose.yaml": service("three")}, branch="next")
    assert images(lab, "-f", repository.url) == ["two"]
    assert images(lab, "-f", f"{repository.url}#v2") == ["two"]
    assert images(lab, "-f", f"{repository.url}#next") == ["three"]
    assert images(lab, "-f", f"{repository.url}#{first}") == ["one"]


def test_included_from_git_with_what_lies_beside_it(lab: ProjectLab, repository: Repository) -> None:
    text = "services:\n  db:\n    image: $IMAGE\n    env_file: [db.env]\n"
    repository.commit({"db/compose.yaml": text, "db/.env": "IMAGE=pg\n", "db/db.env": "A=from git\n"})
    lab.file(f"include: ['{repository.url}#main:db']\n{service('web')}")
    found = json.loads(lab.run("config", "--format", "json"))["services"]
    assert (found["db"]["image"], found["db"]["environment"]) == ("pg", {"A": "from git"})
    assert found["web"]["image"] == "web"


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        ("#nowhere", "the repository has no branch or tag 'nowhere'"),
        ("#main:nothing", "no Compose file at nothing"),
        ("#main:../..", "leads out of the repository"),
        ("#main:out", "leads out of the repository"),
        ("#--upload-pack=x", "invalid branch, tag or commit"),
        ("#" + "0" * 40, "git: "),
    ],
)
def test_what_cannot_be_had_from_git(
    lab: ProjectLab, repository: Repository, suffix: str, words: str
) -> None:
    os.symlink("/etc/passwd", repository.tree / "out")
    repository.commit({"compose.yaml": service("one")})
    lab.run("-f", repository.url + suffix, "config", code=1)
    assert words in lab.errors and repository.url in lab.errors
    assert "Traceback" not in lab.errors


def test_published_and_taken_by_reference(lab: ProjectLab, store: LabRegistry, name: str) -> None:
    target = f"{store.host}/{name}:1"
    (lab.where / "base.yaml").write_text("services: {base: {image: busybox, init: true}}\n")
    (lab.where / "web.env").write_text("SECRET=s\n")
    lab.file(
        "services:\n  web:\n    extends: {file: base.yaml, service: base}\n    env_file: [web.env]\n"
        "    command: ['sh', '-c', 'echo ${WORD:-hello} $$SECRET']\n"
    )
    lab.run("publish", target, code=1)
    assert 'service "web" has env_file declared.' in lab.errors and "--with-env flag" in lab.errors
    lab.run("publish", "--with-env", target)
    assert f"{store.host}/{name}:1 published" in lab.errors.replace("  ", " ")
    status, data, _ = store.get(f"/v2/{name}/manifests/1")
    manifest = json.loads(data)
    assert status == 200 and manifest["artifactType"] == "application/vnd.docker.compose.project"
    assert [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]] == ["file+yaml", "envfile"]
    (lab.where / "compose.yaml").unlink()
    out = lab.run("-f", f"oci://{target}", "-p", name, "up", "--no-log-prefix")
    assert "hello s\n" in out
    lab.run("-p", name, "down", "-t", "1")
    lab.file(f"include: ['oci://{target}']\n{service('busybox', 'other')}")
    assert sorted(lab.run("config", "--services").split()) == ["other", "web"]


def test_a_tag_that_moves_is_asked_each_time(lab: ProjectLab, store: LabRegistry, name: str) -> None:
    target = f"{store.host}/{name}:latest"
    for image in ("one", "two"):
        lab.file(service(image))
        lab.run("publish", target)
        assert images(lab, "-f", f"oci://{store.host}/{name}") == [image]


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        ("services: {a: {build: .}}\n", (), 'only contains a build section for service(s):\n  - "a"'),
        ("services: {a: {image: x, volumes: ['./d:/d']}}\n", (), "bind mounts are published as they are"),
        (service("x"), ("--app",), "publish --app is not supported"),
        (service("x"), ("--oci-version", "2"), 'unsupported OCI version "2"'),
    ],
)
def test_what_is_not_published(lab: ProjectLab, text: str, flags: tuple[str, ...], words: str) -> None:
    lab.file(text)
    lab.run("publish", *flags, "127.0.0.1:1/x", code=1)
    assert words in lab.errors


def test_an_image_is_no_project(lab: ProjectLab, store: LabRegistry, name: str) -> None:
    lab.daemon.docker("tag", "busybox", f"{store.host}/{name}:i").ok()
    lab.daemon.docker("push", "-q", f"{store.host}/{name}:i").ok()
    lab.run("-f", f"oci://{store.host}/{name}:i", "config", code=1)
    assert "is not a Compose project, but application/vnd." in lab.errors


@pytest.mark.parametrize("bad", ["../../x", "/etc/x", ".hidden", "a/b", ""])
def test_names_of_files_stay_in_their_directory(
    lab: ProjectLab, store: LabRegistry, name: str, bad: str
) -> None:
    kind = "application/vnd.docker.compose.file+yaml"
    layers = []
    for file, data in (("compose.yaml", service("x").encode()), (bad or "..", b"x")):
        layer = store.put_blob(name, data)
        layers.append({**layer, "mediaType": kind, "annotations": {"com.docker.compose.file": file}})
    layers[1]["mediaType"] = "application/vnd.docker.compose.envfile"
    layers[1]["annotations"] = {"com.docker.compose.envfile": bad or ".."}
    config = {**store.put_blob(name, b"{}"), "mediaType": "application/vnd.oci.empty.v1+json"}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.docker.compose.project",
        "config": config,
        "layers": layers,
    }
    store.put_manifest(name, json.dumps(manifest).encode(), manifest["mediaType"], "bad")
    lab.run("-f", f"oci://{store.host}/{name}:bad", "config", code=1)
    assert "has a file with the invalid name" in lab.errors
