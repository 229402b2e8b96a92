"""``docker build``, bake and compose as people have them, with the build plugins of two releases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from buildkitlab import VERSIONS, BuildClient, step, steps
from buildlab import archive, cat, web, write
from daemonlab import LabDaemon

pytestmark = pytest.mark.kernel

STAGES = """\
FROM busybox AS base
ARG GREETING=hello
RUN echo $GREETING > /greeting

FROM busybox AS unused
RUN exit 1

FROM base
WORKDIR /app
COPY . .
ENV NAME=value
CMD ["cat", "/greeting"]
"""


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest, daemon: LabDaemon) -> BuildClient:
    return BuildClient(daemon, request.param)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": STAGES, "file": "content", "sub/other": "more"})


def test_an_image_of_several_stages(client: BuildClient, context: Path, name: str) -> None:
    first = client.built(context, "-t", name, "--build-arg", "GREETING=hi", "--label", "a=b")
    assert "default" in first.errors and "docker driver" in first.errors
    assert "exit 1" not in first.errors, "a stage that nothing needs is not built"
    assert step(first, "RUN echo") == "DONE"
    assert cat(client.daemon, name, "/greeting", "/app/file", "/app/sub/other") == "hi\ncontentmore"
    config = client.daemon.api("GET", f"/images/{name}/json").json["Config"]
    assert config["Labels"] == {"a": "b"} and "NAME=value" in config["Env"]
    again = client.built(context, "-t", name, "--build-arg", "GREETING=hi")
    assert [how for text, how in steps(again).items() if "RUN" in text or "COPY" in text] == ["CACHED"] * 2
    assert step(client.built(context, "--no-cache"), "RUN echo") == "DONE"


def test_only_what_changed_of_a_context_is_sent(client: BuildClient, context: Path) -> None:
    (context / "big").write_bytes(bytes(3_000_000))
    write(context, {"Dockerfile": "FROM scratch\nCOPY . /\n", ".dockerignore": "no*\n!note\n"})
    write(context, {"nothing": "ignored", "note": "kept"})
    done = client.built(context, "-o", f"type=tar,dest={context.parent}/first.tar")
    assert "transferring context: 3.00MB" in done.errors
    (context / "file").write_text("changed")
    out = context.parent / "out"
    done = client.built(context, "-o", str(out))
    sent = [line for line in done.errors.splitlines() if "transferring context:" in line]
    assert sent and not any("MB" in line for line in sent), sent
    assert (out / "file").read_text() == "changed"
    assert (out / "big").stat().st_size == 3_000_000
    assert not (out / "nothing").exists() and (out / "note").read_text() == "kept"
    (context / "file").unlink()
    assert client.built(context, "-o", f"type=local,dest={context.parent}/again").code == 0
    assert not (context.parent / "again" / "file").exists()


def test_modes_links_and_names_of_a_context(client: BuildClient, context: Path) -> None:
    write(context, {"Dockerfile": "FROM scratch\nCOPY . /\n", "link": "->sub/other", "ümläut file": "x"})
    (context / "script").write_text("#!/bin/sh\n")
    (context / "script").chmod(0o750)
    (context / "first").write_text("twice")
    (context / "second").hardlink_to(context / "first")
    out = context.parent / "out"
    for _ in range(2):
        client.built(context, "-o", str(out))
        assert (out / "link").readlink() == Path("sub/other")
        assert (out / "ümläut file").read_text() == "x"
        assert (out / "script").stat().st_mode & 0o777 == 0o750
        assert (out / "second").read_text() == "twice"
    (context / "first").write_text("other")
    client.built(context, "-o", str(out))
    assert (out / "first").read_text() == (out / "second").read_text() == "other"


def test_a_step_that_fails_shows_its_lines(client: BuildClient, context: Path) -> None:
    write(context, {"Dockerfile": "FROM busybox\nRUN true\nRUN echo said; exit 3\n"})
    done = client.build(context)
    assert done.code == 1
    words = 'process "/bin/sh -c echo said; exit 3" did not complete successfully: exit code: 3'
    assert f"ERROR: {words}" in done.errors and f"failed to solve: {words}" in done.errors
    assert "   3 | >>> RUN echo said; exit 3" in done.errors
    assert "said" in done.errors
    last = client.history()[0]
    assert last["Status"] == "Error"
    assert [one["Error"] for one in last["Steps"] if one["Error"]]


def test_a_dockerfile_that_is_none(client: BuildClient, context: Path) -> None:
    done = client.build("-", input=b"FROM busybox\nRUNN true\n")
    assert done.code == 1
    assert "unknown instruction: RUNN (did you mean RUN?)" in done.errors
    assert "   2 | >>> RUNN true" in done.errors
    done = client.build(context, "-f", str(context / "none"))
    assert done.code == 1 and "none" in done.errors
    write(context, {"Dockerfile": "FROM busybox\nCOPY absent /\n"})
    done = client.build(context)
    assert done.code == 1 and '"/absent": not found' in done.errors
    assert "   2 | >>> COPY absent /" in done.errors


def test_what_is_not_known_is_refused_by_name(client: BuildClient, context: Path) -> None:
    done = client.build(context, "--cgroup-parent", "x", "--cache-to", "type=azblob,name=x")
    assert done.code == 1 and "azblob" in done.errors
    done = client.docker("build", "--progress=plain", "-o", "type=image,name=x,bogus=1", str(context))
    assert done.code == 1 and "bogus" in done.errors
    done = client.build("-", input=b"# syntax=example.com/other:1\nFROM busybox\n")
    assert done.code in (0, 1)
    if done.code:
        assert "example.com/other" in done.errors


@pytest.mark.parametrize("kind", ["stdin", "archive", "outside"])
def test_where_dockerfile_and_context_come_from(
    client: BuildClient, context: Path, tmp_path: Path, kind: str
) -> None:
    text = "FROM busybox\nCOPY file /got\n"
    write(context, {"Dockerfile": text})
    out = tmp_path / "out.tar"
    arguments = ("-o", f"type=tar,dest={out}")
    if kind == "stdin":
        client.built(context, "-f", "-", *arguments, input=text.encode())
    elif kind == "archive":
        import io
        import tarfile

        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w:gz") as tar:
            tar.add(context, arcname=".")
        client.built("-", *arguments, input=held.getvalue())
    else:
        other = write(
            tmp_path / "elsewhere", {"Other.Dockerfile": text, "Other.Dockerfile.dockerignore": "sub"}
        )
        client.built(context, "-f", str(other / "Other.Dockerfile"), *arguments)
    import tarfile

    with tarfile.open(out) as tar:
        member = tar.extractfile("got")
        assert member is not None and member.read() == b"content"


def test_named_contexts(client: BuildClient, context: Path, tmp_path: Path, name: str) -> None:
    other = write(
        tmp_path / "other", {"inside": "from the directory", "skipped": "x", ".dockerignore": "skip*"}
    )
    text = "FROM start\nCOPY --from=other . /other/\nRUN ls /other > /list\n"
    client.built(
        context, "-t", name, "-f", "-", "--build-context", "start=docker-image://busybox",
        "--build-context", f"other={other}", input=text.encode(),
    )  # fmt: skip
    assert cat(client.daemon, name, "/other/inside", "/list") == "from the directoryinside"


def test_bake_with_links(client: BuildClient, tmp_path: Path, name: str) -> None:
    """Both targets read one directory, so their files come by a session within the connection."""
    definition = f"""
