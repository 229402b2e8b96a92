"""The same small web service as a wherry container, an LXC container and a virtual machine, side by side.

    python bench/lighter.py [--rounds 10] [--density 20] [--markdown FILE]

Size, time until the first answer, memory. The service is busybox's httpd with one page of 4 KiB, the same
static program everywhere. All of it runs in namespaces of its own. LXC is Debian's package ``lxc``. The
machine is QEMU with Debian's kernel (``scripts/setup --with-kernel`` brings both); its initial file system is
the whole system. It is emulated unless ``--accel kvm`` says otherwise, as not every host that has
``/dev/kvm`` can run a guest."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asking
import crowd
from commands import Failed
from engines import BIN, memory

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests" / "kernels"))

from machine import stock_kernel  # noqa: E402

PAGE = b"<p>hello</p>\n".ljust(4096)
BRIDGE, NET = "lighter0", "10.199.0"
MACHINE_MEMORY = 96
"""MiB that the virtual machine is given; with 64 Debian's kernel does not come up."""
_BUSYBOX = "/bin/busybox"


class Kind:
    """One way to run the service. Instances are numbered from 1."""

    name = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self, number: int) -> str:
        """Begin an instance; the address where it will answer. It need not answer yet."""
        raise NotImplementedError

    def stop(self, number: int) -> None:
        """End it and remove all of it."""
        raise NotImplementedError

    def size(self) -> int:
        """Bytes on disk of what one instance is made from."""
        raise NotImplementedError

    def close(self) -> None:
        pass


class Container(Kind):
    name = "wherry"

    def __init__(self, directory: Path, daemon: crowd.Daemon) -> None:
        super().__init__(directory)
        self._daemon = daemon
        with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w") as tar:
            tar.add(_BUSYBOX, "bin/busybox")
            page = tarfile.TarInfo("www/index.html")
            page.size = len(PAGE)
            tar.addfile(page, io.BytesIO(PAGE))
        self._archive = archive.getvalue()
        command = quote(f"CMD {json.dumps([_BUSYBOX, 'httpd', '-f', '-h', '/www'])}")
        target = f"/images/create?fromSrc=-&repo=web&changes={command}"
        asking.ask(daemon.socket, "POST", target, self._archive)

    def _run(self, *arguments: str) -> str:
        environment = {**os.environ, "DOCKER_HOST": f"unix://{self._daemon.socket}"}
        return _output(str(BIN / "wherry"), *arguments, environment=environment)

    def start(self, number: int) -> str:
        self._run("run", "-d", "--name", f"web{number}", "--publish", f"127.0.0.1:{8000 + number}:80", "web")
        return f"127.0.0.1:{8000 + number}"

    def stop(self, number: int) -> None:
        self._run("rm", "-f", f"web{number}")

    def size(self) -> int:
        return len(self._archive)


_LXC = """
lxc.uts.name = {name}
lxc.rootfs.path = dir:{root}
lxc.net.0.type = veth
lxc.net.0.link = {bridge}
lxc.net.0.flags = up
lxc.net.0.ipv4.address = {address}/24
lxc.mount.auto = proc:mixed sys:ro
lxc.pty.max = 1
lxc.init.cmd = /bin/busybox httpd -f -h /www
"""


class Lxc(Kind):
    name = "LXC"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        if not shutil.which("lxc-start"):
            raise Failed("LXC is not there (package lxc)")
        _show_links(directory / "sys")
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "addr", "add", f"{NET}.1/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")

    def start(self, number: int) -> str:
        name, address = f"web{number}", f"{NET}.{10 + number}"
        place = self.directory / name
        for each in ("bin", "www", "dev", "proc", "sys"):
            (place / "root" / each).mkdir(parents=True)
        shutil.copy(_BUSYBOX, place / "root" / "bin" / "busybox")
        (place / "root" / "www" / "index.html").write_bytes(PAGE)
        text = _LXC.format(name=name, root=place / "root", bridge=BRIDGE, address=address)
        (place / "config").write_text(text)
        log = place / "log"
        try:
            _run("lxc-start", "-P", str(self.directory), "-n", name, "-d", "-o", str(log), "-l", "ERROR")
        except Failed as e:
            raise Failed(f"{e}: {log.read_text()[-1000:]}") from e
        return f"{address}:80"

    def stop(self, number: int) -> None:
        name = f"web{number}"
        _run("lxc-stop", "-P", str(self.directory), "-n", name, "-k")
        shutil.rmtree(self.directory / name)

    def size(self) -> int:
        return Path(_BUSYBOX).stat().st_size + len(PAGE)

    def close(self) -> None:
        _run("ip", "link", "del", BRIDGE)


def _show_links(place: Path) -> None:
    """LXC looks in /sys whether a link is a bridge, and there it would see the host's links."""
    place.mkdir()
    _run("mount", "-t", "sysfs", "sysfs", str(place))
    for part in ("class", "devices"):
        _run("mount", "--bind", str(place / part), f"/sys/{part}")


