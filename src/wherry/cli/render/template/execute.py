"""Execute a parsed template on data, with Go's rules for truth, missing keys and printing."""

from __future__ import annotations

from itertools import pairwise

from wherry.cli.render.template import functions
from wherry.cli.render.template.functions import FunctionError
from wherry.cli.render.template.parse import (
    Action,
    Branch,
    Call,
    Dot,
    Jump,
    Literal,
    Parsed,
    Path,
    Pipeline,
    TemplateNode,
    Text,
)
from wherry.cli.render.template.structures import Struct, empty
from wherry.cli.render.template.values import MISSING, go_text, is_true, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, NoReturn

OPEN_OBJECTS = frozenset(
    "Labels Sysctls Options Networks Ports PortBindings ExposedPorts Volumes Tmpfs Annotations DriverOpts "
    "Config StorageOpt Data Containers Status LogOpts Attributes Runtimes Actor GraphDriver".split()
)
"""Members with arbitrary keys: a missing key prints ``<no value>``, also in strict mode. In Docker's client
any other object is a structure, in which an unknown member is an error."""

OPTIONAL = frozenset(
    "Health Healthcheck SizeRw SizeRootFs StopTimeout StopSignal Shell OnBuild Init Runtime "
    "Mounts MacAddress "
    "ImageManifestDescriptor Descriptor Manifests Identity Entrypoint Cmd ExecIDs Storage Options Status "
    "UsageData ConfigFrom ClusterVolume Labels Annotations Tmpfs Sysctls StorageOpt Volumes ExposedPorts "
    "Platform Variant OsVersion Author Comment RepoTags RepoDigests Parent Created CreatedAt Metadata".split()
)
"""Members that a daemon may omit but Docker's client knows: they are empty if they are absent."""


LISTS = frozenset(
    "Binds CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links SecurityOpt VolumesFrom Ulimits "
    "Devices DeviceRequests DeviceCgroupRules BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps "
    "BlkioDeviceReadIOps BlkioDeviceWriteIOps MaskedPaths ReadonlyPaths Env Cmd Entrypoint OnBuild Shell "
    "Args "
    "ExecIDs Mounts Aliases RepoTags RepoDigests Layers Manifests".split()
)
"""Members that are lists; ``null`` in one of them prints as ``[]``."""


class NilList(list):  # type: ignore[type-arg]
    """A missing list: empty, and ``null`` in JSON."""

    is_nil = True


class NilMap(dict):  # type: ignore[type-arg]
    """A missing object: empty, and ``null`` in JSON."""

    is_nil = True


NIL_LIST, NIL_MAP = NilList(), NilMap()


class TemplateFailure(ValueError):
    """The template cannot be carried out on this data; the message is Go's."""


class TemplateRecord:
    """A value with named fields and methods, as the rows of tables are.

    Subclasses define ``FIELDS``, in any order, and ``value(name, args)``.
    """

    TYPE = "formatter.Context"
    FIELDS: tuple[str, ...] = ()

    def value(self, name: str, args: Sequence[Any]) -> Any:
        """:raises KeyError: no such field."""
        raise KeyError(name)

    def as_object(self) -> dict[str, Any]:
        """The output of ``{{json .}}``: every field by name, sorted."""
        return {name: self.value(name, ()) for name in sorted(self.FIELDS)}


class _Jump(Exception):
    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Template:
    """A compiled template; :meth:`render` may be called any number of times."""

    __slots__ = ("_strict", "parsed")

    def __init__(self, parsed: Parsed, *, strict: bool = False) -> None:
        self.parsed, self._strict = parsed, strict

    def render(self, data: Any, *, header: bool = False) -> str:
        """``header``: render a table's first line, in which functions that change text have no effect.

        :raises TemplateFailure: the template uses a member that the data does not have.
        """
        run = _Run(self.parsed.text, data, self._strict, header)
        run.nodes(self.parsed.nodes, data)
        return "".join(run.out)


def _json_name(name: str, members: dict[str, Any]) -> str:
    """The JSON name of a Go field: ``ID`` is ``Id``, ``APIVersion`` is ``ApiVersion``, ``DNS`` is ``Dns``."""
    if any(a.isupper() and b.isupper() for a, b in pairwise(name)):
        lower = name.lower()
        return next((key for key in members if key.lower() == lower), name)
    return name


