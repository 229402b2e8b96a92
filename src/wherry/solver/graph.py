"""The graph of a build. Each vertex is one operation on the files of the vertex below it.

    image ── RUN ── COPY ── RUN        a stage is a chain: each vertex has the one below it as its ``parent``
                     │
    image ── RUN ────┘                 other files that it reads are its ``sources``

An operation is a value in which all variables are already replaced. An instruction that only changes the
configuration is not a vertex: it becomes part of the stage's configuration (:class:`StagePlan`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from wherry.model.digest import Digest
from wherry.model.oci import ImageConfig


@dataclass(frozen=True)
class Location:
    """The lines of the Dockerfile that a vertex comes from, counted from 1, both ends included."""

    first: int
    last: int


@dataclass(frozen=True)
class BaseImage:
    """An image to start from. ``snapshot`` is its topmost unpacked layer; ``None`` if it has no layers.

    ``digest`` is its manifest's; ``name`` is its name as a user writes it.
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
    """Something to fetch. ``checksum`` is the expected digest; ``""`` accepts any content.

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
    """Sources within ``sources[source]`` of the vertex; ``unpack`` unpacks archives among them."""

    source: int
    paths: tuple[str, ...]
    unpack: bool = False


@dataclass(frozen=True)
class CopyOp:
    """COPY and ADD. ``files`` are (name, content) of here-documents; ``into``: the target is a directory.

    ``owners`` keeps the owners that sources have.
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
    owners: bool = False


@dataclass(frozen=True)
class MountOp:
    """A resolved mount of RUN. ``source`` is an index into the vertex's sources, -1 without a source;
    ``size`` in bytes."""

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
    """``secret_env`` are variables (proxies) that appear neither in the history nor in keys. ``files`` are
    (path, content) of scripts, made executable and mounted for the command's time."""

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
    """``platform`` is the platform it runs on, ``text`` the instruction in one line, ``stage`` the name of
    its stage.

    ``fresh``: do not use the cache (``--no-cache``).
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
        """The steps whose files are stacked on each other, from the base up to this one."""
        chain = [self]
        while (parent := chain[-1].parent) is not None:
            chain.append(parent)
        return chain[::-1]

    @property
    def is_source(self) -> bool:
        """Whether it is an input: no step of the build makes it."""
        return isinstance(self.op, ImageOp | ScratchOp | LocalOp | FetchOp)


def walk(targets: Sequence[Vertex]) -> Iterator[Vertex]:
    """Every vertex that ``targets`` need, once each, inputs before the vertices that use them."""
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
    """One line of an image's history; ``vertex`` makes its layer; ``None`` if the line has no layer.
    ``legacy`` is the line in the legacy builder's words; an empty line is left out."""

    created_by: str
    vertex: Vertex | None
    legacy: str = ""


@dataclass(frozen=True, eq=False)
class StagePlan:
    """A planned stage: the vertex with its files, its configuration, and the history that it adds to its
    base's.

    ``steps`` pair every instruction as the legacy builder counts them with the vertex that stands for it.
    ``args`` are the arguments that stages based on it inherit; ``over`` are those that take precedence over
    variables of the same name.
    """

    index: int
    name: str
    vertex: Vertex
    config: ImageConfig
    history: tuple[HistoryStep, ...]
    steps: tuple[tuple[str, Vertex | None], ...]
    base: StagePlan | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    over: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything a build has to do. ``stages`` are the needed ones, in the Dockerfile's order."""

    target: StagePlan
    stages: tuple[StagePlan, ...]
    unused_args: tuple[str, ...] = field(default=())
