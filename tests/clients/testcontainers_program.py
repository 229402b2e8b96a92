"""What users of testcontainers do, against the daemon of DOCKER_HOST.

Exits 1 at the first check that is not so.

``python testcontainers_program.py NAME`` runs one.
"""

from __future__ import annotations

import sys
import tempfile
import urllib.request
from pathlib import Path

import docker.errors
from testcontainers.compose import DockerCompose
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer, Reaper
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import (
    ContainerStatusWaitStrategy,
    ExecWaitStrategy,
    HealthcheckWaitStrategy,
    HttpWaitStrategy,
    LogMessageWaitStrategy,
    PortWaitStrategy,
)

PAGE = "mkdir /www; echo the page >/www/index.html; echo ready; exec httpd -f -p 80 -h /www"


def page(container: DockerContainer) -> str:
    address = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(80)}/"
    with urllib.request.urlopen(address, timeout=20) as answer:
        return str(answer.read().decode().strip())


def logs_and_ports() -> None:
    """Started, waited for by its log, asked on its published port, looked into, and gone at the end."""
    box = DockerContainer("busybox").with_command(["sh", "-c", PAGE]).with_exposed_ports(80)
    with box.waiting_for(LogMessageWaitStrategy("ready").with_startup_timeout(20)):
        assert page(box) == "the page"
        out, _ = box.get_logs()
        assert out == b"ready\n", out
        code, output = box.exec(["sh", "-c", "echo in; exit 3"])
        assert (code, output) == (3, b"in\n"), (code, output)
        wrapped = box.get_wrapped_container()
    try:
        wrapped.reload()
    except docker.errors.NotFound:
        return
    raise AssertionError("the container is still there")


def strategies() -> None:
    """Every way to wait for a container."""
    command = ["sh", "-c", PAGE]
    for strategy in (
        HttpWaitStrategy(80).for_status_code(200),
        PortWaitStrategy(80),
        ExecWaitStrategy(["test", "-e", "/www/index.html"]),
        ContainerStatusWaitStrategy(),
    ):
        strategy.with_startup_timeout(20)
        with DockerContainer("busybox").with_command(command).with_exposed_ports(80).waiting_for(strategy):
            pass
    check = {"test": ["CMD", "test", "-e", "/www"], "interval": 200_000_000, "timeout": 5_000_000_000}
    box = DockerContainer("busybox").with_command(command).with_kwargs(healthcheck=check)
    with box.waiting_for(HealthcheckWaitStrategy().with_startup_timeout(20)):
        assert box.get_wrapped_container().health == "healthy"


def that_never_comes() -> None:
    """A container that ends, or never says what is waited for, is an error and not a hang."""
    strategy = LogMessageWaitStrategy("never").with_startup_timeout(2)
    box = DockerContainer("busybox").with_command("true").waiting_for(strategy)
    try:
        box.start()
    except (TimeoutError, RuntimeError):
        return
    finally:
        box.stop()
    raise AssertionError("it was waited for, and came")


def networks() -> None:
    """Two containers on a network of their own, by their aliases."""
    with Network() as network:
        server = DockerContainer("busybox").with_command(["sh", "-c", PAGE]).with_network(network)
        server.with_network_aliases("pages").waiting_for(LogMessageWaitStrategy("ready"))
        asking = DockerContainer("busybox").with_command("sleep 1000").with_network(network)
        with server, asking:
            code, output = asking.exec(["wget", "-q", "-O", "-", "http://pages/"])
            assert (code, output) == (0, b"the page\n"), (code, output)


def mounts_and_files() -> None:
    """Environment, directories and tmpfs of the host's, files put in."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "file").write_text("theirs")
        box = DockerContainer("busybox").with_command("sleep 1000").with_env("SAID", "so")
        box.with_volume_mapping(directory, "/theirs", "ro").with_tmpfs_mount("/scratch")
        box.with_copy_into_container(b"put in", "/put")
        with box:
            code, output = box.exec(
                ["sh", "-c", "cat /theirs/file /put; echo $SAID; df /scratch | grep -c tmpfs"]
            )
            assert (code, output) == (0, b"theirsput inso\n1\n"), (code, output)
            code, _ = box.exec(["touch", "/theirs/file"])
            assert code != 0


def images() -> None:
    """An image built from a directory, and removed at the end."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "Dockerfile").write_text(
            "FROM busybox\nARG WHO=x\nRUN echo $WHO >/who\nCMD cat /who\n"
        )
        with DockerImage(path=directory, tag="testcontainers-made:1", buildargs={"WHO": "me"}) as image:
            assert image.short_id.startswith("sha256:") or image.short_id, image.short_id
            with DockerContainer(str(image)) as box:
                box.get_wrapped_container().wait(timeout=20)
                assert box.get_logs()[0] == b"me\n", box.get_logs()


def compose() -> None:
    """A Compose file started and waited for."""
    with tempfile.TemporaryDirectory() as directory:
        text = f"services:\n  web:\n    image: busybox\n    command: [sh, -c, '{PAGE}']\n    ports: ['80']\n"
        Path(directory, "compose.yaml").write_text(text)
        with DockerCompose(directory, wait=True) as started:
            port = started.get_service_port("web", 80)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                assert answer.read() == b"the page\n"
            out, _ = started.get_logs("web")
            assert "ready" in out, out
            out, _, code = started.exec_in_container(["echo", "in"], "web")
            assert (out, code) == ("in\n", 0), (out, code)


def reaper() -> None:
    """The session's reaper: a container with the daemon's socket, which is told what to remove. (That of this
    image only answers; the real one comes from a registry.)"""
    with tempfile.TemporaryDirectory() as directory:
        answer = 'read what; echo ACK; echo "told: $what" >/proc/1/fd/1'
        Path(directory, "answer").write_text(f"{answer}\n")
        serve = 'echo "x Started!"; exec nc -ll -p 8080 -e sh /answer'
        Path(directory, "serve").write_text(f"test -S /var/run/docker.sock || exit 9\n{serve}\n")
        Path(directory, "Dockerfile").write_text('FROM busybox\nCOPY answer serve /\nCMD ["sh", "/serve"]\n')
        with DockerImage(path=directory, tag="testcontainers-reaper:1"):
            testcontainers_config.ryuk_disabled = False
            testcontainers_config.ryuk_image = "testcontainers-reaper:1"
            try:
                with DockerContainer("busybox").with_command("sleep 1000") as box:
                    labels = box.get_wrapped_container().labels
                    assert "org.testcontainers.session-id" in labels, labels
                    answer = Reaper._socket.recv(10)  # type: ignore[union-attr]
                    assert answer == b"ACK\n", answer
            finally:
                Reaper.delete_instance()
                testcontainers_config.ryuk_disabled = True


CHECKS = (logs_and_ports, strategies, that_never_comes, networks, mounts_and_files, images, compose, reaper)

if __name__ == "__main__":
    testcontainers_config.ryuk_disabled = True
    wanted = sys.argv[1:]
    for check in CHECKS:
        if not wanted or check.__name__ in wanted:
            check()
            print("ok", check.__name__, flush=True)
