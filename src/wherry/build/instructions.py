"""The Dockerfile's nouns, all frozen: what :mod:`wherry.build.dockerfile` reads and the plan is made of.

Words stand as they were written: variables are expanded by :func:`wherry.build.expand.expand`, which knows
for each instruction what may hold any (docs.docker.com/reference/dockerfile, "Environment replacement").
Modes, sizes and durations are text until then for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Location:
    """Lines of the Dockerfile, the first is 1, both ends included."""

    first: int
    last: int


@dataclass(frozen=True)
class Heredoc:
    """``content`` is what stands between the lines, each with its newline. ``expand`` is False where the
    word was quoted; ``strip_tabs`` says that ``<<-`` was used, and that leading tabs are gone already."""

    name: str
    content: str
    expand: bool
    strip_tabs: bool = False
    descriptor: int = 0


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """``text`` is the instruction in one line as history shows it, its keyword in capitals."""

    location: Location
    text: str

    @property
    def keyword(self) -> str:
        return type(self).__name__.upper()


@dataclass(frozen=True, kw_only=True)
class Command(Instruction):
    """What RUN, CMD, ENTRYPOINT and HEALTHCHECK run: ``words`` in exec form, or with ``shell`` one line
    of shell, which SHELL's words go before."""

    words: tuple[str, ...]
    shell: bool


MountType = Literal["bind", "cache", "tmpfs", "secret", "ssh"]


@dataclass(frozen=True, kw_only=True)
class RunMount:
    """``--mount`` of RUN; fields that a type does not know were refused when it was read.

    ``source`` and ``target`` as written, ``""`` for none; ``mode`` octal text, ``size`` bytes as text.
    ``env`` is the variable of a secret, ``sharing`` shared, private or locked.
    """

    type: MountType
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
class Run(Command):
    """``network`` default, none or host; ``security`` sandbox or insecure. With ``heredocs`` and the shell
    form, ``words`` is the line that names them; a line of nothing but one name runs its content."""

    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cmd(Command):
    pass


@dataclass(frozen=True, kw_only=True)
class Entrypoint(Command):
    pass


@dataclass(frozen=True, kw_only=True)
class Healthcheck(Command):
    """``none`` is ``HEALTHCHECK NONE``. Durations as Go writes them, ``""`` where unset."""

    none: bool = False
    interval: str = ""
    timeout: str = ""
    start_period: str = ""
    start_interval: str = ""
    retries: str = ""


@dataclass(frozen=True, kw_only=True)
class Transfer(Instruction):
    """What COPY and ADD have in common. ``sources`` without here-documents, which are files of their own:
    each is made at ``destination`` under its name. ``exclude`` are patterns as of ``.dockerignore``."""

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
    """``unpack`` None is the default: local archives are unpacked, fetched ones are not."""

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
    """``base`` and ``platform`` may hold global arguments. ``name`` is in lower case, ``""`` for none;
    ``written_name`` is as it was written. ``comment`` is the description above FROM (``# name text``)."""

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
    ``check`` the ``check`` directive's. ``comments`` are what stands directly above an instruction, and
    ``empty_continuations`` the instructions with an empty line inside."""

    name: str
    source: str
    escape: str
    syntax: str
    check: str
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    comments: dict[Location, str] = field(default_factory=dict)
    empty_continuations: tuple[Location, ...] = ()
