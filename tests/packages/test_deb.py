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
{command}
"""


class System:
    """A minimal Debian, entered anew for each command."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, command: str, *namespaces: str) -> str:
        """What a shell command prints. :param namespaces: further ones of its own, as unshare(1) has them."""
        script = ENTER.format(root=self.root, command=command)
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *namespaces]
        done = subprocess.run([*enter, "sh", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def apart(self, command: str) -> str:
        """The same, with a network of its own."""
        return self.run(f"ip link set lo up; {command}", "--net")

    def apt(self, command: str) -> str:
        return self.run(f"export DEBIAN_FRONTEND=noninteractive; apt-get -qy {command}")


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
    # What the host's own apt needs here: a proxy, a name server, certificates.
    needs = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    lines = [line for line in needs.splitlines() if line.startswith("Acquire::http")]
    (root / "etc/apt/apt.conf.d/99host").write_text("\n".join(lines) + "\n")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    try:
        found = System(root)
        found.apt("update")
        yield found
    finally:
        shutil.rmtree(root, ignore_errors=True)


DAEMON = "wherry daemon start; "


def test_installed_used_and_removed(system: System) -> None:
    system.apt("install --no-install-recommends /tmp/wherry_*.deb")
    assert system.apart("wherry --version").startswith("wherry version ")
    assert "0 problems" in system.apart("wherryd doctor || true")
    assert "usage: wherry-hub" in system.apart("wherry-hub --help")

    image = subprocess.run(
        [str(PROJECT / ".venv/bin/python"), "-c", SAVE], check=True, capture_output=True, cwd=PROJECT
    ).stdout
    (system.root / "tmp/hello.tar").write_bytes(image)
    said = system.apart(
        DAEMON + "wherry load -q -i /tmp/hello.tar; wherry run --rm hello /bin/busybox echo from a package;"
        " wherry run -d --name keep hello /bin/busybox sleep 1000 >/dev/null; dpkg --purge wherry && exit 9;"
        " wherry rm -f keep; wherry daemon stop; wherryd --teardown"
    )
    assert "from a package" in said

    system.apt("install --no-install-recommends /tmp/wherry-docker_*.deb")
    assert "wherry" in system.apart("docker --version")
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
