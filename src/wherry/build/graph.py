"""What a build is made of: vertices, each one thing to do to the files of the one before it.

    image ── RUN ── COPY ── RUN        a stage is a chain: each vertex has the one below it as its ``parent``
                     │
    image ── RUN ────┘                 what it reads besides are its ``sources``

An operation is a value without variables in it. What only changes the configuration is no vertex: see
:mod:`wherry.build.configs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from wherry.build.instructions import Location
from wherry.model.digest import Digest
from wherry.model.oci import ImageConfig


@dataclass(frozen=True)
class BaseImage:
    """An image to start from, whose layers are unpacked as ``snapshot`` (``None``: it has none).

    ``digest`` is its manifest's, ``name`` as a person writes it.
    """

    name: str
    digest: Digest
    snapshot: str | None
    config: ImageConfig


@dataclass(frozen=True)
class ImageOp:
    image: BaseImage


@dataclass(frozen=True)
class ScratchOp:
    """No files at all."""


@dataclass(frozen=True)
class LocalOp:
    """A context that the client sent, by its name; ``""`` is the main one."""

    name: str


@dataclass(frozen=True)
class FetchOp:
    """Something from elsewhere. ``checksum`` is what it must be, ``""`` for whatever it is.

    ``filename`` and ``keep_git_dir`` are for HTTP and git alone.
    """

    kind: str
    url: str
    checksum: str = ""
    filename: str = ""
    keep_git_dir: bool = False


@dataclass(frozen=True)
class MakeDirectoryOp:
    path: str
    owner: str


@dataclass(frozen=True)
class CopyPart:
    """Sources within ``sources[source]`` of the vertex."""

    source: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class CopyOp:
    """COPY and ADD. ``files`` are (name, content) of here-documents; ``into``: the target is a directory.

    ``owners`` keeps the owners that sources have; ``unpack`` unpacks archives among them.
    """

    parts: tuple[CopyPart, ...]
    destination: str
    into: bool
    files: tuple[tuple[str, str], ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    unpack: bool = False
    owners: bool = False


@dataclass(frozen=True)
class MountOp:
    """A mount of RUN, resolved: ``source`` indexes the vertex's sources, -1 for none; ``size`` in bytes."""

    type: str
    target: str
    source: int = -1
    path: str = ""
    readonly: bool = False
    id: str = ""
    sharing: str = "shared"
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int = 0
    required: bool = False
    env: str | None = None


@dataclass(frozen=True)
class RunOp:
    """``secret_env`` are variables that neither history nor keys show (proxies). ``files`` are (path,
    content) of scripts, made executable and mounted for the command's time."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    mounts: tuple[MountOp, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    secret_env: tuple[str, ...] = ()


Operation = ImageOp | ScratchOp | LocalOp | FetchOp | MakeDirectoryOp | CopyOp | RunOp


@dataclass(frozen=True, eq=False)
class Vertex:
    """``platform`` is the one it runs on. ``text`` is the instruction in one line, ``stage`` its stage's
    name.

    ``fresh`` leaves the cache out (``--no-cache``).
    """

    op: Operation
    parent: Vertex | None = None
    sources: tuple[Vertex, ...] = ()
    text: str = ""
    stage: str = ""
    platform: str = ""
    location: Location | None = None
    fresh: bool = False

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        return (*((self.parent,) if self.parent is not None else ()), *self.sources)

    def chain(self) -> list[Vertex]:
        """From the base up to this one: the steps whose files lie on one another."""
        chain = [self]
        while (parent := chain[-1].parent) is not None:
            chain.append(parent)
        return chain[::-1]

    @property
    def is_source(self) -> bool:
        """It comes from elsewhere, and no step of the build makes it."""
        return isinstance(self.op, ImageOp | ScratchOp | LocalOp | FetchOp)


def walk(targets: Sequence[Vertex]) -> Iterator[Vertex]:
    """Every vertex that ``targets`` need, inputs first, each once."""
    seen: set[Vertex] = set()
    pending: list[tuple[Vertex, bool]] = [(target, False) for target in reversed(targets)]
    while pending:
        vertex, expanded = pending.pop()
        if expanded:
            yield vertex
        elif vertex not in seen:
            seen.add(vertex)
            pending.append((vertex, True))
            pending += [(one, False) for one in reversed(vertex.inputs)]


@dataclass(frozen=True)
class HistoryStep:
    """One line of an image's history; ``vertex`` makes its layer, ``None`` for what has none."""

    created_by: str
    vertex: Vertex | None


@dataclass(frozen=True, eq=False)
class StagePlan:
    """A stage, planned: the vertex with its files, its configuration, what its history says after the base's.

    ``steps`` pair every instruction as the legacy builder counts them with the vertex that stands for it.
    """

    index: int
    name: str
    vertex: Vertex
    config: ImageConfig
    history: tuple[HistoryStep, ...]
    steps: tuple[tuple[str, Vertex | None], ...]
    base: StagePlan | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything a build has to do. ``stages`` are those that are needed, in the Dockerfile's order."""

    target: StagePlan
    stages: tuple[StagePlan, ...]
    unused_args: tuple[str, ...] = field(default=())