_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
$b ip link set lo up; $b ip link set eth0 up
$b ip addr add 10.0.2.15/24 dev eth0; $b ip route add default via 10.0.2.2
exec $b httpd -f -h /www
"""


class Machine(Kind):
    def __init__(self, directory: Path, accel: str) -> None:
        super().__init__(directory)
        self._accel = accel
        self.name = "QEMU, emulated" if accel == "tcg" else f"QEMU, {accel.upper()}"
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        tree = directory / "tree"
        for each in ("bin", "www", "dev", "modules"):
            (tree / each).mkdir(parents=True)
        shutil.copy(_BUSYBOX, tree / "bin" / "busybox")
        (tree / "www" / "index.html").write_bytes(PAGE)
        (tree / "init").write_text(_INIT)
        (tree / "init").chmod(0o755)
        with stock_kernel() as kernel:
            shutil.copy(kernel.image, directory / "kernel")
            for number, module in enumerate(kernel.load_order(("virtio_pci", "virtio_net"))):
                shutil.copy(module, tree / "modules" / f"{number:02}-{module.name}")
        names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
        with (directory / "initramfs").open("wb") as file:
            argv = ["cpio", "--quiet", "-o", "-H", "newc"]
            subprocess.run(argv, input=names.encode(), stdout=file, cwd=tree, check=True)

    def start(self, number: int) -> str:
        port = 9000 + number
        self._running[number] = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
                *("-accel", self._accel, "-cpu", "max", "-m", str(MACHINE_MEMORY)),
                *("-kernel", str(self.directory / "kernel"), "-initrd", str(self.directory / "initramfs")),
                *("-append", "panic=-1 quiet"),
                *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:80"),
                *("-device", "virtio-net-pci,netdev=net,romfile="),
            ],
            stdin=subprocess.DEVNULL,
        )
        return f"127.0.0.1:{port}"

    def stop(self, number: int) -> None:
        process = self._running.pop(number)
        process.kill()
        process.wait()

    def size(self) -> int:
        return sum((self.directory / name).stat().st_size for name in ("kernel", "initramfs"))


# ---- measuring -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Sizes in bytes, times in seconds, memory in MiB for one instance."""

    name: str
    size: int
    starts: list[float]
    stops: list[float]
    pss: float
    taken: float


def measure(kind: Kind, rounds: int, density: int) -> Row:
    starts, stops = [], []
    for number in range(1, rounds + 2):
        began = time.perf_counter()
        _answered(kind.start(number))
        started = time.perf_counter()
        kind.stop(number)
        starts.append(started - began)
        stops.append(time.perf_counter() - started)
    before, left = _pss(), _available()
    for number in range(1, density + 1):
        _answered(kind.start(number))
    time.sleep(2)
    pss, taken = (_pss() - before) / density, (left - _available()) / density
    for number in range(1, density + 1):
        kind.stop(number)
    return Row(kind.name, kind.size(), starts[1:], stops[1:], pss, taken)


def _answered(address: str) -> None:
    """Wait for the page. :raises Failed: it does not come within two minutes."""
    host, _, port = address.partition(":")
    end = time.monotonic() + 120
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(host, int(port), timeout=1)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/index.html")
            if connection.getresponse().read() == PAGE:
                return
        time.sleep(0.002)
    raise Failed(f"nothing answers at {address}")


def _pss() -> float:
    """Of every process here but this one."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    total = 0.0
    for pid in pids:
        if pid != os.getpid():
            with contextlib.suppress(OSError, Failed):  # gone, or the kernel's own
                total += memory([pid], "Pss")
    return total


def _available() -> float:
    """MiB that the host could still give."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise Failed("/proc/meminfo has no MemAvailable")


def _run(*argv: str) -> None:
    _output(*argv)


def _output(*argv: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise Failed(f"{shlex.join(argv)}: {(done.stderr or done.stdout).strip()[:500]}")
    return done.stdout


def table(rows: list[Row]) -> str:
    lines = [
        "| | on disk | start until the page comes: median (min to max) | stop and remove | memory, PSS"
        " | memory that the host has less | instances in 1 GiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        spread = f"{min(row.starts) * 1e3:.0f} to {max(row.starts) * 1e3:.0f}"
        lines.append(
            f"| {row.name} | {row.size / 1e6:.1f} MB | {statistics.median(row.starts) * 1e3:.0f} ms"
            f" ({spread})"
            f" | {statistics.median(row.stops) * 1e3:.0f} ms | {row.pss:.1f} MiB | {row.taken:.1f} MiB"
            f" | {1024 / max(row.taken, row.pss):.0f} |"
        )
    return "\n".join(lines)


@contextlib.contextmanager
def _kinds(directory: Path, accel: str) -> Iterator[list[Kind]]:
    for place in ("lxc", "machine"):
        (directory / place).mkdir()
    with crowd.daemon("bridge") as daemon, contextlib.ExitStack() as stack:
        lxc = Lxc(directory / "lxc")
        stack.callback(lxc.close)
        yield [Container(directory, daemon), lxc, Machine(directory / "machine", accel)]


def work(rounds: int, density: int, accel: str, markdown: Path | None) -> None:
    directory = Path(tempfile.mkdtemp(prefix="lighter-", dir="/var/tmp"))
    try:
        with _kinds(directory, accel) as kinds:
            rows = [measure(kind, rounds, density) for kind in kinds]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(table(rows))
    if markdown:
        markdown.write_text(table(rows) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--accel", choices=("tcg", "kvm"), default="tcg", help="(default %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="starts of each kind (default %(default)s)")
    parser.add_argument("--density", type=int, default=20, help="at once (default %(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    return crowd.inside(lambda: work(options.rounds, options.density, options.accel, options.markdown))


if __name__ == "__main__":
    sys.exit(main())
