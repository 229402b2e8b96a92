"""``printf`` with Go's verbs: ``%s %q %v %d %x %X %o %b %t %f %e %g %c %%``, flags, width and precision."""

from __future__ import annotations

from wherry.cli.render.template.values import WIDTH_MAX, go_text, to_json, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def sprintf(layout: str, values: Sequence[Any]) -> str:
    """As in Go, errors appear in the output: ``%!d(string=x)``, ``%!s(MISSING)``, ``%!(EXTRA int=1)``."""
    out: list[str] = []
    queue = list(values)
    at = 0
    while at < len(layout):
        percent = layout.find("%", at)
        if percent < 0:
            out.append(layout[at:])
            break
        out.append(layout[at:percent])
        flags, width, precision, verb, at = _directive(layout, percent + 1, queue)
        if verb == "%":
            out.append("%")
        elif not verb or verb == "!":
            out.append("%!(NOVERB)")
        elif not queue:
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_pad(_one(verb, queue.pop(0), precision, flags), flags, width))
    if queue:
        out.append("%!(EXTRA " + ", ".join(f"{type_name(v)}={go_text(v)}" for v in queue) + ")")
    return "".join(out)


def _directive(layout: str, at: int, queue: list[Any]) -> tuple[str, int, int | None, str, int]:
    start = at
    while at < len(layout) and layout[at] in "-+# 0":
        at += 1
    flags = layout[start:at]
    width, at = _number(layout, at, queue)
    precision: int | None = None
    if layout[at : at + 1] == ".":
        number, at = _number(layout, at + 1, queue)
        precision = number or 0
    return flags, min(width or 0, WIDTH_MAX), precision, layout[at : at + 1], at + 1


def _number(layout: str, at: int, queue: list[Any]) -> tuple[int | None, int]:
    if layout[at : at + 1] == "*":
        value = queue.pop(0) if queue else 0
        return (value if isinstance(value, int) else 0), at + 1
    end = at
    while end < len(layout) and layout[end].isdecimal() and end - at < 9:
        end += 1
    return (int(layout[at:end]) if end > at else None), end


def _one(verb: str, value: Any, precision: int | None, flags: str) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if verb == "v":
        return go_text(value, True)
    if verb == "s" and isinstance(value, (str, list, tuple, dict)):
        text = go_text(value)
        return text if precision is None else text[:precision]
    if verb == "q" and isinstance(value, str):
        return to_json(value)
    if verb == "t" and isinstance(value, bool):
        return go_text(value)
    if verb in "dxXob" and whole:
        return _signed(format(value, verb), value, flags)
    if verb in "xX" and isinstance(value, str):
        return value.encode().hex() if verb == "x" else value.encode().hex().upper()
    if verb == "c" and whole and 0 <= value < 0x110000:
        return chr(value)
    if verb in "feEgG" and isinstance(value, float):
        digits = 6 if precision is None and verb in "feE" else precision
        return _signed(format(value, f".{digits}{verb}" if digits is not None else verb), value, flags)
    if verb == "T":
        return type_name(value)
    return f"%!{verb}({type_name(value)}={go_text(value)})"


def _signed(text: str, value: float, flags: str) -> str:
    return f"+{text}" if "+" in flags and value >= 0 else text


def _pad(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and text.lstrip("+-")[:1].isdecimal():
        sign = text[0] if text[0] in "+-" else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)