group "default" {{ targets = ["app", "tool"] }}
target "base" {{
  context = "base"
}}
target "app" {{
  context = "."
  contexts = {{ base = "target:base" }}
  tags = ["{name}:app"]
}}
target "tool" {{
  context = "."
  dockerfile = "tool.Dockerfile"
  contexts = {{ base = "target:base" }}
  tags = ["{name}:tool"]
}}
"""
    write(
        tmp_path,
        {
            "docker-bake.hcl": definition,
            "base/Dockerfile": "FROM busybox\nENV FROM_BASE=yes\nRUN echo made > /made\n",
            "Dockerfile": "FROM base\nCOPY file /file\nRUN test $FROM_BASE = yes\n",
            "tool.Dockerfile": "FROM busybox\nCOPY --from=base /made /taken\n",
            "file": "here",
        },
    )
    done = client.bake(tmp_path, "--metadata-file", str(tmp_path / "meta"))
    assert done.code == 0, done.errors
    assert cat(client.daemon, f"{name}:app", "/made", "/file") == "made\nhere"
    assert cat(client.daemon, f"{name}:tool", "/taken") == "made"
    told = client.metadata(tmp_path / "meta")
    assert told["app"]["image.name"] == f"docker.io/library/{name}:app"
    write(tmp_path, {"base/Dockerfile": "FROM busybox\nRUN exit 4\n"})
    done = client.bake(tmp_path)
    assert done.code == 1 and "exit code: 4" in done.errors


def test_compose_builds_and_runs(client: BuildClient, tmp_path: Path, name: str) -> None:
    file = f"""
