"""Files in builds: COPY and ADD in all their forms, here-documents, ignore files, what comes from
elsewhere.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from buildlab import archive, build, built, cat, error, post, stream, web, write
from daemonlab import LabDaemon

HEREDOCS = """\
FROM busybox
ENV WHO=world
RUN <<EOF
echo a > /a
echo b >> /a
EOF
RUN <<EOF cat > /b
to cat
EOF
RUN <<'EOF'
#!/bin/cat
this is printed
EOF
COPY <<one <<"two" /files/
hello $WHO
one
hello $WHO
two
"""
FORMS = """\
FROM busybox
COPY src /all/
COPY src/*.txt /wild/
COPY src/a.txt /renamed
COPY src/a.txt src/sub/deep.txt /two/
COPY --parents ./src/./sub/*.txt /parents/
COPY --exclude=*.md --exclude=sub src /less/
COPY --chown=12:34 --chmod=u=rwX,g=rX,o= src /owned/
COPY link /followed
COPY src/nothing* /none/
RUN mkdir /real && ln -s /real /through
COPY src/a.txt /through/
COPY --link src/a.txt /linked/x
RUN find /all /wild /two /parents /less /owned /real | sort > /list; stat -c '%n %u:%g:%a' /owned/* >> /list
"""
LISTED = """/all /all/a.txt /all/b.md /all/sub /all/sub/deep.txt /less /less/a.txt /owned /owned/a.txt
/owned/b.md /owned/sub /owned/sub/deep.txt /parents /parents/sub /parents/sub/deep.txt /real /real/a.txt /two
/two/a.txt /two/deep.txt /wild /wild/a.txt""".split()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"file": "content"})


def test_here_documents(daemon: LabDaemon, context: Path) -> None:
    write(context, {"Dockerfile": HEREDOCS})
    image = built(daemon, context)
    out = cat(daemon, image, "/a", "/b", "/files/one", "/files/two").splitlines()
    assert out == ["a", "b", "to cat", "hello world", "hello $WHO"]


def test_copy_in_all_its_forms(daemon: LabDaemon, context: Path) -> None:
    files = {"src/a.txt": "a", "src/b.md": "b", "src/sub/deep.txt": "d", "link": "->src/a.txt"}
    write(context, {"Dockerfile": FORMS, **files})
    image = built(daemon, context)
    listed = cat(daemon, image, "/list").split("\n")
    assert listed[: len(LISTED)] == LISTED
    assert listed[len(LISTED) :] == [
        "/owned/a.txt 12:34:640",
        "/owned/b.md 12:34:640",
        "/owned/sub 12:34:750",
    ]
    assert cat(daemon, image, "/renamed", "/followed", "/linked/x") == "aaa"


def test_ignore_files(daemon: LabDaemon, context: Path) -> None:
    text = "FROM busybox\nCOPY . /c\nRUN find /c -type f | sort > /list\n"
    files = {"keep/x.log": "", "drop/x.log": "", "y.log": "", "z.txt": "", "drop/z.txt": "", "other": text}
    ignored = "**/*.log\n!keep\ndrop\n!drop/z.txt\nDockerfile\n"
    write(context, {"Dockerfile": text, **files, ".dockerignore": ignored})
    image = built(daemon, context)
    kept = ["/c/.dockerignore", "/c/drop/z.txt", "/c/file", "/c/keep/x.log", "/c/other", "/c/z.txt"]
    assert cat(daemon, image, "/list").split() == kept
    write(context, {"other.dockerignore": "*\n!z.txt\n"})
    image = built(daemon, context, "--file", str(context / "other"))
    assert cat(daemon, image, "/list").split() == ["/c/z.txt"]


