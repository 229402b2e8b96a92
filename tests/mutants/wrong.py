"""Wrong lines on purpose: every small change to a file of which a test should notice.

A change replaces one expression or statement, where it stands, so that all other lines keep their numbers.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.Mod: ast.Mult,
}
_TOLD = ("log", "_log", "logger", "warnings")
"""Objects whose calls tell somebody something: words, which tests do not hold."""


@dataclass(frozen=True)
class Wrong:
    """``text`` instead of what stands from ``start`` to ``end`` (lines from 1, columns in bytes)."""

    file: str
    start: tuple[int, int]
    end: tuple[int, int]
    was: str
    text: str

    @property
    def line(self) -> int:
        return self.start[0]

    @property
    def key(self) -> str:
        """What it is called wherever it is written down; it outlives changes elsewhere in the file."""
        return f"{self.file}: {' '.join(self.was.split())} -> {' '.join(self.text.split())}"

    def apply(self, source: bytes) -> bytes:
        lines = source.splitlines(keepends=True)
        (first, left), (last, right) = self.start, self.end
        before = b"".join(lines[: first - 1]) + lines[first - 1][:left]
        after = lines[last - 1][right:] + b"".join(lines[last:])
        text, gap = self.text.encode(), b"\n" * (last - first - self.text.count("\n"))
        if text.endswith(b")"):  # within the parentheses, so that the line goes on
            return before + text[:-1] + gap + b")" + after
        return before + text + gap + after


def wrong_lines(path: Path, name: str) -> Iterator[Wrong]:
    """Every one of a file, in the order of its lines."""
    source = path.read_text()
    tree = ast.parse(source)
    for node in _code(tree):
        for changed in _changes(node):
            assert isinstance(node, ast.expr | ast.stmt)
            text = ast.unparse(changed)
            if isinstance(node, ast.expr):
                text = f"({text})"
            assert node.end_lineno is not None and node.end_col_offset is not None
            yield Wrong(
                file=name,
                start=(node.lineno, node.col_offset),
                end=(node.end_lineno, node.end_col_offset),
                was=ast.get_source_segment(source, node) or "",
                text=text,
            )


def _code(tree: ast.Module) -> Iterator[ast.AST]:
    """What runs, without words, types and what only a type checker reads."""
    waiting: list[ast.AST] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases):
            continue
        if isinstance(node, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Call) and _tells(node):
            continue
        if isinstance(node, ast.Raise):  # that it is raised counts, not its words
            yield node
            continue
        yield node
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            children = list(node.body)
        elif isinstance(node, ast.AnnAssign):
            children = [node.value] if node.value is not None else []
        waiting += reversed(children)


def _tells(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id in _TOLD
    )


def _changes(node: ast.AST) -> list[ast.AST]:
    kind = type(node)
    change: Callable[..., list[ast.AST]] | None = _BY_KIND.get(kind)
    return change(node) if change is not None else []


def _with(node: ast.AST, **fields: object) -> ast.AST:
    made = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _compare(node: ast.Compare) -> list[ast.AST]:
    first, *rest = node.ops
    return [_with(node, ops=[_COMPARED[type(first)](), *rest])]


def _both(node: ast.BoolOp) -> list[ast.AST]:
    return [_with(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())]


def _not(node: ast.UnaryOp) -> list[ast.AST]:
    return [node.operand] if isinstance(node.op, ast.Not) else []


def _calculated(node: ast.BinOp) -> list[ast.AST]:
    if isinstance(node.op, ast.BitOr):  # a flag, or another part of a set, is forgotten
        return [node.left]
    if isinstance(node.left, ast.JoinedStr) or (
        isinstance(node.left, ast.Constant) and not isinstance(node.left.value, int | float)
    ):
        return []  # text
    other = _CALCULATED.get(type(node.op))
    return [_with(node, op=other())] if other is not None else []


def _constant(node: ast.Constant) -> list[ast.AST]:
    if isinstance(node.value, bool):
        return [ast.Constant(not node.value)]
    if isinstance(node.value, int | float):
        return [ast.Constant(node.value + 1)]
    return []


def _statement(node: ast.Expr) -> list[ast.AST]:
    value = node.value.value if isinstance(node.value, ast.Await) else node.value
    if isinstance(value, ast.Call) and not _tells(value):
        return [ast.Pass()]
    return []


def _augmented(node: ast.AugAssign) -> list[ast.AST]:
    if isinstance(node.op, ast.BitOr):
        return [ast.Pass()]
    other = _CALCULATED.get(type(node.op))
    return [_with(node, op=other())] if other is not None else []


_BY_KIND: dict[type[ast.AST], Callable[..., list[ast.AST]]] = {
    ast.Compare: _compare,
    ast.BoolOp: _both,
    ast.UnaryOp: _not,
    ast.BinOp: _calculated,
    ast.Constant: _constant,
    ast.Expr: _statement,
    ast.AugAssign: _augmented,
    ast.Raise: lambda _node: [ast.Pass()],
    ast.Break: lambda _node: [ast.Continue()],
    ast.Continue: lambda _node: [ast.Break()],
}
