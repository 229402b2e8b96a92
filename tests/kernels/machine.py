"""Debian's stock kernel in QEMU, with this host's files as its own, to run the tests on.

    python tests/kernels/machine.py [--memory MiB] [--cpus N] [--timeout S] -- COMMAND ARGUMENT…

The machine sees the host's whole tree at the same paths, read-only below and in memory above, so a command
runs there as it would here and changes nothing here. It has kernel parts and a cgroup layout (version 2
alone) that the host may lack. ``guest.py`` is its init. The command's output comes as it is written, and its
exit code is this program's; :data:`BROKEN` or :data:`TIMED_OUT` when the machine failed it.

The kernel is not installed: its package is unpacked in ``.cache/kernels`` and taken from there.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import disk

BROKEN = 120
"""The machine did not come up, or ended before the command did."""
TIMED_OUT = 124

PROJECT = Path(__file__).resolve().parents[2]
_GUEST = Path(__file__).resolve().with_name("guest.py")
_CACHE = PROJECT / ".cache" / "kernels"
_PROGRAMS = ("apt-get", "busybox", "cpio", "depmod", "dpkg-deb", "mkfs.ext4", "qemu-system-x86_64", "setpriv")
_FIRST_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What it takes to see the host's files; all others are loaded from those."""
_HIDDEN = ("/dev", "/proc", "/run", "/sys")
"""Where the machine has file systems of its own, so nothing of the host is seen."""
_BOOT_SECONDS = 180
"""It takes five on a host that does nothing else."""
_DISK_BYTES = 16 << 30
_PASSED_ON = ("HOME", "LANG", "PATH", "PYTHONPATH", "TERM")
_PREFIXES = ("PYTEST_", "WHERRY_")

_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /host /memory /root
$b mount -t proc proc /proc && $b mount -t sysfs sysfs /sys && $b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module || echo "cannot load $module"; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /host || exit 1
$b mount -t tmpfs -o mode=755 memory /memory && $b mkdir /memory/upper /memory/work
$b mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root || exit 1
for each in proc sys dev; do $b mount --move /$each /root/$each; done
exec $b switch_root /root {init}
"""


class MachineError(Exception):
    """The machine cannot be made, or did not do what it was made for."""

    def __init__(self, message: str, code: int = BROKEN) -> None:
        super().__init__(message)
        self.code = code


# ---- the kernel ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    directory: Path

    @property
    def release(self) -> str:
        return next((self.directory / "lib/modules").iterdir()).name

    @property
    def image(self) -> Path:
        return self.directory / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.directory / "lib/modules" / self.release

    def load_order(self, names: Sequence[str]) -> list[Path]:
        """The files of some modules and of what they need, each after what it needs itself."""
        needs: dict[str, list[str]] = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            file, _, others = line.partition(":")
            needs[file] = others.split()
        by_name = {Path(file).name.partition(".")[0].replace("-", "_"): file for file in needs}
        built_in = (self.modules / "modules.builtin").read_text()
        order: list[str] = []
        for name in names:
            if name in by_name:
                file = by_name[name]
                order += [f for f in [*reversed(needs[file]), file] if f not in order]
            elif f"/{name}.ko" not in built_in:
                raise MachineError(f"the kernel {self.release} has no module {name}")
        return [self.modules / file for file in order]


@contextlib.contextmanager
def stock_kernel() -> Iterator[Kernel]:
    """The newest kernel that apt knows of, unpacked; nobody removes it meanwhile."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory = _current() or _download()
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(held, fcntl.LOCK_SH)
        _remove_others(directory)
    try:
        yield Kernel(directory)
    finally:
        os.close(held)


def _current() -> Path | None:
    """What is there already, if it is what apt would install or apt does not know."""
    wanted = _candidate()
    if wanted is not None:
        directory = _CACHE / "_".join(wanted)
        return directory if directory.is_dir() else None
    return max((d for d in _CACHE.iterdir() if d.name.startswith("linux-image-")), default=None)


def _candidate() -> tuple[str, str] | None:
    """Name and version of the package that linux-image-amd64 stands for."""
    depends = _output("apt-cache", "depends", "linux-image-amd64")
    names = [line.split()[1] for line in depends.splitlines() if line.strip().startswith("Depends:")]
    if not names:
        return None
    shown = _output("apt-cache", "show", "--no-all-versions", names[0])
    versions = [line.split()[1] for line in shown.splitlines() if line.startswith("Version:")]
    return (names[0], versions[0]) if versions else None


