"""Wrong lines on purpose: what guards data and isolation is left out, one thing at a time.

- a refusal: a ``raise`` that does not come, or the condition before it (or before an early end) turned round;
- a flag that is forgotten, of those joined by ``|``: ``O_NOFOLLOW``, ``MS_RDONLY``, ``CLONE_NEWNET``;
- a step that is left out: a call whose value nobody uses, such as an fsync, a removal, a close, a lock's end;
- a fixed ``True`` or ``False`` that is the other one.

A change replaces one expression or statement, where it stands, so that all other lines keep their numbers.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

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
            if isinstance(node, ast.If):  # what is replaced is its condition alone
                node = node.test
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


def _condition(node: ast.If) -> list[ast.AST]:
    """The condition of a refusal or an early end, turned round."""
    if not isinstance(node.body[-1], ast.Raise | ast.Return | ast.Continue | ast.Break):
        return []
    return [ast.UnaryOp(ast.Not(), node.test)]


def _flags(node: ast.BinOp) -> list[ast.AST]:
    """The last of those that are joined is forgotten."""
    return [node.left] if isinstance(node.op, ast.BitOr) else []


def _truth(node: ast.Constant) -> list[ast.AST]:
    return [ast.Constant(not node.value)] if isinstance(node.value, bool) else []


def _statement(node: ast.Expr) -> list[ast.AST]:
    value = node.value.value if isinstance(node.value, ast.Await) else node.value
    if isinstance(value, ast.Call) and not _tells(value):
        return [ast.Pass()]
    return []


def _augmented(node: ast.AugAssign) -> list[ast.AST]:
    return [ast.Pass()] if isinstance(node.op, ast.BitOr) else []


_BY_KIND: dict[type[ast.AST], Callable[..., list[ast.AST]]] = {
    ast.If: _condition,
    ast.BinOp: _flags,
    ast.Constant: _truth,
    ast.Expr: _statement,
    ast.AugAssign: _augmented,
    ast.Raise: lambda _node: [ast.Pass()],
}
