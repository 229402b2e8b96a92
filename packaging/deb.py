"""Debian packages: ``wherry`` (client, daemon, hub) and ``wherry-docker`` (the names of Docker's).

    python packaging/deb.py [--suite bookworm|trixie] [--architecture amd64|arm64] [--output dist]

The libraries that are locked lie beside the program in /usr/lib/wherry, for the suite's Python; nothing is
fetched when the package is installed. Needs dpkg-deb and pip, and no root.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import man

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
PLATFORMS = {
    "amd64": ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64"),
    "arm64": ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64"),
}
PROGRAMS = {
    "wherry": ("usr/bin", "wherry.cli.main"),
    "wherryd": ("usr/bin", "wherry.daemon.main"),
    "wherry-hub": ("usr/bin", "wherry.hub.cli.main"),
}
_SERVICES = ("s3", "sts", "sso", "sso-oidc")
DEPENDS = (
    "ca-certificates, conmon (>= 2.1), crun (>= 0.17) | runc (>= 1.1), debconf (>= 0.5) | debconf-2.0, "
    "iproute2, libnftables1, netbase, tini, "
)
LAUNCHER = """#!/usr/bin/python3 -I
import sys
sys.path.insert(0, "/usr/lib/wherry")
from {module} import entry
sys.exit(entry())
"""


def version() -> str:
    text = (PROJECT / "src/wherry/__init__.py").read_text()
    return text.partition('__version__ = "')[2].partition('"')[0]


def libraries(target: Path, suite: str, architecture: str) -> None:
    """The locked requirements, and wherry itself, with bytecode that is valid where it is installed."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
    ]
    command += ["--target", str(target), "--python-version", PYTHONS[suite], "--only-binary=:all:"]
    command += ["--implementation", "cp", "--require-hashes"]
    for platform in PLATFORMS[architecture]:
        command += ["--platform", platform]
    for lock in ("requirements.lock", "requirements-hub.lock"):
        command += ["-r", str(PROJECT / lock)]
    subprocess.run(command, check=True)
    shutil.rmtree(target / "bin", ignore_errors=True)
    for service in (target / "botocore/data").iterdir():
        # Descriptions of some hundred services, of which the hub speaks to one.
        if service.is_dir() and service.name not in _SERVICES:
            shutil.rmtree(service)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "src/wherry", target / "wherry", ignore=ignored)


def compiled(target: Path, suite: str) -> bool:
    """Compile it here if this Python is the suite's; else the package does that when it is installed."""
    if PYTHONS[suite] != f"{sys.version_info[0]}.{sys.version_info[1]}":
        return False
    compileall.compile_dir(target, quiet=2, stripdir=str(target), prependdir="/usr/lib/wherry")
    return True


def put(root: Path, place: str, text: str, mode: int = 0o644) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def manual(root: Path) -> None:
    for name, text in man.pages().items():
        path = root / "usr/share/man" / f"{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), mtime=0))


def completions(root: Path) -> None:
    from wherry.cli.commands import completion

    put(root, "usr/share/bash-completion/completions/wherry", completion.BASH_SCRIPT)
    put(root, "usr/share/zsh/vendor-completions/_wherry", completion.ZSH_SCRIPT)
    put(root, "usr/share/fish/vendor_completions.d/wherry.fish", completion.FISH_SCRIPT)


def main_package(root: Path, suite: str, architecture: str) -> dict[str, str]:
    library = root / "usr/lib/wherry"
    libraries(library, suite, architecture)
    compiled(library, suite)
    for name, (place, module) in PROGRAMS.items():
        put(root, f"{place}/{name}", LAUNCHER.format(module=module), 0o755)
    for unit in (PROJECT / "packaging/systemd").iterdir():
        put(root, f"usr/lib/systemd/system/{unit.name}", unit.read_text())
    put(root, "etc/wherry/daemon.json", "{}\n")
    completions(root)
    manual(root)
    documents = root / "usr/share/doc/wherry"
    shutil.copytree(PROJECT / "docs", documents / "docs")
    for name in ("README.md", "LICENSE"):
        shutil.copy(PROJECT / name, documents / {"LICENSE": "copyright"}.get(name, name))
    (documents / "changelog.gz").write_bytes(gzip.compress((PROJECT / "CHANGELOG.md").read_bytes(), mtime=0))
    python = PYTHONS[suite]
    major, minor = python.split(".")
    return {
        "Package": "wherry",
        "Architecture": architecture,
        "Depends": f"{DEPENDS}python3 (>= {python}), python3 (<< {major}.{int(minor) + 1})",
        "Recommends": "git, mmdebstrap, apparmor",
        "Description": "container engine in Python: client, daemon and registry\n"
        " Runs, builds and stores containers, and speaks the Docker Engine API to every tool\n"
        " that does. Containers go on running while the daemon is upgraded.",
    }


def docker_package(root: Path) -> dict[str, str]:
    put(
        root,
        "usr/lib/systemd/system/wherryd.socket.d/docker.conf",
        "[Socket]\nListenStream=/run/docker.sock\n",
    )
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/docker").symlink_to("wherry")
    return {
        "Package": "wherry-docker",
        "Architecture": "all",
        "Depends": f"wherry (= {version()})",
        "Conflicts": "docker.io, docker-ce, docker-ce-cli, docker-cli, podman-docker",
        "Provides": "docker.io",
        "Description": "wherry under Docker's names\n"
        " Provides the command docker and the socket /run/docker.sock.",
    }


def finish(root: Path, fields: dict[str, str], scripts: Path | None, output: Path) -> Path:
    """Write the control files and the package."""
    size = sum(path.lstat().st_size for path in root.rglob("*") if not path.is_dir()) // 1024
    head = {
        "Package": fields["Package"],
        "Version": version(),
        "Section": "admin",
        "Priority": "optional",
        "Maintainer": "wherry maintainers <maintainers@wherry.invalid>",
        "Installed-Size": str(size),
    }
    control = {**head, **fields}
    description = control.pop("Description")
    text = "".join(f"{key}: {value}\n" for key, value in control.items())
    put(root, "DEBIAN/control", f"{text}Description: {description}\n")
    if scripts is not None:
        for script in scripts.iterdir():
            executable = script.suffix == "" and script.name not in ("templates", "conffiles")
            put(root, f"DEBIAN/{script.name}", script.read_text(), 0o755 if executable else 0o644)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{fields['Package']}_{version()}_{fields['Architecture']}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(path)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--suite", choices=sorted(PYTHONS), default="bookworm")
    parser.add_argument("--architecture", choices=sorted(PLATFORMS), default="amd64")
    parser.add_argument("--output", type=Path, default=PROJECT / "dist")
    given = parser.parse_args()
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as work:
        root = Path(work) / "wherry"
        fields = main_package(root, given.suite, given.architecture)
        print(finish(root, fields, HERE / "debian", given.output / given.suite))
        docker = Path(work) / "wherry-docker"
        print(finish(docker, docker_package(docker), None, given.output / given.suite))


if __name__ == "__main__":
    main()
