"""Parse a template's text into nodes.

Grammar (Go, text/template): text with actions between ``{{`` and ``}}``; ``{{- `` and `` -}}`` trim the white
space next to them; an action is a comment, a control word with a pipeline, an assignment, or a pipeline.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

SPACE = " \t\r\n"
CONTROL = ("if", "range", "with", "else", "end", "break", "continue", "define", "template", "block")
DEPTH_MAX = 100


class TemplateError(ValueError):
    """The template is malformed."""


class TemplateNode:
    """A piece of a template; ``position`` is its offset in the text, ``source`` its text in errors."""

    __slots__ = ("position", "source")

    def __init__(self, position: int, source: str) -> None:
        self.position, self.source = position, source


class Text(TemplateNode):
    __slots__ = ()


class Literal(TemplateNode):
    """A string, number, boolean or nil."""

    __slots__ = ("value",)

    def __init__(self, position: int, source: str, value: Any) -> None:
        super().__init__(position, source)
        self.value = value


class Dot(TemplateNode):
    __slots__ = ()


class Path(TemplateNode):
    """``.A.B`` (base None), ``$x.A`` (base is the variable's name) or ``(pipeline).A`` (base is a node)."""

    __slots__ = ("base", "fields")

    def __init__(
        self, position: int, source: str, base: str | TemplateNode | None, fields: list[str]
    ) -> None:
        super().__init__(position, source)
        self.base, self.fields = base, fields


class Call(TemplateNode):
    """A function by its name."""

    __slots__ = ("name",)

    def __init__(self, position: int, name: str) -> None:
        super().__init__(position, name)
        self.name = name


class Pipeline(TemplateNode):
    """Commands joined by ``|``; each is a list of operands. ``names`` are the variables it sets."""

    __slots__ = ("commands", "declares", "names")

    def __init__(
        self, position: int, source: str, commands: list[list[TemplateNode]], names: list[str], declares: bool
    ) -> None:
        super().__init__(position, source)
        self.commands, self.names, self.declares = commands, names, declares


class Action(TemplateNode):
    __slots__ = ("pipeline",)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline.position, pipeline.source)
        self.pipeline = pipeline


class Branch(TemplateNode):
    """``if``, ``with`` or ``range``: ``word`` says which."""

    __slots__ = ("body", "otherwise", "pipeline", "word")

    def __init__(self, position: int, word: str, pipeline: Pipeline) -> None:
        super().__init__(position, word)
        self.word, self.pipeline = word, pipeline
        self.body: list[TemplateNode] = []
        self.otherwise: list[TemplateNode] = []


class Jump(TemplateNode):
    """``break`` or ``continue``."""

    __slots__ = ()


class Parsed:
    """A parsed template and its text, for error positions."""

    __slots__ = ("nodes", "text")

    def __init__(self, text: str, nodes: list[TemplateNode]) -> None:
        self.text, self.nodes = text, nodes