name: {name}
services:
  one:
    build: ./app
    command: cat /who
  two:
    build:
      context: ./app
      args: {{WHO: two}}
    command: cat /who
"""
    write(
        tmp_path,
        {
            "compose.yaml": file,
            "app/Dockerfile": "FROM busybox\nARG WHO=one\nCOPY file /file\nRUN echo I am $WHO > /who\n",
            "app/file": "x",
        },
    )
    try:
        done = client.compose(tmp_path, "up", "--build")
        assert done.code == 0, done.errors
        assert "I am one" in done.out and "I am two" in done.out
        assert client.compose(tmp_path, "build").code == 0
    finally:
        client.compose(tmp_path, "down", "--timeout", "1")
    write(tmp_path, {"app/Dockerfile": "FROM busybox\nRUN exit 5\n"})
    done = client.compose(tmp_path, "build")
    assert done.code != 0 and "exit code: 5" in done.errors + done.out


def test_the_builder_is_listed(client: BuildClient) -> None:
    listed = client.docker("buildx", "ls").ok()
    assert "docker-container" not in listed and "running" in listed
    assert "linux/amd64" in client.docker("buildx", "inspect").ok()


def test_ids_and_metadata_of_the_result(
    client: BuildClient, context: Path, tmp_path: Path, name: str
) -> None:
    client.built(
        context, "-t", name, "--iidfile", str(tmp_path / "iid"), "--metadata-file", str(tmp_path / "meta")
    )
    told = client.metadata(tmp_path / "meta")
    assert told["image.name"] == f"docker.io/library/{name}:latest"
    shown = client.daemon.api("GET", f"/images/{name}/json").json
    assert told["containerimage.digest"] == shown["Id"]
    identifier = (tmp_path / "iid").read_text()
    assert client.daemon.docker("run", "--rm", identifier).ok() == "hello"
    assert client.daemon.api("GET", f"/images/{identifier}/json").json["Id"] == shown["Id"]
    quiet = client.docker("build", "-q", str(context)).ok()
    assert client.daemon.docker("run", "--rm", quiet).ok() == "hello"
    if client.is_new:
        assert told["buildx.build.provenance"]["buildType"]
        assert json.dumps(told["buildx.build.provenance"]).count("pkg:docker/busybox")


def test_contexts_behind_addresses(client: BuildClient, tmp_path: Path, name: str) -> None:
    """An archive, and a Dockerfile and nothing else; a Dockerfile of one's own goes with either."""
    served = write(tmp_path / "served", {"only": "FROM busybox\nRUN echo alone > /made\n"})
    (served / "whole.tar").write_bytes(archive({"Dockerfile": "FROM busybox\nCOPY f /made\n", "f": "sent\n"}))
    with web(served) as address:
        client.built(f"{address}/whole.tar", "-t", name)
        assert cat(client.daemon, name, "/made") == "sent"
        client.built(f"{address}/only", "-t", name)
        assert cat(client.daemon, name, "/made") == "alone"
        text = b"FROM busybox\nCOPY f /other\n"
        client.built(f"{address}/whole.tar", "-t", name, "-f", "-", input=text)
        assert cat(client.daemon, name, "/other") == "sent"
        done = client.build(f"{address}/absent.tar")
        assert done.code == 1 and "404" in done.errors
