"""The arrows of docs/architecture.md, held against the imports of every module."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "wherry"
TESTS = Path(__file__).parent

# Which rooms a room may import besides itself. ``errors`` and the package's own version are everyone's.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "memory": set(),
    "mishaps": set(),
    "threads": set(),
    "model": set(),
    "linux": {"model"},
    "state": {"model"},
    "storage": {"linux", "state", "model"},
    "images": {"storage", "linux", "state", "model"},
    "registry": {"storage", "linux", "state", "model"},
    "runtime": {"linux", "model"},
    "logs": {"linux", "model"},
    "network": {"linux", "state", "model"},
    "volumes": {"linux", "state", "model"},
    "solver": {"model"},
    "dockerfile": {"solver", "model"},
    "engine": {
        "images", "storage", "dockerfile", "solver", "registry", "network", "volumes", "runtime", "logs",
        "state", "linux", "model",
    },
    "wire": {"model"},
    "rpc": set(),
    "api": {"engine", "wire", "model"},
    "buildkit": {"engine", "rpc", "wire", "model"},
    "metrics": {"engine", "state", "model"},
    "tracing": {"engine"},
    "client": {"wire", "model"},
    "compose": {"client", "wire", "model"},
    "migrate": {"client", "model"},
    "cli": {"compose", "migrate", "client", "wire", "model"},
    "doctor": {"network", "runtime", "state", "linux", "model"},
    "daemon": {
        "doctor", "api", "buildkit", "metrics", "tracing",
        "rpc", "engine", "wire", "images", "storage", "dockerfile", "solver",
        "registry",
        "network",
        "volumes", "runtime", "logs", "state", "linux", "model",
    },
    # Rooms that are still to come: their first file is held by these.
    "cri": {"engine", "rpc", "model"},
    "hub": {"registry", "client", "model"},
}  # fmt: skip

EVERYONES = {"errors", "memory", "mishaps", "threads"}

# The rooms within the engine, from the top: what one may import besides its own files and the ground.
# ``None`` is the engine's root: its ground, and ``engine.py``, which joins the rooms.
WITHIN_ENGINE: dict[str, set[str]] = {
    "builds": {"containers", "images", "volumes", "logs", "mounts"},
    "upkeep": {"containers", "images", "volumes", "logs", "mounts"},
    "processes": {"containers", "images", "volumes", "logs", "mounts"},
    "networks": {"containers", "images", "volumes", "logs", "mounts"},
    "containers": {"images", "volumes", "logs", "mounts"},
    "images": set(),
    "volumes": set(),
    "logs": set(),
    "mounts": set(),
}
GROUND = {"attributes", "events", "ground", "live", "settings"}
JOINS = "engine"

# The rooms within the hub: each may import those named here besides its own.
WITHIN_HUB: dict[str, set[str]] = {
    "core": set(),
    "store": {"core"},
    "auth": {"core", "store", "remote"},
    "remote": {"core", "store"},
    "worker": {"core", "store", "remote"},
    "registry": {"core", "store", "auth", "remote"},
    "service": {"core", "store", "auth"},
    "api": {"core", "store", "service", "registry"},
    "web": {"core", "store", "auth", "service", "registry"},
    "cli": {"core", "store", "auth", "remote", "worker", "registry", "service", "api", "web"},
}

# Files over 500 lines and functions over 60, each with the reason why it stays whole.
LONG: dict[str, str] = {
    "api/about.py:document": "one line a field of the API's answer",
    "daemon/config.py:_config": "one line a key of the configuration",
}

# Modules of the outside world that only one room may touch.
ONLY_IN: dict[str, set[str]] = {
    "ctypes": {"linux", "memory"},
    "subprocess": {"linux", "cli", "client", "doctor"},
    "sqlite3": {"state", "hub"},
    "psycopg": {"hub"},
    "aiobotocore": {"hub"},
    "jwt": {"hub"},
    "argon2": {"hub"},
    "django": {"hub"},
    "allauth": {"hub"},
    "markdown_it": {"hub"},
    "nh3": {"hub"},
    "aiohttp": {"api", "registry", "hub", "metrics", "tracing"},
    "prometheus_client": {"metrics"},
    "h2": {"rpc"},
    "hyperframe": {"rpc"},
    "google": {"rpc", "buildkit"},
}


# What only one module may call, as it does so safely.
CALLED_ONLY_IN: dict[str, str] = {
    r"msgspec\.(json|msgpack)\.decode\([^()]*(\([^()]*\)[^()]*)*type=": "model/typed.py",
    r"msgspec\.convert\(": "model/typed.py",
    r"msgspec\.(json|msgpack)\.Decoder\(": "model/typed.py",
    r"ThreadPoolExecutor|asyncio\.to_thread|run_in_executor": "threads.py",
}


# Where an expression for ``re`` is put together, each with the reason why nothing of it comes from outside.
PUT_TOGETHER: dict[str, str] = {
    "api/router.py": "of the routes in the source",
    "hub/api/routes.py": "of the routes in the source",
}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Absolute names of everything a module imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "wherry" else {module}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_arrows_go_down_only(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in ALLOWED, f"{path}: {room} is not a room of the house"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "wherry" and rest:
            target = rest.split(".")[0]
            fine = {room, *EVERYONES, "__version__"} | ALLOWED[room]
            assert target in fine, f"{path}: {room} must not import {target} ({name})"
        owners = ONLY_IN.get(top) or next((ONLY_IN[k] for k in ONLY_IN if name.startswith(f"{k}.")), None)
        assert owners is None or room in owners, f"{path}: {top} belongs to {sorted(owners or ())}"


def test_what_runs_beside_hostile_bytes_is_apart() -> None:
    """The daemon imports none of it, and it imports no more of the storage than what both sides know."""
    child = "wherry.storage.confined.child"
    shared = {f"wherry.storage.{name}" for name in ("layerformat", "selection", "streams")}
    for path in modules():
        names = {name for name in imports(path) if name.startswith("wherry.storage")}
        if path.is_relative_to(SOURCE / "storage" / "confined" / "child"):
            others = {name for name in names - shared if not f"{name}.".startswith(f"{child}.")}
            assert not others, f"{path} runs in a child, and must not import {others}"
        else:
            inside = {name for name in names if f"{name}.".startswith(f"{child}.")}
            assert not inside, f"{path} runs in the daemon, and must not import {inside}"


def file_imports() -> dict[str, set[str]]:
    """Which of our files each of them imports, by dotted names: inside functions and for types as well."""
    files = {".".join(p.relative_to(SOURCE.parent).with_suffix("").parts): p for p in modules()}
    named = {name.removesuffix(".__init__"): path for name, path in files.items()}
    found: dict[str, set[str]] = {}
    for name, path in named.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= {one if one in named else str(node.module) for one in inside}
        found[name] = imported & set(named) - {name}
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of more than one whose members all lead to each other (strongly connected, after Tarjan)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    waiting: list[str] = []
    found: list[list[str]] = []

    def visit(one: str) -> None:
        number[one] = lowest[one] = len(number)
        waiting.append(one)
        for other in sorted(graph[one]):
            if other not in number:
                visit(other)
            if other in waiting:
                lowest[one] = min(lowest[one], lowest[other])
        if lowest[one] == number[one]:
            at = waiting.index(one)
            group, waiting[at:] = sorted(waiting[at:]), []
            if len(group) > 1:
                found.append(group)

    for one in sorted(graph):
        if one not in number:
            visit(one)
    return found


def test_circles_are_seen() -> None:
    graph = {
        "a": {"b"},
        "b": {"c"},
        "c": {"a", "d"},
        "d": {"e"},
        "e": {"d"},
        "f": {"a", "g"},
        "g": set[str](),
    }
    assert sorted(circles(graph)) == [["a", "b", "c"], ["d", "e"]]


def test_no_circles_of_files() -> None:
    """Two files that need each other have something in common that wants a place below both."""
    found = circles(file_imports())
    assert not found, found


def test_every_room_has_a_rule() -> None:
    rooms = {p.name.removesuffix(".py") for p in SOURCE.iterdir() if p.name != "py.typed"}
    assert rooms - {"__init__", "__pycache__"} <= set(ALLOWED)


@pytest.mark.parametrize("path", sorted((SOURCE / "engine").rglob("*.py")), ids=lambda p: p.name)
def test_arrows_within_the_engine(path: Path) -> None:
    """builds, upkeep, processes, networks -> containers -> images, volumes, logs, mounts -> the ground."""
    room = path.relative_to(SOURCE / "engine").parts[0].removesuffix(".py")
    if room in ("__init__", JOINS):
        return
    fine = GROUND if room in GROUND else {room} | GROUND | WITHIN_ENGINE[room]
    for name in imports(path):
        target = name.removeprefix("wherry.engine.").split(".")[0]
        if name.startswith("wherry.engine."):
            assert target in fine, f"{path}: engine/{room} must not import engine/{target} ({name})"


@pytest.mark.parametrize("path", sorted((SOURCE / "hub").rglob("*.py")), ids=lambda p: p.name)
def test_arrows_within_the_hub(path: Path) -> None:
    """core -> store -> auth, worker -> registry -> cli: each knows those before it alone."""
    room = path.relative_to(SOURCE / "hub").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for name in imports(path):
        target = name.removeprefix("wherry.hub.").split(".")[0]
        if name.startswith("wherry.hub."):
            fine = {room} | WITHIN_HUB[room]
            assert target in fine, f"{path}: hub/{room} must not import hub/{target} ({name})"


def outgrown() -> Iterator[tuple[str, str]]:
    """Files and functions that are longer than a reader keeps in mind, with their lengths."""
    for path in modules():
        text = path.read_text()
        where = str(path.relative_to(SOURCE))
        if (lines := len(text.splitlines())) > 500:
            yield where, f"{lines} lines"
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (lines := (node.end_lineno or 0) - node.lineno + 1) > 60:
                yield f"{where}:{node.name}", f"{lines} lines"


def test_what_outgrows_its_purpose_has_a_reason() -> None:
    """A file of over 500 lines or a function of over 60 wants to be two, or says in ``LONG`` why not."""
    found = dict(outgrown())
    assert set(found) == set(LONG), f"too long: {found}; reasons given for: {sorted(LONG)}"


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by their names alone, so one of the two would not be run."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize("call", CALLED_ONLY_IN)
def test_calls_that_belong_to_one_module(call: str) -> None:
    callers = {str(p.relative_to(SOURCE)) for p in modules() if re.search(call, p.read_text())}
    assert callers == {CALLED_ONLY_IN[call]}


def expressions() -> Iterator[tuple[str, ast.expr]]:
    """The first argument of every call of a function of ``re`` that takes an expression."""
    takes = {"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in takes
                )
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
            ):
                yield str(path.relative_to(SOURCE)), node.args[0]
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("re", "fnmatch"), f"{path}: say re.match, so that it is seen here"


def is_of_the_source(expression: ast.expr) -> bool:
    """A literal, or one put together of the module's own constants (``_LIKE_THIS``)."""
    if isinstance(expression, ast.JoinedStr):
        return all(is_of_the_source(part) for part in expression.values)
    if isinstance(expression, ast.FormattedValue):
        return is_of_the_source(expression.value)
    if isinstance(expression, ast.Name):
        return expression.id.isupper()
    return isinstance(expression, ast.Constant)


