"""Builds on the real kernel: what the docker CLI, the SDK and wherry's own client make of Dockerfiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from buildlab import built, cat, write
from daemonlab import LabDaemon

FIRST = """\
FROM busybox AS base
ARG GREETING=hello
RUN echo $GREETING > /greeting
WORKDIR /app
COPY . .

FROM busybox AS unused
RUN exit 1

FROM base
ENV NAME=value
COPY --from=base /greeting /copied
EXPOSE 80
CMD ["cat", "/copied"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path, {"Dockerfile": FIRST, "file": "content"})


def config_of(daemon: LabDaemon, image: str) -> dict[str, Any]:
    config: dict[str, Any] = daemon.api("GET", f"/images/{image}/json").json["Config"]
    return config


def steps_of(daemon: LabDaemon) -> dict[str, str]:
    """Of the last build: what became of each step."""
    last = daemon.api("GET", "/build/history").json[0]
    return {step["Name"].partition("] ")[2]: step["Status"] for step in last["Steps"]}


def ran(daemon: LabDaemon) -> list[str]:
    """Steps of the last build that the cache did not have."""
    return [n for n, s in steps_of(daemon).items() if s == "done" and n.startswith(("RUN", "COPY"))]


def test_docker_cli_renders_a_build(daemon: LabDaemon, context: Path, name: str) -> None:
    legacy = {"DOCKER_BUILDKIT": "0"}
    done = daemon.docker("build", "-t", name, "--build-arg", "GREETING=hi", str(context), environment=legacy)
    out = done.ok()
    assert "Step 1/10 : FROM busybox AS base" in out and "Step 10/10 : CMD" in out
    assert "exit 1" not in out, "a stage that nothing needs is not built"
    assert f"Successfully tagged {name}:latest" in out
    again = daemon.docker("build", "-t", name, "--build-arg", "GREETING=hi", str(context), environment=legacy)
    assert again.ok().count("Using cache") == 4
    quiet = daemon.docker("build", "-q", "--build-arg", "GREETING=hi", str(context), environment=legacy)
    assert quiet.ok() == daemon.api("GET", f"/images/{name}/json").json["Id"]
    assert daemon.docker("run", "--rm", name).ok() == "hi"
    config = config_of(daemon, name)
    assert config["WorkingDir"] == "/app" and "NAME=value" in config["Env"]
    assert config["ExposedPorts"] == {"80/tcp": {}}


def test_the_sdk_builds(daemon: LabDaemon, context: Path, name: str) -> None:
    with daemon.sdk() as client:
        image, logs = client.images.build(path=str(context), tag=name, labels={"who": "sdk"})
        assert image.labels["who"] == "sdk" and any("Step 1/10" in str(line) for line in logs)


def test_only_what_changed_is_built_again(daemon: LabDaemon, context: Path) -> None:
    write(
        context,
        {"Dockerfile": "FROM busybox\nCOPY a /a\nRUN cat /a\nCOPY b /b\nRUN cat /b\n", "a": "1", "b": "2"},
    )
    first = built(daemon, context)
    assert built(daemon, context) == first and ran(daemon) == []
    write(context, {"b": "3", "unrelated": "x"})
    built(daemon, context)
    steps = steps_of(daemon)
    assert steps["RUN cat /a"] == "cached" and steps["COPY b /b"] == steps["RUN cat /b"] == "done"
    (context / "a").touch()
    built(daemon, context)
    assert ran(daemon) == [], "times are not content"
    (context / "a").chmod(0o755)
    built(daemon, context)
    assert steps_of(daemon)["COPY a /a"] == "done", "modes are"


def test_a_source_that_came_out_the_same_keeps_the_cache(daemon: LabDaemon, context: Path) -> None:
    text = "FROM busybox AS one\nCOPY in /in\nRUN wc -c </in >/out\n"
    text += "FROM busybox\nCOPY --from=one /out /o\nRUN cat /o\n"
    write(context, {"Dockerfile": text, "in": "aaaa"})
    built(daemon, context)
    write(context, {"in": "bbbb"})
    built(daemon, context)
    steps = steps_of(daemon)
    assert steps["RUN wc -c </in >/out"] == "done"
    assert steps["COPY --from=one /out /o"] == steps["RUN cat /o"] == "cached"


