"""The instructions as frozen values: :mod:`wherry.dockerfile.parse` makes them, the plan is made from them.

Words are kept as written: :func:`wherry.dockerfile.expand.expand` replaces variables, and knows which words
of each instruction may contain them (docs.docker.com/reference/dockerfile, "Environment replacement"). Modes,
sizes and durations are text until then for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wherry.solver.graph import Location


@dataclass(frozen=True)
class Heredoc:
    """``content`` is the text between the marks, with all newlines. ``expand`` is False if the word was
    quoted. ``strip_tabs``: ``<<-`` was used; the leading tabs are removed already."""

    name: str
    content: str
    expand: bool
    strip_tabs: bool = False
    descriptor: int = 0


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """``text`` is the instruction in one line as the history shows it, with its keyword in capitals."""

    location: Location
    text: str

    @property
    def keyword(self) -> str:
        return type(self).__name__.upper()


@dataclass(frozen=True, kw_only=True)
class CommandLine(Instruction):
    """The command of RUN, CMD, ENTRYPOINT and HEALTHCHECK: ``words`` in exec form, or with ``shell`` one line
    for the shell, which follows SHELL's words."""

    words: tuple[str, ...]
    shell: bool


MountType = Literal["bind", "cache", "tmpfs", "secret", "ssh"]


@dataclass(frozen=True, kw_only=True)
class RunMount:
    """``--mount`` of RUN; fields that the type does not have were refused when it was read.

    ``source`` and ``target`` as written, ``""`` for none; ``mode`` octal text, ``size`` bytes as text.
    ``env`` is the variable of a secret, ``sharing`` shared, private or locked. Every value except ``from``
    may contain variables, even the type. Then ``open`` is set, the other fields are provisional, and the
    mount is made again from ``fields`` when the variables are known.
    """

    type: MountType
    fields: tuple[tuple[str, str | None], ...] = ()
    open: bool = False
    target: str = ""
    source: str = ""
    from_: str = ""
    readonly: bool = False
    id: str = ""
    sharing: str = "shared"
    mode: str = ""
    uid: str = ""
    gid: str = ""
    size: str = ""
    required: bool = False
    env: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run(CommandLine):
    """``network`` default, none or host; ``security`` sandbox or insecure. With ``heredocs`` and the shell
    form, ``words`` is the line that names them; if the line is only the name of one here-document, its
    content is run."""

    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cmd(CommandLine):
    pass


@dataclass(frozen=True, kw_only=True)
class Entrypoint(CommandLine):
    pass


@dataclass(frozen=True, kw_only=True)
class Healthcheck(CommandLine):
    """``none`` is ``HEALTHCHECK NONE``. Durations in Go's format, ``""`` if not set."""

    none: bool = False
    interval: str = ""
    timeout: str = ""
    start_period: str = ""
    start_interval: str = ""
    retries: str = ""


@dataclass(frozen=True, kw_only=True)
class Transfer(Instruction):
    """The common fields of COPY and ADD. ``sources`` does not include here-documents: each of those becomes a
    file with its name at ``destination``. ``exclude`` are patterns as in ``.dockerignore``."""

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Copy(Transfer):
    """``from_`` is a stage, its number, an image or a named context, ``""`` the build's own context."""

    from_: str = ""


@dataclass(frozen=True, kw_only=True)
class Add(Transfer):
    """``unpack`` None is the default: local archives are unpacked, downloaded ones are not."""

    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Env(Instruction):
    """Pairs in their order. ``legacy`` is ``ENV key value``."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True, kw_only=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True, kw_only=True)
class Arg(Instruction):
    """A default of None means there is none."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, kw_only=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, kw_only=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Stopsignal(Instruction):
    signal: str


@dataclass(frozen=True, kw_only=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Maintainer(Instruction):
    name: str


@dataclass(frozen=True, kw_only=True)
class Onbuild(Instruction):
    """``trigger`` is the instruction's source, as it goes into the image's configuration."""

    trigger: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """``base`` and ``platform`` may contain global arguments. ``name`` is in lower case, ``""`` without a
    name; ``written_name`` is the original. ``comment`` is the description above FROM (``# name text``)."""

    index: int
    name: str
    written_name: str
    base: str
    platform: str
    location: Location
    text: str
    instructions: tuple[Instruction, ...]
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """``global_args`` stand before the first FROM. ``syntax`` is the directive's value, ``""`` for none;
    ``check`` the ``check`` directive's. ``comments`` are those directly above an instruction,
    ``descriptions`` those anywhere between it and the one before, and ``empty_continuations`` the
    instructions with an empty line inside."""

    name: str
    source: str
    escape: str
    syntax: str
    check: str
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    comments: dict[Location, str] = field(default_factory=dict)
    descriptions: dict[Location, str] = field(default_factory=dict)
    empty_continuations: tuple[Location, ...] = ()