def _download() -> Path:
    """Fetch and unpack it aside, and give it its name when it is whole."""
    new = Path(tempfile.mkdtemp(prefix="new-", dir=_CACHE))
    try:
        wanted = _candidate()
        if wanted is None or not _fetched(wanted, new):
            _run("apt-get", "update")
            wanted = _candidate()
            if wanted is None or not _fetched(wanted, new):
                raise MachineError("apt has no linux-image-amd64")
        (package,) = new.glob("*.deb")
        tree = new / "tree"
        _run("dpkg-deb", "-x", str(package), str(tree))
        _run("depmod", "-b", str(tree), Kernel(tree).release)
        return tree.rename(_CACHE / "_".join(wanted))
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _fetched(wanted: tuple[str, str], directory: Path) -> bool:
    print(f"machine: fetching {' '.join(wanted)}", file=sys.stderr)
    argv = ["apt-get", "download", "=".join(wanted)]
    return subprocess.run(argv, cwd=directory, capture_output=True, check=False).returncode == 0


def _remove_others(wanted: Path) -> None:
    """Older kernels that no machine runs, and what killed downloads left."""
    for directory in _CACHE.iterdir():
        if directory == wanted or not directory.is_dir():
            continue
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(f"{shlex.join(argv)}: {(done.stderr or done.stdout).strip()}")


# ---- the machine -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    memory: int = 4096
    """MiB."""
    cpus: int = 1
    """Emulated processors wait for each other more than they get done, the more so beside other work."""
    accel: str = "tcg"
    """``kvm`` is ten times as fast where it works; not every host that has /dev/kvm can run a guest."""


