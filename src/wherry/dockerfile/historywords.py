"""The text of instructions in an image's history, which tools that read images depend on.

BuildKit's words (``COPY f /d # buildkit``, ``CMD ["a" "b"]``) and the legacy builder's (``/bin/sh -c #(nop)
CMD ["a" "b"]``). Where those show Go's formatting of a value (``[/v]``, ``&{["CMD" "x"] "5s" …}``), it is
written as Go does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wherry.dockerfile import configs
from wherry.dockerfile import instructions as ins
from wherry.model.oci import Healthcheck, ImageRunConfig

_BUILDKIT = " # buildkit"


def buildkit(instruction: ins.Instruction, config: ImageRunConfig) -> str:
    """:param instruction: expanded. :param config: after it. :returns: ``""`` if it does not appear in the
    history."""
    match instruction:
        case ins.Onbuild():
            return ""
        case ins.Transfer():
            return _transfer(
                instruction, [*instruction.sources, *(f"<<{h.name}" for h in instruction.heredocs)]
            )
        case ins.Expose():
            return f"EXPOSE {_bare(sorted(configs.exposed(instruction)))}"
        case ins.Healthcheck():
            return f"HEALTHCHECK {_check(config.healthcheck, quoted=True)}"
    return _both(instruction, config)


def legacy(instruction: ins.Instruction, config: ImageRunConfig) -> str:
    """The same in the words of the builder before BuildKit, but with the source's name instead of a checksum
    of the copied files."""
    shell = " ".join(config.shell or configs.DEFAULT_SHELL)
    match instruction:
        case ins.Transfer():
            sources = [*instruction.sources, *(f"<<{h.name}" for h in instruction.heredocs)]
            shown = _flags(instruction) + sources
            return f"{shell} #(nop) {instruction.keyword} {' '.join(shown)} in {instruction.destination} "
        case ins.Workdir():
            return f"{shell} #(nop) WORKDIR {config.working_dir}"
        case ins.Expose():
            words = f"EXPOSE {' '.join(instruction.ports)}"
        case ins.Healthcheck():
            words = f"HEALTHCHECK {_check(config.healthcheck, quoted=False)}"
        case ins.Onbuild():
            words = f"ONBUILD {instruction.trigger}"
        case _:
            words = _both(instruction, config)
    return f"{shell} #(nop)  {words}"


def run(words: str) -> str:
    """BuildKit's line for a RUN, from the legacy builder's line."""
    return f"RUN {words}{_BUILDKIT}"


def _both(instruction: ins.Instruction, config: ImageRunConfig) -> str:
    match instruction:
        case ins.Cmd():
            return f"CMD {_quoted(config.cmd or ())}"
        case ins.Entrypoint():
            return f"ENTRYPOINT {_quoted(config.entrypoint or ())}"
        case ins.Env() | ins.Label():
            return " ".join([instruction.keyword, *(f"{name}={value}" for name, value in instruction.pairs)])
        case ins.Shell():
            return f"SHELL {_bare(instruction.words)}"
        case ins.Volume():
            return f"VOLUME {_bare(instruction.paths)}"
        case ins.User():
            return f"USER {instruction.user}"
        case ins.Stopsignal():
            return f"STOPSIGNAL {instruction.signal}"
        case ins.Workdir():
            return f"WORKDIR {config.working_dir}"
        case ins.Maintainer():
            return f"MAINTAINER {instruction.name}"
    return instruction.text


def _transfer(instruction: ins.Transfer, sources: Sequence[str]) -> str:
    words = [instruction.keyword, *_flags(instruction), *sources, instruction.destination]
    return " ".join(words) + _BUILDKIT


def _flags(instruction: ins.Transfer) -> list[str]:
    flags = ["--parents"] if instruction.parents else []
    flags += [f"--chown={instruction.chown}"] if instruction.chown else []
    flags += [f"--chmod={instruction.chmod}"] if instruction.chmod else []
    return flags + [f"--exclude={pattern}" for pattern in instruction.exclude]


def _check(check: Healthcheck | None, *, quoted: bool) -> str:
    """A pointer to Go's ``HealthcheckConfig``, printed with ``%q`` or ``%s``."""
    if check is None:
        return "<nil>"
    spans = [_go(n) for n in (check.interval, check.timeout, check.start_period, check.start_interval)]
    if not quoted:
        return f"&{{{_bare(check.test or ())} {' '.join(spans)} {check.retries}}}"
    shown = " ".join(f'"{span}"' for span in spans)
    return f"&{{{_quoted(check.test or ())} {shown} '\\x{check.retries & 0xFF:02x}'}}"


def _go(nanoseconds: int) -> str:
    """``time.Duration`` as Go prints it: ``1m30s``, ``500ms``, ``0s``."""
    if nanoseconds < 10**9:
        return f"{nanoseconds / 10**6:g}ms" if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 10**9:.9f}".rstrip("0").rstrip(".") + "s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + seconds


def _quoted(words: Iterable[str]) -> str:
    return "[" + " ".join(_quote(word) for word in words) + "]"


def _quote(word: str) -> str:
    out = []
    for letter in word:
        if letter in '"\\':
            out.append("\\" + letter)
        elif letter.isprintable():
            out.append(letter)
        else:
            out.append(_ESCAPES.get(letter) or _escape(ord(letter)))
    return '"' + "".join(out) + '"'


_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def _escape(code: int) -> str:
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _bare(words: Iterable[str]) -> str:
    return "[" + " ".join(words) + "]"
