"""Makes the roots of Docker Engines that the tests of ``wherry migrate docker`` read.

    python tests/data/docker/make.py ROOT NAME [--containerd]

``ROOT`` is a directory with a system of its own that has dockerd (``bench/engines.py``); ``NAME.tar.gz`` is
written beside this file. All of it is that dockerd's work: an image of two layers that was loaded, one that
was built on it, containers of all states, a network, volumes. The program that its containers run waits for
ever and has 129 bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "bench"))

import engines  # noqa: E402
from engines import Docker  # noqa: E402

_CODE = bytes.fromhex("b8220000000f05ebf7")  # mov eax, SYS_pause; syscall; jmp back


def pause() -> bytes:
    """A static x86-64 program (elf(5)): header, one segment, code."""
    size = 64 + 56 + len(_CODE)
    address = 0x400000
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + (62).to_bytes(2, "little")
    elf += (1).to_bytes(4, "little") + (address + 120).to_bytes(8, "little") + (64).to_bytes(8, "little")
    elf += bytes(12) + b"".join(n.to_bytes(2, "little") for n in (64, 56, 1, 0, 0, 0))
    segment = (1).to_bytes(4, "little") + (5).to_bytes(4, "little") + bytes(8)
    segment += (
        address.to_bytes(8, "little") * 2 + size.to_bytes(8, "little") * 2 + (4096).to_bytes(8, "little")
    )
    return elf + segment + _CODE


def _tar(*members: tuple[str, bytes | str | None, dict[str, object]]) -> bytes:
    """Bytes are a file, text is a link, nothing is what ``type`` says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, facts in members:
            info = tarfile.TarInfo(name)
            info.mtime = 1_500_000_000
            for key, value in facts.items():
                setattr(info, key, value)
            if isinstance(content, bytes):
                info.size = len(content)
            elif isinstance(content, str):
                info.linkname = content
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def image() -> bytes:
    """What ``docker load`` takes: two layers, the second of which removes and replaces."""
    first = _tar(
        ("pause", pause(), {"mode": 0o755}),
        ("data", None, {"type": tarfile.DIRTYPE, "mode": 0o750, "uid": 7, "gid": 8}),
        ("data/kept", b"kept\n" * 300, {"mode": 0o4755, "uid": 5, "gid": 6}),
        ("data/hard", "data/kept", {"type": tarfile.LNKTYPE, "mode": 0o4755, "uid": 5, "gid": 6}),
        ("data/soft", "kept", {"type": tarfile.SYMTYPE}),
        ("data/fifo", None, {"type": tarfile.FIFOTYPE}),
        ("data/removed", b"removed", {}),
        ("data/" + "long" * 40, b"a long name", {}),
        ("data/umlaut-\u00fc", b"", {}),
        ("gone", None, {"type": tarfile.DIRTYPE}),
        ("gone/inside", b"inside", {}),
    )
    second = _tar(
        ("data/.wh.removed", b"", {}),
        ("gone", None, {"type": tarfile.DIRTYPE}),
        ("gone/.wh..wh..opq", b"", {}),
        ("gone/new", b"new", {"pax_headers": {"SCHILY.xattr.user.mark": "x"}}),
    )
    layers = [first, second]
    diffs = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "created": "2017-07-14T02:40:00Z",
            "config": {"Entrypoint": ["/pause"], "Env": ["FROM=image"], "ExposedPorts": {"80/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": diffs},
            "history": [{"created": "2017-07-14T02:40:00Z", "created_by": f"layer {n}"} for n in range(2)],
        }
    ).encode()  # fmt: skip
    names = [f"{number}/layer.tar" for number in range(2)]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["tiny:1"], "Layers": names}]).encode()
    files = [("config.json", config), *zip(names, layers, strict=True), ("manifest.json", manifest)]
    return _tar(*((name, data, {}) for name, data in files))


def fill(engine: Docker) -> None:
    """Have everything in it that a take-over must know of."""
    (engine.directory / "tiny.tar").write_bytes(image())
    engine.ask("load", "-i", str(engine.directory / "tiny.tar"))
    context = engine.directory / "context"
    context.mkdir()
    (context / "file").write_text("of the context\n")
    (context / "Dockerfile").write_text("FROM tiny:1\nCOPY file /file\nLABEL built=yes\nENV MORE=1\n")
    build = {**engine.environment, "DOCKER_BUILDKIT": "0"}
    argv = [engine.cli, "build", "-t", "app:1", "-t", "registry.example/team/app:stable", str(context)]
    subprocess.run(argv, env=build, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    options = (
        "--subnet",
        "10.231.7.0/24",
        "--ip-range",
        "10.231.7.128/25",
        "--label",
        "of=net",
        "--internal",
    )
    engine.ask("network", "create", *options, "-o", "com.docker.network.bridge.enable_icc=true", "back")
    engine.ask("volume", "create", "--label", "of=volume", "stored")
    files = engine.root / "volumes" / "stored" / "_data"
    (files / "sub").mkdir(mode=0o700)
    (files / "sub" / "file").write_text("kept in a volume\n")
    os.setxattr(files / "sub" / "file", "user.mark", b"x")
    os.chown(files / "sub" / "file", 1000, 1001)
    os.link(files / "sub" / "file", files / "again")
    os.symlink("/nowhere", files / "link")
    engine.ask("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory")
    web = ("-v", "stored:/stored", "-v", "/anonymous", "-v", "/etc:/host:ro", "-e", "MODE=web", "-m", "32m")
    net = ("--network", "back", "--network-alias", "www", "--ip", "10.231.7.9", "--restart", "unless-stopped")
    engine.ask("run", "-d", "--name", "web", *web, *net, "--cap-add", "NET_ADMIN", "app:1")
    engine.ask("run", "-d", "--name", "side", "--network", "container:web", "--restart", "always", "tiny:1")
    engine.ask(
        "run", "-d", "--name", "halted", "-p", "127.0.0.1:18081:80", "--restart", "unless-stopped", "tiny:1"
    )
    engine.ask("stop", "-t", "0", "halted")
    engine.ask(
        "create",
        "--name",
        "never",
        "--hostname",
        "chosen",
        "-l",
        "one=two",
        "--link",
        "halted:friend",
        "tiny:1",
    )
    engine.ask("create", "--name", "nameless", "app:1", "argument")
    engine.ask("commit", "nameless", "lost:1")
    engine.ask("create", "--name", "orphan", "lost:1")
    engine.ask("tag", "tiny:1", "lost:1")  # the image of the last container has no name any more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("name")
    parser.add_argument("--containerd", action="store_true", help="with the containerd store")
    wanted = parser.parse_args()
    engines.ENGINE_ROOT = wanted.root
    with tempfile.TemporaryDirectory(prefix="mkd-", dir="/var/tmp") as place:
        engine = Docker(Path(place) / "e", "/usr/local/bin/docker")
        engine.directory.mkdir()
        if wanted.containerd:
            engine.options = {"features": {"containerd-snapshotter": True}}
        engine.start()
        try:
            fill(engine)
        finally:
            engine.stop()
        wanted_parts = ("containers", "image", "network", "volumes", "overlay2", "containerd")
        there = [part for part in wanted_parts if (engine.root / part).is_dir()]
        skip = ["--exclude=*/io.containerd.snapshotter*/*", "--exclude=*-json.log"]
        argv = ["tar", "--xattrs", "--xattrs-include=*", "--sort=name", *skip, "-C", str(engine.root), "-czf"]
        subprocess.run([*argv, str(HERE / f"{wanted.name}.tar.gz"), *there], check=True)


if __name__ == "__main__":
    main()