def test_no_expression_comes_from_outside() -> None:
    """Python's ``re`` can be kept busy for years by what a client sends; RE2 cannot."""
    found = {where for where, expression in expressions() if not is_of_the_source(expression)}
    assert found == set(PUT_TOGETHER), "use wherry.model.patterns for what comes from outside"
    unsafe = {"fnmatch", "glob"}
    users = {f"{p.relative_to(SOURCE)}: {n}" for p in modules() for n in imports(p) if n in unsafe}
    assert not users, "fnmatch makes expressions for re"


def test_nothing_selects() -> None:
    """select(2) knows no descriptor beyond 1023; see ``linux/descriptors.py``."""
    callers = [p for p in modules() if re.search(r"\bselect\.select\(|SelectSelector", p.read_text())]
    assert not callers


# Where a protocol or a language gives the names, so that another class may have one of them.
NAMED_BY_OTHERS: dict[str, str] = {
    "buildkit/proto/": "the services' names in BuildKit's definitions",
    "dockerfile/instructions.py": "an instruction's keyword is its class's name",
}


def homonyms(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Public classes of one name that several files define, by name. ``sources``: texts by their paths."""
    found: dict[str, list[str]] = {}
    for where, text in sources.items():
        if where.startswith(tuple(NAMED_BY_OTHERS)):
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(where)
    return {name: files for name, files in found.items() if len(files) > 1}


def test_homonyms_are_seen() -> None:
    one, two = "class A: ...\nclass _B: ...\n", "class _B: ...\nclass C:\n    class A: ...\n"
    assert not homonyms({"one.py": one, "two.py": two})
    assert homonyms({"one.py": one, "two.py": "class A: ..."}) == {"A": ["one.py", "two.py"]}
    assert not homonyms({"one.py": one, "buildkit/proto/a_rpc.py": "class A: ..."})


def test_one_name_one_class() -> None:
    """A reader who meets ``Settings`` knows which; the search for a name finds one definition."""
    found = homonyms({str(path.relative_to(SOURCE)): path.read_text() for path in modules()})
    assert not found, found


# Classes whose attributes other files set, each with the reason.
SET_FROM_OUTSIDE: dict[str, str] = {
    "compose/places.py": "Map and Seq are the nodes of a file: what is made of one keeps its tags",
    "engine/live.py": "the state of one container, which the engine's rooms share on the loop's thread",
    "rpc/streams.py": "a connection and its streams are one state machine, in two files",
}


def assigned(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every attribute that something is assigned to."""
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        for target in targets:
            for one in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
                if isinstance(one, ast.Attribute):
                    yield one


def set_from_outside(sources: Mapping[str, str]) -> list[tuple[str, str]]:
    """Assignments to attributes that only classes of other files have: where, and the file of one such class.

    Types are not known here, so an attribute is told by its name: one that a class of the same file has, or
    that stands in the body of any class (a dataclass's field), is not looked at.
    """
    trees = {where: ast.parse(text) for where, text in sources.items()}
    owners: dict[str, set[str]] = {}
    fields: set[str] = set()
    for where, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                fields |= {
                    one.target.id
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                }
                for one in assigned(node):
                    if isinstance(one.value, ast.Name) and one.value.id == "self":
                        owners.setdefault(one.attr, set()).add(where)
    return [
        (f"{where}:{one.lineno}: {ast.unparse(one)}", min(owners[one.attr]))
        for where, tree in trees.items()
        for one in assigned(tree)
        if not (isinstance(one.value, ast.Name) and one.value.id in ("self", "cls"))
        and one.attr in owners
        and one.attr not in fields
        and where not in owners[one.attr]
    ]


def test_what_is_set_from_outside_is_seen() -> None:
    one = "class A:\n    def __init__(self):\n        self.here = 1\n"
    two = "class B:\n    field: int\n    def f(self, a):\n        a.here, a.field = 2, 3\n"
    assert set_from_outside({"one.py": one, "two.py": two}) == [("two.py:4: a.here", "one.py")]
    assert not set_from_outside({"one.py": one + "def f(a):\n    a.here = 2\n"})


def test_nothing_is_set_from_outside_after_construction() -> None:
    """What an object needs, its constructor gets; what changes it is a method of its class."""
    sources = {str(path.relative_to(SOURCE)): path.read_text() for path in modules()}
    found = set_from_outside(sources)
    assert not [where for where, owner in found if owner not in SET_FROM_OUTSIDE]
    assert {owner for _, owner in found} == set(SET_FROM_OUTSIDE), "an exception that nothing needs"


# Functions that take ten or more parameters, each with the reason.
MANY_PARAMETERS: dict[str, str] = {
    "cli/command.py:__init__": "a command's declaration: one keyword a property",
    "compose/buildspec.py:__init__": "a value: one keyword a flag",
    "compose/oneoff.py:__init__": "a value: one keyword a flag",
    "hub/store/accounts.py:add_token": "one keyword a column",
    "wire/builds.py:cache_record": "one keyword a member of the API's answer",
    "wire/networks.py:network": "one keyword a member of the API's answer",
}


def many_parameters() -> Iterator[str]:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
                if len([name for name in names if name not in ("self", "cls")]) >= 10:
                    yield f"{path.relative_to(SOURCE)}:{node.name}"


def test_parameters_that_travel_together_have_a_name() -> None:
    """Ten collaborators or more are bundles (settings, rows, events) that want a class."""
    assert set(many_parameters()) == set(MANY_PARAMETERS)