def parse(text: str) -> Parsed:
    """:raises TemplateError: with Go's words and the line."""
    parser = _Parser(text)
    try:
        nodes = parser.block(0)
    except RecursionError:
        raise TemplateError("template: :1: too deeply nested") from None
    if parser.stop != "":
        parser.fail(f"unexpected {{{{{parser.stop}}}}}")
    return Parsed(text, nodes)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.stop = ""
        """What ended the last block: ``end``, ``else``, or nothing at the end of the text."""
        self.variables: list[str] = ["$"]
        self.loops = 0
        self.parens = 0

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        line = self.text.count("\n", 0, self.at if at is None else at) + 1
        raise TemplateError(f"template: :{line}: {reason}")

    # blocks

    def block(self, depth: int) -> list[TemplateNode]:
        """Nodes up to ``{{end}}``, ``{{else …}}`` (left for the caller to read on) or the end of the text."""
        if depth > DEPTH_MAX:
            self.fail("too deeply nested")
        nodes: list[TemplateNode] = []
        while True:
            start = self.text.find("{{", self.at)
            piece = self.text[self.at :] if start < 0 else self.text[self.at : start]
            trims = (
                start >= 0
                and self.text[start + 2 : start + 3] == "-"
                and self.text[start + 3 : start + 4] in (*SPACE,)
            )
            if piece and (kept := piece.rstrip(SPACE) if trims else piece):
                nodes.append(Text(self.at, kept))
            if start < 0:
                self.at, self.stop = len(self.text), ""
                return nodes
            self.at = start + (4 if trims else 2)
            if self._comment():
                continue
            node = self._action(depth)
            if node is None:
                return nodes
            if node.source or not isinstance(node, Text):
                nodes.append(node)

    def _comment(self) -> bool:
        if not self.text.startswith("/*", self.at):
            return False
        end = self.text.find("*/", self.at)
        if end < 0:
            self.fail("unclosed comment")
        self.at = end + 2
        if not self.text.startswith("}}", self.at) and not self.text.startswith(" -}}", self.at):
            self.fail("comment ends before closing delimiter")
        self._close()
        return True

    def _action(self, depth: int) -> TemplateNode | None:
        """One action after ``{{``; None for ``end`` and ``else``, with ``stop`` set."""
        self._space()
        position = self.at
        word = self._peek_word()
        if word not in CONTROL:
            pipeline = self._pipeline("command")
            self._close()
            return Action(pipeline)
        self.at += len(word)
        if word in ("if", "with", "range"):
            return self._branch(position, word, depth)
        if word == "end":
            self._close()
            self.stop = "end"
            return None
        if word == "else":
            self.stop = "else"
            return None
        if word in ("break", "continue"):
            if not self.loops:
                self.fail(f"{{{{{word}}}}} outside {{{{range}}}}")
            self._close()
            return Jump(position, word)
        return self.fail(f"{{{{{word}}}}} is not supported in a format")

    def _branch(self, position: int, word: str, depth: int) -> Branch:
        scope = len(self.variables)
        branch = Branch(position, word, self._pipeline(word))
        self._close()
        self.loops += word == "range"
        branch.body = self.block(depth + 1)
        self.loops -= word == "range"
        if self.stop == "else":
            self._else(branch, word, depth)
        elif self.stop != "end":
            self.fail("unexpected EOF")
        del self.variables[scope:]
        return branch

    def _else(self, branch: Branch, word: str, depth: int) -> None:
        self._space()
        chained = self._peek_word()
        if chained in ("if", "with") and (chained == word or word == "if" or chained == "if"):
            position = self.at
            self.at += len(chained)
            branch.otherwise = [self._branch(position, chained, depth + 1)]
            return
        self._close()
        branch.otherwise = self.block(depth + 1)
        if self.stop == "else":
            self.fail("expected end; found {{else}}")
        if self.stop != "end":
            self.fail("unexpected EOF")

    # actions

    def _space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in SPACE:
            self.at += 1

    def _closes(self) -> bool:
        return self.text.startswith("}}", self.at) or self.text.startswith("-}}", self.at)

    def _close(self) -> None:
        self._space()
        if self.text.startswith("}}", self.at):
            self.at += 2
            return
        if self.text.startswith("-}}", self.at) and self.text[self.at - 1] in SPACE:
            self.at += 3
            self._space()
            return
        if self.at >= len(self.text):
            self.fail("unclosed action")
        self.fail(f"unexpected {self._shown()} in operand")

    def _shown(self) -> str:
        word = self._peek_word() or self.text[self.at : self.at + 1]
        return f"<{word}>" if word[:1] == "." else f'"{word}"'

    def _peek_word(self) -> str:
        end = self.at
        while end < len(self.text) and (self.text[end].isalnum() or self.text[end] == "_"):
            end += 1
        return self.text[self.at : end]

    def _pipeline(self, context: str) -> Pipeline:
        self._space()
        position = self.at
        names, declares = self._declarations(context)
        commands: list[list[TemplateNode]] = []
        while True:
            commands.append(self._command(context))
            self._space()
            if not self.text.startswith("|", self.at):
                break
            self.at += 1
        self.variables += names if declares else []
        source = self.text[position : self.at].strip()
        return Pipeline(position, source, commands, names, declares)

    def _declarations(self, context: str) -> tuple[list[str], bool]:
        """``$x :=``, ``$x =`` or, in a range, ``$i, $x :=``."""
        start = self.at
        names: list[str] = []
        while self.text.startswith("$", self.at):
            self.at += 1
            names.append("$" + self._take_word())
            self._space()
            if self.text.startswith(":=", self.at):
                self.at += 2
                return names, True
            if self.text.startswith("=", self.at):
                self.at += 1
                for name in names:
                    self._known(name)
                return names, False
            if context != "range" or not self.text.startswith(",", self.at) or len(names) == 2:
                break
            self.at += 1
            self._space()
        self.at = start
        return [], False

    def _take_word(self) -> str:
        word = self._peek_word()
        self.at += len(word)
        return word

    def _known(self, name: str) -> None:
        if name not in self.variables:
            self.fail(f'undefined variable "{name}"')

    def _command(self, context: str) -> list[TemplateNode]:
        operands: list[TemplateNode] = []
        while True:
            self._space()
            if self.at >= len(self.text):
                self.fail("unclosed action")
            if self._closes() or self.text[self.at] in "|)":
                if self.text[self.at] == ")" and not self.parens:
                    self.fail("unexpected right paren")
                break
            operands.append(self._operand())
        if not operands:
            self.fail(f"missing value for {context}")
        if isinstance(operands[0], Call):
            operands[0].source = self.text[operands[0].position : self.at].strip()
        return operands

    def _operand(self) -> TemplateNode:
        node = self._term()
        if not self.text.startswith(".", self.at) or isinstance(node, (Call, Literal)):
            self._end_of_operand()
            return node
        position = self.at
        fields = self._fields()
        source = node.source + "".join(f".{f}" for f in fields)
        if isinstance(node, Path):
            return Path(position, source, node.base, node.fields + fields)
        return Path(position, source, node, fields)

    def _end_of_operand(self) -> None:
        if self.at < len(self.text) and self.text[self.at] not in SPACE + "|)(,=:" and not self._closes():
            char = self.text[self.at]
            self.fail(f"bad character U+{ord(char):04X} '{char}'")

    def _fields(self) -> list[str]:
        fields: list[str] = []
        while self.text.startswith(".", self.at):
            self.at += 1
            word = self._take_word()
            if not word:
                self.fail(
                    f'unexpected bad character after "." in {self.text[max(0, self.at - 10) : self.at]!r}'
                )
            fields.append(word)
        return fields

    def _term(self) -> TemplateNode:
        position = self.at
        char = self.text[position]
        if char == "(":
            return self._parenthesised()
        if char in "\"`'":
            return self._quoted(position, char)
        if char == ".":
            return self._dot(position)
        if char == "$":
            self.at += 1
            name = "$" + self._take_word()
            self._known(name)
            return Path(position, name, name, [])
        if char.isdecimal() or (char in "+-" and self.text[position + 1 : position + 2].isdecimal()):
            return self._number(position)
        word = self._take_word()
        if not word:
            self.fail(f'unexpected "{char}" in operand' if char != "}" else 'unexpected "}" in operand')
        if word in ("true", "false", "nil"):
            return Literal(position, word, {"true": True, "false": False, "nil": None}[word])
        from wherry.cli.render.template.functions import NAMES

        if word not in NAMES:
            self.fail(f'function "{word}" not defined')
        return Call(position, word)

    def _dot(self, position: int) -> TemplateNode:
        following = self.text[position + 1 : position + 2]
        if not (following.isalpha() or following == "_"):
            self.at += 1
            return Dot(position, ".")
        self.at += 1
        word = self._take_word()
        return Path(position, f".{word}", None, [word])

    def _parenthesised(self) -> TemplateNode:
        self.at += 1
        self.parens += 1
        if self.parens > DEPTH_MAX:
            self.fail("max expression depth exceeded")
        pipeline = self._pipeline("parenthesized pipeline")
        self.parens -= 1
        self._space()
        if not self.text.startswith(")", self.at):
            self.fail("unclosed left paren")
        self.at += 1
        pipeline.source = f"({pipeline.source})"
        return pipeline

    def _quoted(self, position: int, quote: str) -> TemplateNode:
        at = position + 1
        while True:
            if at >= len(self.text) or (self.text[at] == "\n" and quote != "`"):
                self.fail("unterminated raw quoted string" if quote == "`" else "unterminated quoted string")
            if self.text[at] == quote:
                break
            at += 2 if self.text[at] == "\\" and quote != "`" else 1
        self.at = at + 1
        source = self.text[position : self.at]
        body = source[1:-1]
        if quote != "`":
            body = self._unescape(body)
        if quote == "'":
            if len(body) != 1:
                self.fail(f"malformed character constant: {source}")
            return Literal(position, source, ord(body))
        return Literal(position, source, body)

    def _unescape(self, body: str) -> str:
        simple = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b"}
        simple |= {"f": "\f", "v": "\v"}
        sizes = {"x": 2, "u": 4, "U": 8}
        out: list[str] = []
        at = 0
        while at < len(body):
            if body[at] != "\\":
                out.append(body[at])
                at += 1
                continue
            letter = body[at + 1 : at + 2]
            digits = body[at + 2 : at + 2 + sizes.get(letter, 0)]
            if letter in simple:
                out.append(simple[letter])
                at += 2
                continue
            try:
                if letter in sizes and len(digits) == sizes[letter]:
                    out.append(chr(int(digits, 16)))
                    at += 2 + sizes[letter]
                    continue
                out.append(chr(int(body[at + 1 : at + 4], 8)))
                at += 4
            except (ValueError, OverflowError):
                self.fail(f'invalid syntax in string "{body}"')
        return "".join(out)

    def _number(self, position: int) -> TemplateNode:
        end = position + 1
        while end < len(self.text) and (self.text[end].isalnum() or self.text[end] in "._"):
            end += 1
        source = self.text[position:end]
        self.at = end
        try:
            return Literal(position, source, int(source, 0))
        except ValueError:
            pass
        try:
            return Literal(position, source, float(source))
        except ValueError:
            self.fail(f'bad number syntax: "{source}"')
