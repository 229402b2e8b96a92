"""Find a project's files, directory, name and environment, before any file is parsed."""

from __future__ import annotations

import os
import sys

from wherry.compose.places import ComposeError
from wherry.compose.remotes import is_remote, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
SIZE_MAX = 16 << 20
"""The maximum size of a Compose file in bytes."""
NOT_FOUND = "no configuration file provided: not found"


class WantedProject:
    """What flags and the environment say about a project; its files are found from this."""

    def __init__(
        self,
        *,
        files: Sequence[str] = (),
        name: str = "",
        directory: str = "",
        env_files: Sequence[str] = (),
        profiles: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        cwd: str = "",
        fetch: Callable[[str], str] = refuse,
    ) -> None:
        """:param fetch: the path of a file that lies elsewhere (``remotes``)."""
        self.files, self.name, self.directory = list(files), name, directory
        self.env_files, self.profiles = list(env_files), list(profiles)
        self.process = dict(os.environ if environment is None else environment)
        self.cwd = cwd or os.getcwd()
        self.fetch = fetch


class FoundProject:
    """The files (absolute; ``-`` is stdin), the directory that paths are relative to, and the environment."""

    def __init__(self, files: list[str], directory: str, environment: dict[str, str]) -> None:
        self.files, self.directory, self.environment = files, directory, environment
        self.env_files: list[str] = []
        self.warnings: list[str] = []
        self.fetched: frozenset[str] = frozenset()
        """Those of the files that lie elsewhere: paths in them are relative to their own directory."""


def find(wanted: WantedProject) -> FoundProject:
    """:raises ComposeError: no file was found, or an env file cannot be read."""
    files = _given(wanted, wanted.process)
    directory = _directory(wanted, files)
    environment = dict(wanted.process)
    env_files = _load_environment(wanted, directory, environment)
    warnings: list[str] = []
    if not files:
        files = _given(wanted, environment) or _default(wanted, directory, warnings)
        if not wanted.directory:
            directory = _directory(wanted, files)
            if not env_files:
                env_files = _load_environment(wanted, directory, environment)
    if not files:
        raise ComposeError(NOT_FOUND)
    fetched = {one: wanted.fetch(one) for one in files if is_remote(one)}
    found = FoundProject([fetched.get(one, one) for one in files], directory, environment)
    found.fetched = frozenset(fetched.values())
    found.env_files, found.warnings = env_files, warnings
    return found


def _given(wanted: WantedProject, environment: Mapping[str, str]) -> list[str]:
    files = wanted.files
    if not files and environment.get("COMPOSE_FILE"):
        files = environment["COMPOSE_FILE"].split(environment.get("COMPOSE_PATH_SEPARATOR") or ":")
    return [
        one if one == "-" or is_remote(one) else os.path.normpath(os.path.join(wanted.cwd, one))
        for one in files
        if one
    ]


def _directory(wanted: WantedProject, files: Sequence[str]) -> str:
    if wanted.directory:
        return os.path.normpath(os.path.join(wanted.cwd, wanted.directory))
    for one in files:
        if one != "-" and not is_remote(one):
            return os.path.dirname(one)
    return wanted.cwd


def _default(wanted: WantedProject, directory: str, warnings: list[str]) -> list[str]:
    """The Compose file of this directory or the nearest one above, and its override file."""
    place = directory if wanted.directory else wanted.cwd
    while True:
        here = [name for name in NAMES if os.path.isfile(os.path.join(place, name))]
        if here:
            if len(here) > 1:
                found = ", ".join(os.path.join(place, name) for name in here)
                warnings.append(f"Found multiple config files with supported names: {found}")
                warnings.append(f"Using {os.path.join(place, here[0])}")
            more = [name for name in OVERRIDES if os.path.isfile(os.path.join(place, name))]
            return [os.path.join(place, name) for name in [here[0], *more[:1]]]
        above = os.path.dirname(place)
        if above == place or wanted.directory:
            return []
        place = above


def _load_environment(wanted: WantedProject, directory: str, environment: dict[str, str]) -> list[str]:
    """Add the variables of ``.env`` that the process's environment does not have. :returns: the files that
    were read."""
    files = wanted.env_files or [one for one in wanted.process.get("COMPOSE_ENV_FILES", "").split(",") if one]
    given = bool(files)
    if not given:
        if wanted.process.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "true", "t"):
            return []
        files = [os.path.join(directory, ".env")]
    found: list[str] = []
    gathered: dict[str, str] = {}
    for file in files:
        path = os.path.normpath(os.path.join(wanted.cwd, file))
        if not os.path.exists(path):
            if given:
                raise ComposeError(f"couldn't find env file: {path}")
            continue
        if os.path.isdir(path):
            if given:
                raise ComposeError(f"{path} is a directory")
            continue
        from wherry.compose import dotenv

        values = dotenv.read(path, lambda name: wanted.process.get(name, gathered.get(name)))
        gathered.update((name, value) for name, value in values.items() if value is not None)
        found.append(path)
    for name, value in gathered.items():
        environment.setdefault(name, value)
    return found if given else []


def read(file: str) -> bytes:
    """A file's bytes; ``-`` is stdin. :raises ComposeError: it cannot be read."""
    from wherry.client.files import read_file

    if file == "-":
        return sys.stdin.buffer.read(SIZE_MAX + 1)
    try:
        return read_file(file, most=SIZE_MAX + 1)
    except IsADirectoryError:
        raise ComposeError(f"read {file}: is a directory") from None
    except OSError as e:
        raise ComposeError(f"open {file}: {(e.strerror or str(e)).lower()}") from None


def project_name(wanted: WantedProject, found: FoundProject, from_file: str) -> str:
    """``-p``, COMPOSE_PROJECT_NAME, ``name:``, else the directory's.

    :raises ComposeError: an invalid name was given.
    """
    given = wanted.name or found.environment.get("COMPOSE_PROJECT_NAME", "") or from_file
    if given:
        if given != normalised(given):
            raise ComposeError(
                f'invalid project name "{given}": must consist only of lowercase alphanumeric '
                "characters, hyphens, "
                "and underscores as well as start with a letter or number"
            )
        return given
    name = normalised(os.path.basename(found.directory))
    if not name:
        raise ComposeError("project name must not be empty")
    return name


def normalised(name: str) -> str:
    return "".join(c for c in name.lower() if c in _NAME).lstrip("_-")