def test_archives_are_unpacked(daemon: LabDaemon, context: Path) -> None:
    inner = archive({"in/side": "packed"})
    write(context, {"plain.tar": inner})
    for program, suffix in (("gzip", "gz"), ("bzip2", "bz2"), ("xz", "xz"), ("zstd", "zst")):
        if shutil.which(program):
            packed = subprocess.run([program, "-c"], input=inner, capture_output=True, check=True).stdout
            write(context, {f"a.tar.{suffix}": packed})
    names = sorted(path.name for path in context.glob("*.tar*"))
    lines = [f"ADD {name} /{name}/" for name in names]
    tests = " && ".join(f"test -e /{name}/in/side" for name in names)
    text = (
        "FROM busybox\n"
        + "\n".join(lines)
        + f"\nRUN {tests}\nADD --unpack=false plain.tar /kept/\nADD file /f\n"
    )
    write(context, {"Dockerfile": text})
    image = built(daemon, context)
    assert len(names) >= 3 and cat(daemon, image, "/f") == "content"
    assert daemon.docker("run", "--rm", image, "ls", "/kept").ok() == "plain.tar"


def test_files_over_http(daemon: LabDaemon, context: Path, tmp_path: Path) -> None:
    whole = archive({"Dockerfile": "FROM busybox\n", "x": "y"})
    served = write(tmp_path / "served", {"f.txt": "over http", "c.tar": whole})
    good = hashlib.sha256(b"over http").hexdigest()
    with web(served) as url:
        text = f"FROM busybox\nADD --checksum=sha256:{good} {url}/f.txt /d/\nADD {url}/f.txt /renamed\n"
        write(context, {"Dockerfile": text})
        image = built(daemon, context)
        assert cat(daemon, image, "/d/f.txt", "/renamed") == "over http" * 2
        assert daemon.docker("run", "--rm", image, "stat", "-c", "%a", "/renamed").ok() == "600"
        write(context, {"Dockerfile": f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {url}/f.txt /d\n"})
        assert "digest mismatch" in build(daemon, context).errors
        assert "Successfully built" in stream(post(daemon, b"", remote=f"{url}/c.tar"))
        assert "404" in error(post(daemon, b"", remote=f"{url}/nothing"))


def test_repositories(daemon: LabDaemon, context: Path, tmp_path: Path) -> None:
    work = write(tmp_path / "work", {"Dockerfile": "FROM busybox\nCOPY sub /s\n", "sub/f": "from git"})
    git = ("git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-qm", "one"), ("tag", "v1")):
        subprocess.run([*git, *command], check=True, capture_output=True)
    served = tmp_path / "served"
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(served / "r.git")], check=True)
    subprocess.run(["git", "-C", str(served / "r.git"), "update-server-info"], check=True)
    with web(served) as url:
        text = f"FROM busybox\nADD {url}/r.git#v1:sub /sub\nADD {url}/r.git /all\n"
        write(context, {"Dockerfile": text})
        image = built(daemon, context)
        assert cat(daemon, image, "/sub/f", "/all/sub/f") == "from git" * 2
        assert ".git" not in daemon.docker("run", "--rm", image, "ls", "-a", "/all").ok()
        assert "Successfully built" in stream(post(daemon, b"", remote=f"{url}/r.git#main"))
        for bad in ("#--upload-pack=x", "#main:../..", "#a..b", "?ref=-x"):
            assert "invalid" in error(post(daemon, b"", remote=f"{url}/r.git{bad}"))
        assert "does not contain ref nope" in error(post(daemon, b"", remote=f"{url}/r.git#nope"))


def test_named_contexts(daemon: LabDaemon, context: Path, tmp_path: Path) -> None:
    more = write(tmp_path / "more", {"m": "more"})
    write(context, {"Dockerfile": "FROM base\nCOPY --from=extra m /m\n"})
    chosen = ("--build-context", f"extra={more}", "--build-context", "base=docker-image://busybox")
    assert cat(daemon, built(daemon, context, *chosen), "/m") == "more"


def test_triggers_of_a_base_image(daemon: LabDaemon, context: Path, name: str) -> None:
    text = "FROM busybox\nONBUILD COPY file /triggered\nONBUILD RUN echo ran >> /triggered\n"
    write(context, {"Dockerfile": text})
    built(daemon, context, "-t", name)
    triggers = daemon.api("GET", f"/images/{name}/json").json["Config"]["OnBuild"]
    assert triggers == ["COPY file /triggered", "RUN echo ran >> /triggered"]
    write(context, {"Dockerfile": f"FROM {name}\n"})
    image = built(daemon, context)
    assert cat(daemon, image, "/triggered") == "contentran"
    assert not daemon.api("GET", f"/images/{image}/json").json["Config"].get("OnBuild")