def run(command: Sequence[str], *, size: Size, timeout: float) -> int:
    """Run a command in a machine of its own and return its exit code.

    :raises MachineError: it did not come up, ended early, or took longer than ``timeout`` seconds."""
    _check_host()
    with contextlib.ExitStack() as stack:
        kernel = stack.enter_context(stock_kernel())
        directory = Path(tempfile.mkdtemp(prefix="wherry-machine-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        _write_parts(directory, kernel, command)
        channels = [stack.enter_context(_pipe()) for _ in range(3)]
        writers = [w for _, w in channels]
        process = subprocess.Popen(
            # it ends when this process does, even if that is killed
            ["setpriv", "--pdeathsig", "KILL", *_qemu(directory, kernel, size, writers)],
            stdin=subprocess.DEVNULL,
            pass_fds=writers,
            start_new_session=True,
        )
        stack.callback(_end, process)
        for writer in writers:
            os.close(writer)
        return _Conversation(*(r for r, _ in channels), directory=directory).follow(timeout)


def _check_host() -> None:
    if platform.machine() != "x86_64":
        raise MachineError("the machine is an x86_64 one, and so must be its host")
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise MachineError(f"{', '.join(missing)} not found: run scripts/setup --with-kernel")
    for path in (PROJECT, Path(sys.prefix), Path(tempfile.gettempdir())):
        if str(path).startswith(tuple(f"{hidden}/" for hidden in _HIDDEN)):
            raise MachineError(
                f"{path} cannot be seen in the machine, which has a file system of its own there"
            )


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """The writer is the taker's to close."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _write_parts(directory: Path, kernel: Kernel, command: Sequence[str]) -> None:
    """The first file system, an empty disk, and the job."""
    environment = {k: v for k, v in os.environ.items() if k in _PASSED_ON or k.startswith(_PREFIXES)}
    copied = disk.trees(PROJECT)
    job = {
        "command": list(command),
        "copied": {str(path): f"{disk.COPIES}{path}" for path in copied},
        "directory": str(PROJECT),
        "environment": environment,
        "modules": str(kernel.modules),
    }
    (directory / "job").write_text(json.dumps(job))
    try:
        disk.make(directory / "disk", _DISK_BYTES, copied, directory / "staging")
    except subprocess.CalledProcessError as e:
        raise MachineError(f"no disk could be made: {e.stderr.strip()}") from e
    tree = directory / "tree"
    for name in ("bin", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tree / "bin" / "busybox")
    for number, module in enumerate(kernel.load_order(_FIRST_MODULES)):
        shutil.copy(module, tree / "modules" / f"{number:02}-{module.name}")
    init = tree / "init"
    init.write_text(_INIT.format(init=shlex.join([sys.executable, str(_GUEST), str(directory / "job")])))
    init.chmod(0o755)
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    with (directory / "initramfs").open("wb") as file:
        argv = ["cpio", "--quiet", "-o", "-H", "newc"]
        subprocess.run(argv, input=names.encode(), stdout=file, cwd=tree, check=True)
    shutil.rmtree(tree)


def _qemu(directory: Path, kernel: Kernel, size: Size, writers: Sequence[int]) -> list[str]:
    console, output, result = (f"/dev/fd/{writer}" for writer in writers)
    accel = ["-accel", "kvm"] if size.accel == "kvm" else ["-accel", "tcg,thread=multi"]
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *accel,
        *("-cpu", "max", "-smp", str(size.cpus), "-m", str(size.memory)),
        *("-kernel", str(kernel.image), "-initrd", str(directory / "initramfs")),
        *("-append", "console=ttyS0 panic=-1 quiet"),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        *("-drive", f"file={directory / 'disk'},format=raw,if=virtio,cache=unsafe,discard=unmap"),
        # an outer interface as hosts have one, that leads nowhere
        *("-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci"),
        *(
            "-chardev",
            f"file,id=output,path={output}",
            "-device",
            "virtserialport,chardev=output,name=output",
        ),
        *(
            "-chardev",
            f"file,id=result,path={result}",
            "-device",
            "virtserialport,chardev=result,name=result",
        ),
    ]


class _Conversation:
    """What a machine says, by three pipes: its console, the command's output, and how it goes (``up``, then
    ``exit CODE``)."""

    def __init__(self, console: int, output: int, result: int, *, directory: Path) -> None:
        self._console, self._output, self._result = console, output, result
        self._directory = directory
        self._said = b""
        self._news = b""
        self._up = False

    def follow(self, timeout: float) -> int:
        began = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for fd in (self._console, self._output, self._result):
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map():
                patience = timeout if self._up else _BOOT_SECONDS
                left = began + patience - time.monotonic()
                if left <= 0:
                    raise self._late(patience)
                for key, _ in selector.select(left):
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                if self._comes_up():
                    began = time.monotonic()
                if (code := self._finished()) is not None:
                    self._read(self._output)
                    return code
        raise MachineError(self._with_console("the machine ended before the command did"))

    def _late(self, seconds: float) -> MachineError:
        if self._up:
            return MachineError(f"the command took longer than {seconds:g} s", TIMED_OUT)
        return MachineError(self._with_console(f"the machine did not come up in {seconds:g} s"))

    def _read(self, fd: int) -> bool:
        """Take what is there; False at the end."""
        while True:
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            if fd == self._output:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            elif fd == self._result:
                self._news += data
            else:
                self._said = (self._said + data)[-20000:]

    def _comes_up(self) -> bool:
        if self._up or b"\n" not in self._news:
            return False
        # QEMU has opened what it needs and the machine has read the rest, so nothing of it need be left if
        # this process is killed.
        shutil.rmtree(self._directory, ignore_errors=True)
        self._up = True
        return True

    def _finished(self) -> int | None:
        lines = self._news.decode().split("\n")[:-1]
        return next((int(line.split()[1]) for line in lines if line.startswith("exit ")), None)

    def _with_console(self, what: str) -> str:
        said = self._said.decode(errors="replace").replace("\r", "").strip()
        return f"{what}; its console said last:\n{said}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a command on Debian's stock kernel, in QEMU.")
    parser.add_argument("--memory", type=int, default=Size.memory, help="MiB (default %(default)s)")
    parser.add_argument("--cpus", type=int, default=Size.cpus, help="(default %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=1800, help="seconds for the command (default %(default)s)"
    )
    parser.add_argument("--accel", choices=("tcg", "kvm"), default=Size.accel, help="(default %(default)s)")
    parser.add_argument("--fetch", action="store_true", help="only see to it that the kernel is there")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args(argv)
    if not options.command and not options.fetch:
        parser.error("which command?")
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGHUP, _interrupted)
    try:
        if options.fetch:
            with stock_kernel():
                return 0
        size = Size(options.memory, options.cpus, options.accel)
        return run(options.command, size=size, timeout=options.timeout)
    except MachineError as e:
        print(f"machine: {e}", file=sys.stderr)
        return e.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # nobody reads any more; nor is there anybody to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _interrupted(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main())