class _Run:
    def __init__(self, text: str, data: Any, strict: bool, header: bool) -> None:
        self.text, self.strict, self.header = text, strict, header
        self.out: list[str] = []
        self.variables: list[tuple[str, Any]] = [("$", data)]

    def fail(self, node: TemplateNode, reason: str) -> NoReturn:
        line = self.text.count("\n", 0, node.position) + 1
        column = node.position - (self.text.rfind("\n", 0, node.position) + 1)
        shown = node.source if len(node.source) <= 20 or isinstance(node, Path) else node.source[:20] + "..."
        raise TemplateFailure(f'template: :{line}:{column}: executing "" at <{shown}>: {reason}')

    def nodes(self, nodes: Sequence[TemplateNode], dot: Any) -> None:
        for node in nodes:
            if isinstance(node, Text):
                self.out.append(node.source)
            elif isinstance(node, Action):
                value = self.pipeline(node.pipeline, dot)
                if not node.pipeline.names:
                    self.out.append(go_text(value, nested=self.strict))
            elif isinstance(node, Branch):
                self.branch(node, dot)
            elif isinstance(node, Jump):
                raise _Jump(node.source)

    def branch(self, node: Branch, dot: Any) -> None:
        mark = len(self.variables)
        if node.word == "range":
            self.loop(node, dot)
        else:
            value = self.pipeline(node.pipeline, dot)
            inner = value if node.word == "with" else dot
            if is_true(value):
                self.nodes(node.body, inner)
            else:
                self.nodes(node.otherwise, dot)
        del self.variables[mark:]

    def loop(self, node: Branch, dot: Any) -> None:
        pipeline = node.pipeline
        value = self.pipeline(pipeline, dot, bind=False)
        empty = True
        for key, element in self.pairs(node, value):
            empty = False
            mark = len(self.variables)
            for name, bound in zip(pipeline.names[::-1], (element, key), strict=False):
                self.bind(name, bound, pipeline.declares)
            try:
                self.nodes(node.body, element)
            except _Jump as jump:
                if jump.word == "break":
                    break
            finally:
                del self.variables[mark:]
        if empty:
            self.nodes(node.otherwise, dot)

    def pairs(self, node: Branch, value: Any) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, dict):
            return iter(sorted(value.items()))
        if isinstance(value, (list, tuple)):
            return iter(list(enumerate(value)))
        if value is None or value is MISSING:
            return iter(())
        if isinstance(value, int) and not isinstance(value, bool):
            return ((i, i) for i in range(value))
        return self.fail(node.pipeline, f"range can't iterate over {go_text(value)}")

    def bind(self, name: str, value: Any, declares: bool) -> None:
        if declares:
            self.variables.append((name, value))
            return
        for index in range(len(self.variables) - 1, -1, -1):
            if self.variables[index][0] == name:
                self.variables[index] = (name, value)
                return

    def pipeline(self, node: Pipeline, dot: Any, *, bind: bool = True) -> Any:
        value: Any = None
        for index, command in enumerate(node.commands):
            value = self.command(command, dot, [value] if index else [])
        if bind and node.names:
            self.bind(node.names[0], value, node.declares)
        return value

    def command(self, operands: Sequence[TemplateNode], dot: Any, piped: list[Any]) -> Any:
        first, rest = operands[0], operands[1:]
        if isinstance(first, Call):
            return self.call(first, rest, dot, piped)
        if isinstance(first, Path) and first.fields:
            return self.path(first, dot, [self.operand(node, dot) for node in rest] + piped)
        if rest or piped:
            self.fail(first, f"can't give argument to non-function {first.source}")
        return self.operand(first, dot)

    def call(self, node: Call, rest: Sequence[TemplateNode], dot: Any, piped: list[Any]) -> Any:
        if node.name in ("and", "or"):
            return self.short_circuit(node, rest, dot, piped)
        args = [self.operand(operand, dot) for operand in rest] + piped
        try:
            return functions.call(node.name, args, header=self.header)
        except FunctionError as e:
            self.fail(node, str(e))

    def short_circuit(self, node: Call, rest: Sequence[TemplateNode], dot: Any, piped: list[Any]) -> Any:
        if not rest and not piped:
            self.fail(node, f"wrong number of args for {node.name}: want at least 1 got 0")
        value: Any = None
        for operand in rest:
            value = self.operand(operand, dot)
            if is_true(value) == (node.name == "or"):
                return value
        return piped[0] if piped else value

    def operand(self, node: TemplateNode, dot: Any) -> Any:
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Dot):
            return dot
        if isinstance(node, Path):
            return self.path(node, dot, [])
        if isinstance(node, Pipeline):
            return self.pipeline(node, dot)
        assert isinstance(node, Call)
        return self.call(node, [], dot, [])

    def path(self, node: Path, dot: Any, args: list[Any]) -> Any:
        if node.base is None:
            value = dot
        elif isinstance(node.base, str):
            value = next(held for name, held in reversed(self.variables) if name == node.base)
        else:
            value = self.operand(node.base, dot)
        container = ""
        for index, name in enumerate(node.fields):
            last = index == len(node.fields) - 1
            value = self.member(node, value, name, container, args if last else [])
            container = name
        return value

    def member(self, node: Path, value: Any, name: str, container: str, args: list[Any]) -> Any:
        if isinstance(value, TemplateRecord):
            try:
                return value.value(name, args)
            except KeyError:
                self.fail(node, f"can't evaluate field {name} in type *{value.TYPE}")
            except FunctionError as e:
                self.fail(node, f"error calling {name}: {e}")
        if args:
            self.fail(node, f"{name} is not a method but has arguments")
        if isinstance(value, Struct):
            return self.field(node, value, name)
        if isinstance(value, dict):
            if name not in value and container not in OPEN_OBJECTS:
                name = _json_name(name, value)
            if value.get(name) is not None:
                return value[name]
            if self.strict and (name in value or name in OPTIONAL):
                return NIL_MAP if name in OPEN_OBJECTS else NIL_LIST if name in LISTS else None
            if name in value:
                return None
            if not self.strict or container in OPEN_OBJECTS:
                return MISSING
            self.fail(node, f'map has no entry for key "{name}"')
        if value is None or value is MISSING:
            self.fail(node, f"nil pointer evaluating interface {{}}.{name}")
        kind = "interface {}" if self.strict else type_name(value)
        return self.fail(node, f"can't evaluate field {name} in type {kind}")

    def field(self, node: Path, value: Struct, name: str) -> Any:
        key, code = value.field(name)
        if value.get(key) is not None:
            return value[key]
        if not code:
            self.fail(node, f'map has no entry for key "{name}"{value.advice(name)}')
        if code.startswith("[]"):
            return NIL_LIST
        return NIL_MAP if code.startswith("{}") else empty(code)
