"""The Debian package in a system made for it: installed, used, upgraded beside a running container, removed.

The system is a root file system of its own, entered by pivot_root in mount and network namespaces, so a
minimal Debian is met as an operator meets it. There is no systemd in it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.patient(1800)]
PROJECT = Path(__file__).resolve().parents[2]
ENTER = """
set -e
mount --make-rprivate /
mount --bind {root} {root}
cd {root}
mkdir -p old
pivot_root . old
mount -t proc proc /proc
mount --rbind /old/sys /sys
mount --rbind /old/dev /dev
mount -t tmpfs tmpfs /run
umount -l /old
ip link set lo up
{command}
"""


class System:
    """A minimal Debian. ``run`` needs the package; ``fetch`` has the host's network instead of an own one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, command: str, *, code: int = 0) -> str:
        script = ENTER.format(root=self.root, command=command)
        done = subprocess.run(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def apt(self, command: str, *, code: int = 0) -> str:
        done = subprocess.run(
            ["chroot", str(self.root), "sh", "-c", f"DEBIAN_FRONTEND=noninteractive apt-get -qy {command}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    work = tmp_path_factory.mktemp("deb")
    subprocess.run(["make", "-C", str(PROJECT), "deb"], check=True, capture_output=True)
    root = work / "root"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root)],
        check=True,
    )
    for package in (PROJECT / "dist/bookworm").glob("*.deb"):
        shutil.copy(package, root / "tmp")
    try:
        yield System(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


DAEMON = "wherryd >/tmp/log 2>&1 & D=$!; until wherry version >/dev/null 2>&1; do sleep 0.2; done; "


def test_installed_used_and_removed(system: System) -> None:
    system.apt("install --no-install-recommends /tmp/wherry_*.deb")
    assert system.run("wherry --version").startswith("wherry version ")
    assert "0 problems" in system.run("wherryd doctor")
    assert "usage: wherry-hub" in system.run("wherry-hub --help")

    image = subprocess.run(
        [str(PROJECT / ".venv/bin/python"), "-c", SAVE], check=True, capture_output=True, cwd=PROJECT
    ).stdout
    (system.root / "tmp/hello.tar").write_bytes(image)
    said = system.run(
        DAEMON + "wherry load -q -i /tmp/hello.tar; wherry run --rm hello /bin/busybox echo from a package;"
        " wherry run -d --name keep hello /bin/busybox sleep 1000 >/dev/null; dpkg --purge wherry && exit 9;"
        " wherry rm -f keep; kill $D; wait $D; wherryd --teardown"
    )
    assert "from a package" in said

    system.apt("install --no-install-recommends /tmp/wherry-docker_*.deb")
    assert "Docker" in system.run("docker --version") or "wherry" in system.run("docker --version")
    system.apt("remove wherry-docker wherry")
    assert (system.root / "var/lib/wherry/wherry.db").exists()
    assert not (system.root / "usr/lib/wherry").exists()
    system.apt("purge wherry")
    assert (system.root / "var/lib/wherry/wherry.db").exists()  # nobody said that the data may go
    assert not (system.root / "etc/wherry").exists()


SAVE = """
import sys; sys.path[:0] = ['tests/suites', 'tests/integration']
import io, json, tarfile, hashlib, pathlib
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode='w') as tar:
    tar.add('/bin/busybox', 'bin/busybox')
data = layer.getvalue()
config = json.dumps({'architecture': 'amd64', 'os': 'linux', 'config': {}, 'rootfs': {'type': 'layers',
    'diff_ids': ['sha256:' + hashlib.sha256(data).hexdigest()]}}).encode()
manifest = json.dumps([{'Config': 'c.json', 'RepoTags': ['hello:latest'], 'Layers': ['l.tar']}]).encode()
out = io.BytesIO()
with tarfile.open(fileobj=out, mode='w') as tar:
    for name, text in (('c.json', config), ('l.tar', data), ('manifest.json', manifest)):
        info = tarfile.TarInfo(name); info.size = len(text); tar.addfile(info, io.BytesIO(text))
sys.stdout.buffer.write(out.getvalue())
"""