def test_every_kind_of_mount(daemon: LabDaemon, context: Path, name: str) -> None:
    text = """\
FROM busybox AS other
RUN mkdir /d && echo other > /d/f
FROM busybox
RUN --mount=type=bind,from=other,source=/d,target=/m,rw cat /m/f && echo x > /m/new
RUN --mount=type=bind,from=other,source=/d,target=/m test ! -e /m/new && ! touch /m/new
RUN --mount=type=bind,target=/ctx,rw cp /ctx/file /kept && echo y > /ctx/file
RUN --mount=type=cache,id=ID,target=/c echo line >> /c/f && cat /c/f > /lines
RUN --mount=type=cache,id=ID,target=/c,sharing=locked echo line >> /c/f && cat /c/f > /lines
RUN --mount=type=tmpfs,target=/t,size=1m mount | grep -q ' /t type tmpfs'
RUN --mount=type=secret,id=token,target=/s,mode=0440,uid=7 stat -c %u:%a:%s /s > /secret-mode
RUN --mount=type=secret,id=token,env=TOKEN test -n "$TOKEN"
RUN test ! -e /s -a ! -e /m -a ! -e /ctx -a ! -e /c -a ! -e /t
RUN --network=none test ! -e /sys/class/net/eth0
"""
    write(context, {"Dockerfile": text.replace("ID", name), "token": "very secret words"})
    image = built(daemon, context, "--secret", f"id=token,src={context}/token", "-t", name)
    assert cat(daemon, image, "/kept", "/lines", "/secret-mode").split() == [
        "contentline",
        "line",
        "7:440:17",
    ]
    assert (context / "file").read_text() == "content"


SERVER = "while true; do nc -l -p 80 -e echo hi; done"


def ask(where: str, file: str) -> str:
    """A command that has the server's answer; between two connections nobody listens."""
    return f"until nc {where} 80 >{file}; do :; done"


def test_builds_are_beside_the_containers(daemon: LabDaemon, context: Path, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", SERVER).ok()
    template = '{{(index .NetworkSettings.Networks "bridge").IPAddress}}'
    at = daemon.docker("inspect", "-f", template, name).ok().strip()
    text = f"FROM busybox\nRUN ip -4 -o addr show eth0 >/a && cat /etc/hosts >/h; {ask(at, '/b')}\n"
    write(context, {"Dockerfile": text})
    image = built(daemon, context)
    address, answer, hosts = (cat(daemon, image, f"/{n}") for n in "abh")
    assert address.split()[3].rpartition(".")[0] != at.rpartition(".")[0]
    assert answer == "hi"
    assert f"{address.split()[3].partition('/')[0]}\tbuildkitsandbox" in hosts
    assert "(builds)" not in daemon.docker("network", "ls").ok()
    used = daemon.docker("network", "inspect", "-f", "{{len .Containers}}", "bridge").ok()
    assert used.strip() == "1"


def test_a_network_of_ones_own_resolves_names(daemon: LabDaemon, context: Path, name: str) -> None:
    net = f"{name}-net"
    daemon.docker("network", "create", net).ok()
    daemon.docker(
        "run", "-d", "--name", name, "--network", net, "--network-alias", "store",
        "busybox", "sh", "-c", SERVER,
    ).ok()  # fmt: skip
    write(context, {"Dockerfile": f"FROM busybox\nRUN {ask('store', '/a')}; ! nslookup build\n"})
    assert cat(daemon, built(daemon, context, "--network", net), "/a") == "hi"
    text = f"FROM busybox\nRUN {ask(name, '/b')}; {ask('127.0.0.1', '/c')}\n"
    write(context, {"Dockerfile": text})
    image = built(daemon, context, "--network", f"container:{name}")
    assert [cat(daemon, image, f"/{n}") for n in "bc"] == ["hi", "hi"]
    daemon.docker("rm", "-f", name).ok()
    write(context, {"Dockerfile": "FROM busybox\nRUN echo another\n"})
    failed = daemon.wherry("build", "--network", f"container:{name}", str(context))
    assert failed.code != 0 and f"No such container: {name}" in failed.errors
