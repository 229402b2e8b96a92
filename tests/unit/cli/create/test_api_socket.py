"""``--use-api-socket``; the requests were taken from docker 28."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from fakedaemon import Reply

from conftest import Run, Serve

ID = "a" * 64
AUTHS = {"https://index.docker.io/v1/": {"auth": "dTpw"}, "r.example": {"auth": "YTpi"}, "empty.example": {}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    file = tmp_path / "config/config.json"
    file.write_text(json.dumps({"auths": AUTHS, "HttpHeaders": {"X": "secret"}}))
    return file


def routes(put: Reply) -> dict[str, Any]:
    return {
        "POST /containers/create": lambda x: Reply({"Id": ID}, 201),
        f"PUT /containers/{ID}/archive": lambda x: put,
        f"DELETE /containers/{ID}": lambda x: Reply(b"", 204),
    }


def test_the_socket_and_the_logins(serve: Serve, wherry: Run, config: Path) -> None:
    daemon = serve(routes(Reply()))
    assert wherry(daemon, "create", "--use-api-socket", "busybox") == (0, f"{ID}\n", "")
    made = daemon.asked("POST /containers/create")[0].json
    assert made["Env"] == ["DOCKER_CONFIG=/run/secrets/docker"]
    assert made["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": str(daemon.path), "Target": "/var/run/docker.sock", "BindOptions": {}}
    ]
    put = daemon.asked(f"PUT /containers/{ID}/archive")[0]
    assert put.query["path"] == "/"
    with tarfile.open(fileobj=io.BytesIO(put.body)) as archive:
        member = archive.getmember("run/secrets/docker/config.json")
        assert (member.mode, member.uid) == (0o600, 0)
        file = archive.extractfile(member)
        assert file is not None
        assert json.load(file) == {"auths": {name: auth for name, auth in AUTHS.items() if auth}}


def test_a_configuration_of_its_own_and_none(serve: Serve, wherry: Run, config: Path) -> None:
    daemon = serve(routes(Reply()))
    assert wherry(daemon, "create", "--use-api-socket", "-e", "DOCKER_CONFIG=/mine", "x")[0] == 0
    config.write_text("{}")
    assert wherry(daemon, "create", "--use-api-socket", "x")[0] == 0
    envs = [request.json["Env"] for request in daemon.asked("POST /containers/create")]
    assert envs == [["DOCKER_CONFIG=/mine"], []]
    assert daemon.asked(f"PUT /containers/{ID}/archive") == []


def test_a_container_that_cannot_have_them_is_not_left(serve: Serve, wherry: Run, config: Path) -> None:
    daemon = serve(routes(Reply({"message": "no room"}, 500)))
    code, out, err = wherry(daemon, "create", "--use-api-socket", "x")
    assert (code, out, err) == (1, "", "Error response from daemon: no room\n")
    assert len(daemon.asked(f"DELETE /containers/{ID}")) == 1


def test_only_through_a_socket_of_this_machine(
    wherry: Run, config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from wherry.cli.main import main

    words = "flag --use-api-socket can only be used with unix sockets: docker endpoint tcp://127.0.0.1:9 "
    assert main(["-H", "tcp://127.0.0.1:9", "create", "--use-api-socket", "x"]) == 1
    assert capfd.readouterr().err.startswith(words)
    assert main(["-H", "tcp://127.0.0.1:9", "run", "--use-api-socket", "x"]) == 125
    assert capfd.readouterr().err.startswith(f"wherry: {words}")


def test_what_helpers_keep_is_said_to_stay(serve: Serve, wherry: Run, config: Path) -> None:
    config.write_text('{"credsStore": "pass"}')
    code, _, err = wherry(serve(routes(Reply())), "create", "--use-api-socket", "x")
    assert (code, err) == (0, "wherry: logins that credential helpers keep are not handed to the container\n")
