"""Base images: made from this host's packages, the same every time, and they run."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_tools import Library, open_library

from wherry.errors import InvalidArgument, NotImplemented_
from wherry.images import busybox, debian, hello, languages
from wherry.images.bootstrap import bootstrap
from wherry.linux.mounts import mount, unmount

pytestmark = pytest.mark.kernel


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = open_library(tmp_path / "root")
    yield made
    made.layers.close()


def run_in(library: Library, text: str, *argv: str) -> str:
    image = library.images.resolve(text)
    where = library.root / "at"
    where.mkdir(exist_ok=True)
    for value in library.snapshotter.view("look", library.images.ensure_unpacked(image)):
        mount(value, where)
    try:
        return subprocess.run(["chroot", where, *argv], capture_output=True, text=True, check=True).stdout
    finally:
        unmount(where)
        library.snapshotter.remove("look")


def test_hello_says_hello(library: Library) -> None:
    image = bootstrap(library.images, library.unpacker, "hello")
    assert image.repo_tags == ["hello:latest"]
    assert image.config.config.cmd == ["/hello"]
    assert run_in(library, "hello", "/hello") == hello.TEXT.decode()
    assert len(hello.program("amd64")) < 1024


def test_the_other_hello_is_what_the_manual_says() -> None:
    program = hello.program("arm64")
    assert struct.unpack_from("<H", program, 18)[0] == 183
    code = struct.unpack_from("<8I", program, 120)
    # mov x0, #1; mov x8, #64; svc #0; mov x8, #93 as an assembler gives them
    assert (code[0], code[3], code[4], code[6]) == (0xD2800020, 0xD2800808, 0xD4000001, 0xD2800BA8)
    assert code[1] == 0x100000E1  # adr x1, #28
    assert program[120 + 32 :] == hello.TEXT
    with pytest.raises(NotImplemented_):
        hello.program("s390x")


def test_busybox_is_a_system(library: Library) -> None:
    image = bootstrap(library.images, library.unpacker, "busybox")
    assert image.repo_tags == ["busybox:latest"]
    assert image.config.config.cmd == ["sh"]
    assert run_in(
        library, "busybox", "/bin/sh", "-c", "id -un; id -u www-data; echo ~; ls -ld /tmp | cut -c1-10"
    ) == ("root\n33\n/root\ndrwxrwxrwt\n")
    assert "nogroup" in run_in(library, "busybox", "cat", "/etc/group")
    applets = run_in(library, "busybox", "/bin/busybox", "--list-full").split()
    assert run_in(
        library, "busybox", "/bin/sh", "-c", f"ls {' '.join(a for a in applets if '/' in a)} | wc -l"
    )


def test_bootstrap_is_repeatable_and_quick_the_second_time(library: Library, tmp_path: Path) -> None:
    messages: list[dict[str, object]] = []
    first = bootstrap(library.images, library.unpacker, "busybox")
    again = bootstrap(library.images, library.unpacker, "busybox", progress=messages.append)
    forced = bootstrap(library.images, library.unpacker, "busybox", force=True)
    other = open_library(tmp_path / "other")
    assert first.id == again.id == forced.id == bootstrap(other.images, other.unpacker, "busybox").id
    assert "there already" in str(messages)
    other.layers.close()


@pytest.mark.parametrize(
    "name",
    [
        "alpine",
        "busybox:1.36",
        "debian:../x",
        "debian:BAD",
        "hello@sha256:" + "0" * 64,
        "python",
        "python:3.7-slim",
        "node:18",
    ],
)
def test_unknown_names_are_refused(library: Library, name: str) -> None:
    with pytest.raises(InvalidArgument):
        bootstrap(library.images, library.unpacker, name)


def test_busybox_must_be_static(tmp_path: Path) -> None:
    assert busybox._is_static(Path("/bin/busybox"))
    assert not busybox._is_static(Path(shutil.which("ls") or "/bin/ls"))
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert not busybox._is_static(script)


def test_sources_follow_the_host(tmp_path: Path) -> None:
    assert debian.sources("trixie", tmp_path) == [
        "deb http://deb.debian.org/debian trixie main",
        "deb http://deb.debian.org/debian trixie-updates main",
        "deb http://deb.debian.org/debian-security trixie-security main",
    ]
    (tmp_path / "sources.list").write_text(
        "# comment\ndeb [signed-by=/x.gpg] https://mirror.example/debian bookworm main contrib\n"
        "deb-src http://no.example/debian bookworm main\n"
    )
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/sec.sources").write_text(
        "Types: deb\nURIs: http://sec.example/debian-security\nSuites: bookworm-security\nComponents: main\n"
        "\n"
        "Enabled: no\nTypes: deb\nURIs: http://off.example/debian-security\nSuites: x-security\n"
    )
    (tmp_path / "sources.list.d/other.list").write_text("deb https://packages.example/apt stable main\n")
    assert debian.sources("bookworm", tmp_path) == [
        "deb https://mirror.example/debian bookworm main",
        "deb https://mirror.example/debian bookworm-updates main",
        "deb http://sec.example/debian-security bookworm-security main",
    ]
    assert len(debian.sources("sid", tmp_path)) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed")
def test_debian(library: Library) -> None:
    image = bootstrap(library.images, library.unpacker, "debian")
    assert image.repo_tags == ["debian:bookworm", "debian:latest"]
    assert run_in(library, "debian", "cat", "/etc/debian_version").startswith("12")
    assert (
        run_in(library, "debian", "sh", "-c", "ls /var/lib/apt/lists | grep -v -e lock -e partial | wc -l")
        == "0\n"
    )


def test_versions_are_what_releases_ship() -> None:
    assert languages.suite_of("python", "3.11-slim") == ("3.11", "bookworm")
    assert languages.suite_of("node", "20-slim") == ("20", "trixie")
    with pytest.raises(InvalidArgument, match="there is node:12-slim, node:18-slim"):
        languages.suite_of("node", "18-slim-buster")


def test_what_installing_leaves_behind_stays_out_of_the_layer() -> None:
    left = (b"dev/null", b"etc/resolv.conf", b"var/log/dpkg.log", b"etc/passwd-old", b"var/cache/apt/x.bin")
    assert all(debian.is_of_installing(path) for path in left)
    assert not any(debian.is_of_installing(p) for p in (b"dev", b"usr/bin/pip", b"var/lib/dpkg/status"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed")
def test_a_language_lies_on_its_release_and_comes_out_the_same(library: Library) -> None:
    image = bootstrap(library.images, library.unpacker, "python:3.11-slim")
    base = library.images.resolve("debian:bookworm-slim")
    assert image.manifest.layers[:-1] == base.manifest.layers
    assert image.config.config.cmd == ["python3"]
    assert any(entry.startswith("PYTHON_VERSION=3.11.") for entry in image.config.config.env or ())
    assert "pip" in run_in(library, "python:3.11-slim", "/usr/bin/pip", "--version")
    assert bootstrap(library.images, library.unpacker, "python:3.11-slim", force=True).id == image.id
