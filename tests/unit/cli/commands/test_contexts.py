"""Contexts: on disk as the docker CLI has them, each reading what the other wrote, and in files."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from patience import patiently

from conftest import Serve
from wherry.cli.main import main
from wherry.client import contextfile
from wherry.client.contexts import ContextDirectory
from wherry.errors import InvalidArgument

DOCKER = shutil.which("docker")
META = json.dumps({"Name": "x", "Metadata": {}, "Endpoints": {"docker": {"Host": "tcp://far:1"}}}).encode()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def pem() -> Path:
    return Path(__file__).parents[2] / "client/tls"


def wherry(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["context", *argv])
    out, err = capfd.readouterr()
    return code, out, err


def tls(place: Path) -> str:
    return f"host=tcp://far:2376,ca={place}/cert.pem,cert={place}/cert.pem,key={place}/key.pem"


def test_a_context_on_disk(capfd: pytest.CaptureFixture[str], config: Path, pem: Path) -> None:
    assert wherry(capfd, "create", "far", "--description", "d", "--docker", tls(pem)) == (
        0,
        "far\n",
        'Successfully created context "far"\n',
    )
    store = ContextDirectory(str(config))
    meta = Path(store.meta_directory("far")) / "meta.json"
    assert meta.read_text() == (
        '{"Name":"far","Metadata":{"Description":"d"},'
        '"Endpoints":{"docker":{"Host":"tcp://far:2376","SkipTLSVerify":false}}}'
    )
    key = Path(store.tls_directory("far")) / "docker/key.pem"
    assert key.read_bytes() == (pem / "key.pem").read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    endpoint = store.endpoint("far")
    assert endpoint.tls is not None
    assert (endpoint.host, endpoint.context, endpoint.tls.key) == ("tcp://far:2376", "far", str(key))
    assert wherry(capfd, "update", "far", "--docker", "host=tcp://other:1")[0] == 0
    assert not key.exists()
    assert store.endpoint("far").tls is None
    assert wherry(capfd, "rm", "far")[:2] == (0, "far\n")
    assert list((config / "contexts").rglob("*.*")) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["create", "a,b"], 'context name "a,b" is invalid'),
        (["create", "x"], 'context name "x" is invalid'),
        (["create", ".."], 'context name ".." is invalid'),
        (["create", ""], "context name cannot be empty"),
        (["create", "all"], '"all" is a reserved context name'),
        (["create", "default"], '"default" is a reserved context name'),
        (["update", "default"], '"default" is a reserved context name'),
        (["rm", "default"], 'context "default" cannot be removed'),
        (["rm", "nope"], 'context "nope" does not exist'),
        (["use", "nope"], 'context "nope": context not found'),
        (["create", "ok", "--docker", "color=red"], "unrecognized config key: color"),
        (["create", "ok", "--docker", "host=foo://x"], "unable to parse docker host `foo://x`"),
        (["create", "ok", "--docker", "host=ssh://-oProxyCommand=id"], "is no host name"),
        (["create", "ok", "--docker", "host=ssh://-lroot@h"], "is no user name"),
        (["create", "ok", "--docker", "host=ssh://h/$(id)"], "is no path"),
        (["create", "ok", "--docker", f"ca={__file__}"], "ca.pem seems invalid"),
        (["create", "ok", "--docker", "ca=/nope"], "open /nope: no such file or directory"),
        (["create", "ok", "--docker", "skip-tls-verify=maybe"], 'skip-tls-verify: parsing "maybe"'),
        (["export", "nope"], 'context "nope": context not found'),
    ],
)
def test_refusals(capfd: pytest.CaptureFixture[str], config: Path, argv: list[str], message: str) -> None:
    code, out, err = wherry(capfd, *argv)
    assert (code, out) == (1, "")
    assert message in err
    assert not config.exists()


def test_the_current_context(
    capfd: pytest.CaptureFixture[str], config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("near", "far"):
        wherry(capfd, "create", name, "--docker", f"host=unix:///{name}.sock")
    held = config / "real.json"
    held.write_text('{"auths": {"r": {}}, "mine": 1}')
    held.chmod(0o640)
    (config / "config.json").symlink_to(held)
    assert wherry(capfd, "use", "far") == (0, "far\n", 'Current context is now "far"\n')
    assert json.loads(held.read_text()) == {"auths": {"r": {}}, "mine": 1, "currentContext": "far"}
    assert stat.S_IMODE(held.stat().st_mode) == 0o640
    assert wherry(capfd, "show")[1] == "far\n"
    assert wherry(capfd, "rm", "far")[2] == 'context "far" is in use, set -f flag to force remove\n'
    monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere")
    code, out, err = wherry(capfd, "ls", "--format", "{{.Name}} {{.Current}} {{.DockerEndpoint}}")
    assert (code, out) == (
        0,
        "default true unix:///elsewhere\nfar false unix:///far.sock\nnear false unix:///near.sock\n",
    )
    assert err.startswith("Warning: DOCKER_HOST environment variable overrides the active context.")
    monkeypatch.delenv("DOCKER_HOST")
    assert wherry(capfd, "rm", "-f", "far")[0] == 0
    assert json.loads(held.read_text()) == {"auths": {"r": {}}, "mine": 1}
    assert wherry(capfd, "show")[1] == "default\n"


def test_a_configuration_that_cannot_be_read_is_not_overwritten(
    capfd: pytest.CaptureFixture[str], config: Path
) -> None:
    wherry(capfd, "create", "far", "--docker", "host=unix:///x")
    (config / "config.json").write_text('{"auths": ')
    assert wherry(capfd, "use", "far")[0] == 1
    assert (config / "config.json").read_text() == '{"auths": '


def test_a_damaged_context_is_named_and_not_in_the_way(
    capfd: pytest.CaptureFixture[str], config: Path
) -> None:
    wherry(capfd, "create", "far", "--docker", "host=unix:///x")
    bad = config / "contexts/meta" / ("0" * 64)
    bad.mkdir()
    (bad / "meta.json").write_text("[]")
    code, out, err = wherry(capfd, "ls", "-q")
    assert (code, out) == (1, "default\nfar\n")
    assert f"{bad}/meta.json" in err


# ---- in files ----------------------------------------------------------------------------------------------


def member(name: str, content: bytes = b"x", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.TarFile(fileobj=out, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(*members: tuple[str, bytes], mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return out.getvalue()


GOOD = member("meta.json", META)
LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tar(GOOD, member("../evil")), "../evil: unexpected context file"),
        (tar(GOOD, member("/etc/evil")), "/etc/evil: unexpected context file"),
        (tar(GOOD, member("tls/../../evil")), "unexpected context file"),
        (tar(GOOD, member("tls/docker/../x")), "unexpected context file"),
        (tar(GOOD, member("tls/docker/.hidden")), "unexpected context file"),
        (tar(GOOD, member("tls/docker/a/b")), "unexpected context file"),
        (tar(GOOD, member("tls/docker/key.pem", b"", **LINK)), "unexpected context file"),
        (tar(GOOD, member("tls/docker/key.pem", b"", type=tarfile.FIFOTYPE)), "unexpected context file"),
        (tar(GOOD, member("tls/docker", b"", **LINK)), "unexpected context file"),
        (tar(member("meta.json", b"", **LINK)), "unexpected context file"),
        (tar(GOOD, GOOD), "unexpected context file"),
        (tar(GOOD, member("tls/d/x"), member("tls/d/x")), "unexpected context file"),
        (tar(member("tls/docker/key.pem")), "no metadata found"),
        (tar(), "no metadata found"),
        (b"", "no metadata found"),
        (b"junk" * 300, "neither a tar nor a zip archive"),
        (tar(GOOD)[:520], "unexpected EOF"),
        (tar(member("meta.json", b"[]")), "not a JSON object"),
        (tar(member("meta.json", b'{"Endpoints": [1]}')), "Endpoints is not a JSON object"),
        (tar(member("meta.json", b'{"Endpoints": {"docker": {"Host": 1}}}')), "is not text"),
        (tar(member("meta.json", b"[" * 100_000)), "nested too deeply"),
        (tar(GOOD, *(member(f"tls/d/{n}") for n in range(200))), "too many files"),
        (tar(GOOD, member("tls/d/x", b"\0" * (11 << 20))), "larger than 10 MiB"),
        (zipped(("meta.json", META), ("tls/d/x", b"\0" * (11 << 20))), "larger than 10 MiB"),
        (zipped(*((f"tls/d/{n}", b"\0" * (6 << 20)) for n in "ab")), "unpacks to more than 10 MiB"),
        (zipped(("meta.json", META), mode=stat.S_IFLNK | 0o777), "unexpected context file"),
        (zipped(("../meta.json", META)), "unexpected context file"),
        (b"PK\x03\x04 and no more", "not a zip archive"),
    ],
)
def test_hostile_files(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path, data: bytes, message: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        contextfile.parse(data)
    assert message in caught.value.message
    (tmp_path / "file").write_bytes(data)
    before = sorted(tmp_path.rglob("*"))
    assert wherry(capfd, "import", "bad", str(tmp_path / "file"))[:2] == (1, "")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_lies_about_its_size() -> None:
    info, _ = member("tls/docker/key.pem")
    info.size = 1 << 40
    data = tar(GOOD)[:1024] + info.tobuf() + b"x" * 512
    with pytest.raises(InvalidArgument):
        contextfile.parse(data)


def test_import_of_both_kinds(capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path) -> None:
    more = [("meta.json", META), ("tls/docker/ca.pem", b"ca"), ("tls/kubernetes/key.pem", b"k")]
    (tmp_path / "z").write_bytes(zipped(("tls/", b""), ("tls/docker/", b""), *more))
    (tmp_path / "t").write_bytes(tar(*(member(*one) for one in more)))
    for kind in "zt":
        assert wherry(capfd, "import", f"from-{kind}", str(tmp_path / kind)) == (
            0,
            f"from-{kind}\n",
            f'Successfully imported context "from-{kind}"\n',
        )
        store = ContextDirectory(str(config))
        assert store.read(f"from-{kind}")["Name"] == f"from-{kind}"
        assert store.tls(f"from-{kind}") == {"docker": {"ca.pem": b"ca"}, "kubernetes": {"key.pem": b"k"}}
    assert 'context "from-t" already exists' in wherry(capfd, "import", "from-t", str(tmp_path / "t"))[2]


def test_export(
    capfd: pytest.CaptureFixture[str], pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wherry(capfd, "create", "far", "--docker", tls(pem))
    assert wherry(capfd, "export", "far") == (0, "", 'Written file "far.dockercontext"\n')
    file = tmp_path / "far.dockercontext"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert wherry(capfd, "export", "far") == (1, "", "open far.dockercontext: file exists\n")
    with tarfile.open(file) as archive:
        assert [m.name for m in archive] == [
            "meta.json",
            "tls",
            "tls/docker",
            *(f"tls/docker/{name}.pem" for name in ("ca", "cert", "key")),
        ]


@pytest.mark.skipif(DOCKER is None, reason="needs the docker CLI")
def test_the_docker_cli_and_we_read_each_other(
    capfd: pytest.CaptureFixture[str], config: Path, pem: Path, tmp_path: Path
) -> None:
    def docker(*argv: str) -> str:
        env = {**os.environ, "DOCKER_CONFIG": str(config)}
        done = subprocess.run(
            [DOCKER or "", "context", *argv], env=env, capture_output=True, timeout=patiently(20)
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    assert wherry(capfd, "create", "ours", "--description", 'a "<b>"', "--docker", tls(pem))[0] == 0
    docker("create", "theirs", "--description", 'a "<b>"', "--docker", tls(pem))
    for name in ("ours", "theirs"):
        assert json.loads(docker("inspect", name)) == json.loads(wherry(capfd, "inspect", name)[1])
    names = "{{.Name}} {{.Description}} {{.DockerEndpoint}} {{.Current}}"
    assert docker("use", "ours") == "ours\n"
    assert wherry(capfd, "ls", "--format", names)[1].splitlines()[1:] == [
        'ours a "<b>" tcp://far:2376 true',
        'theirs a "<b>" tcp://far:2376 false',
    ]
    assert wherry(capfd, "use", "theirs")[0] == 0
    assert docker("show") == "theirs\n"
    assert docker("ls", "--format", names).splitlines()[2] == 'theirs a "<b>" tcp://far:2376 true'
    assert wherry(capfd, "export", "theirs", str(tmp_path / "ours.tar"))[0] == 0
    docker("import", "there", str(tmp_path / "ours.tar"))
    docker("export", "ours", str(tmp_path / "theirs.tar"))
    assert wherry(capfd, "import", "here", str(tmp_path / "theirs.tar"))[0] == 0
    store = ContextDirectory(str(config))
    for name in ("there", "here"):
        assert store.tls(name) == store.tls("ours")
        assert json.loads(docker("inspect", name))[0]["Metadata"] == {"Description": 'a "<b>"'}
    docker("rm", "-f", "theirs")
    assert wherry(capfd, "show")[1] == "default\n"
    assert wherry(capfd, "rm", "ours", "there", "here")[0] == 0
    assert docker("ls", "-q") == "default\n"


def test_completion_of_names(capfd: pytest.CaptureFixture[str], serve: Serve) -> None:
    wherry(capfd, "create", "far", "--docker", "host=unix:///x")
    for words in (["context", "use", ""], ["--context", ""], ["context", "rm", "far", "f"]):
        assert main(["__complete", "--", *words]) == 0
        assert "far\tcontext" in capfd.readouterr().out.splitlines()
