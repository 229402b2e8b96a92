"""``python:<minor>-slim`` and ``node:<major>-slim``: a language on ``debian:<suite>-slim``, one more layer.

Debian's releases determine which versions there are. The layer contains the distribution's packages, and the
things that Dockerfiles expect besides: ``python`` and a ``pip`` without restrictions, ``node`` as a user.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wherry.errors import InvalidArgument
from wherry.images import commit, debian
from wherry.images.commit import CommitStep
from wherry.images.debiansteps import Stage
from wherry.images.store import ImageStore
from wherry.model.images import Image
from wherry.model.mount import Mount
from wherry.model.oci import ImageRunConfig
from wherry.model.reference import Reference
from wherry.storage import diff
from wherry.storage.snapshots import UNPACK_PREFIX, Snapshotter

_NANO = 1_000_000_000
_PATH = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Language:
    """``suites``: the release that contains each version. ``script`` is run in the system by ``sh -e``."""

    suites: Mapping[str, str]
    packages: Sequence[str]
    script: str
    version: str
    """The environment variable for the version, and the package that contains it (``{}``:
    the requested version)."""
    version_of: str
    env: Sequence[str]
    cmd: Sequence[str]
    entrypoint: Sequence[str] = ()


_ENTRYPOINT = """\
#!/bin/sh
# A flag, or a file that is no program, is for node.
set -e
if [ "${1#-}" != "$1" ] || [ -z "$(command -v "$1")" ] || { [ -f "$1" ] && [ ! -x "$1" ]; }; then
    set -- node "$@"
fi
exec "$@"
"""

LANGUAGES: Mapping[str, Language] = {
    "python": Language(
        suites={"3.9": "bullseye", "3.11": "bookworm", "3.13": "trixie"},
        packages=(
            *("ca-certificates", "netbase", "python-is-python3", "python3", "python3-pip", "python3-venv"),
            "tzdata",
        ),
        # The image itself is the environment: there are no other packages that pip could damage.
        script="rm -f /usr/lib/python3*/EXTERNALLY-MANAGED; [ -e /usr/bin/pip ] || ln -s pip3 /usr/bin/pip",
        version="PYTHON_VERSION",
        version_of="python{}-minimal",
        env=("LANG=C.UTF-8",),
        cmd=("python3",),
    ),
    "node": Language(
        suites={"12": "bullseye", "18": "bookworm", "20": "trixie"},
        packages=("ca-certificates", "nodejs", "npm"),
        script=(
            "groupadd --gid 1000 node; useradd --uid 1000 --gid node --shell /bin/bash --create-home node\n"
            f"cat >/usr/local/bin/docker-entrypoint.sh <<'END'\n{_ENTRYPOINT}END\n"
            "chmod 755 /usr/local/bin/docker-entrypoint.sh"
        ),
        version="NODE_VERSION",
        version_of="nodejs",
        env=(),
        cmd=("node",),
        entrypoint=("docker-entrypoint.sh",),
    ),
}


def suite_of(name: str, tag: str | None) -> tuple[str, str]:
    """The version that a tag requests, and the release that contains it.

    :raises InvalidArgument: no release contains it, or the tag does not have the form ``<version>-slim``.
    """
    language = LANGUAGES[name]
    version, slim, _ = (tag or "").partition("-slim")
    if slim and tag == f"{version}-slim" and version in language.suites:
        return version, language.suites[version]
    there = ", ".join(f"{name}:{version}-slim" for version in language.suites)
    raise InvalidArgument(f"cannot bootstrap {name}{':' + tag if tag else ''}: there is {there}")


def add(
    store: ImageStore,
    base: Image,
    ref: Reference,
    *,
    created: str,
    epoch: int,
    mirror: str | None,
    stage: Stage,
) -> Image:
    """Make ``ref``, a language's image, on top of its base image.

    :param epoch: seconds; later times in the layer are set to it. :param stage: called with the current step.
    :raises Unavailable: the packages cannot be fetched, or the disk is full.
    """
    name = ref.familiar_name
    language = LANGUAGES[name]
    version, suite = suite_of(name, ref.tag)
    snapshotter = store.layers.snapshotter
    key = UNPACK_PREFIX + secrets.token_hex(12)
    with store.leases.hold("bootstrap") as lease:
        (mount,) = snapshotter.prepare(key, store.ensure_unpacked(base))
        try:
            _install(language, suite, mount, mirror=mirror, epoch=epoch, stage=stage)
            stage("storing")
            exact = _installed(snapshotter, key, language.version_of.format(version))
            layer = commit.store_layer(
                store,
                lambda out: diff.write_layer(
                    snapshotter,
                    key,
                    out,
                    skip=lambda change: debian.is_of_installing(change.path),
                    newest=epoch * _NANO,
                ),
                lease,
            )
        finally:
            snapshotter.remove(key)
        return commit.assemble(
            store, base, layer, _step(language, exact, created), ref, lease, why="bootstrap"
        )


def _install(
    language: Language, suite: str, mount: Mount, *, mirror: str | None, epoch: int, stage: Stage
) -> None:
    packages, script = language.packages, language.script
    debian.install(suite, packages, mount, script=script, mirror=mirror, epoch=epoch, stage=stage)


def _installed(snapshotter: Snapshotter, key: str, package: str) -> str:
    """The upstream version of a package, from dpkg's status file (deb-version(7))."""
    files, _ = snapshotter.directories(key)
    text = (files / "var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")
    stanza = text.partition(f"Package: {package}\n")[2].partition("\n\n")[0]
    version = next((line[9:] for line in stanza.splitlines() if line.startswith("Version: ")), "")
    upstream = version.rpartition(":")[2].partition("-")[0]
    return upstream.partition("+")[0].partition("~")[0]


def _step(language: Language, version: str, created: str) -> CommitStep:
    env = [_PATH, *language.env, f"{language.version}={version}"]
    return CommitStep(
        created=created,
        created_by=f"apt-get install --no-install-recommends {' '.join(language.packages)}",
        config=ImageRunConfig(env=env, cmd=list(language.cmd), entrypoint=list(language.entrypoint) or None),
        then=[
            *(f"ENV {text}" for text in env),
            *([f"ENTRYPOINT {_list(language.entrypoint)}"] if language.entrypoint else []),
            f"CMD {_list(language.cmd)}",
        ],
    )


def _list(words: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
