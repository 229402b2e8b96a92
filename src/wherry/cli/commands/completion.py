"""Shell completion: three small scripts that call ``wherry __complete`` for candidates."""

from __future__ import annotations

from wherry.cli import commands
from wherry.cli.command import UNLIMITED, Command
from wherry.cli.console import one_line
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import BOOL, FILTER
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wherry.cli.command import Context
    from wherry.cli.grammar.flags import Options

    Candidate = tuple[str, str]

FILTER_KEYS = {
    "container ls": (
        "ancestor before expose exited health id is-task label name network publish since status volume"
    ),
    "image ls": "before dangling label reference since until",
    "network ls": "dangling driver id label name scope type",
    "volume ls": "dangling driver label name",
    "system events": "container daemon event image label network type volume",
}
"""The filters of ``--filter``, by command; prune commands have labels and times."""
FILES = ":files"
"""A candidate that asks the shell to complete file names itself."""

BASH_SCRIPT = r"""# bash completion for wherry: eval "$(wherry completion bash)"
_wherry() {
    # By the line, as bash takes what is beside a colon or an equals sign for words of their own.
    local typed="${COMP_LINE:0:COMP_POINT}" line value head="" words
    IFS=$' \t' read -ra words <<< "$typed"
    [[ "$typed" == *[[:space:]] ]] && words+=("")
    local current="${words[${#words[@]}-1]}" IFS=$'\n'
    if [[ "$current" == *[:=]* ]]; then
        head="${current%"${current##*[:=]}"}"
    fi
    COMPREPLY=()
    for line in $(wherry __complete -- "${words[@]:1}" 2>/dev/null); do
        if [[ "$line" == ":files" ]]; then
            COMPREPLY+=( $(compgen -f -- "${current#"$head"}") )
        else
            value="${line%%$'\t'*}"
            COMPREPLY+=( "${value#"$head"}" )
            [[ "$value" == *[:=] ]] && compopt -o nospace 2>/dev/null
        fi
    done
}
complete -o filenames -F _wherry wherry
"""
ZSH_SCRIPT = r"""#compdef wherry
# zsh completion for wherry: put it in a directory of $fpath as _wherry, or source it
_wherry() {
    local line
    local -a found
    for line in "${(@f)$(wherry __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ "$line" == ":files" ]]; then
            _files
        elif [[ -n "$line" ]]; then
            found+=( "${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}" )
        fi
    done
    (( ${#found} )) && _describe wherry found
}
if [[ "${funcstack[1]}" == "_wherry" ]]; then
    _wherry "$@"
else
    compdef _wherry wherry
fi
"""
FISH_SCRIPT = r"""# fish completion for wherry: wherry completion fish | source
function __wherry_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (wherry __complete -- $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c wherry -f -a '(__wherry_complete)'
"""


def _script(text: str) -> Callable[[Context, Options, list[str]], int]:
    def run(ctx: Context, options: Options, args: list[str]) -> int:
        ctx.write(text)
        return 0

    return run


def complete(ctx: Context, options: Options, args: list[str]) -> int:
    """Print the candidates for the last word, one per line, with a description after a tab."""
    words, current = args[:-1], args[-1] if args else ""
    for value, text in candidates(ctx, words, current):
        if value == FILES or value.startswith(current):
            ctx.say(f"{one_line(value)}\t{one_line(text)}" if text else one_line(value))
    return 0


def candidates(ctx: Context, words: Sequence[str], current: str) -> Iterable[Candidate]:
    from wherry.cli.main import global_flags

    rest, pending = _skip_flags(ctx, global_flags(), words)
    if pending is not None:
        return _values(ctx, pending.complete or "none")
    if not rest:
        return _flags(global_flags()) if current.startswith("-") else _top()
    if flags := commands.group_flags(rest[0]):
        below, pending = _skip_flags(ctx, flags, rest[1:])
        if pending is not None:
            return _values(ctx, pending.complete or "none")
        if not below and current.startswith("-"):
            return _flags(flags)
        rest = [rest[0], *below]
    found = commands.find(rest)
    if found.entry is None:
        return _in_group(rest) if found.used else []
    command = commands.load(found.entry)
    args, pending = _arguments(command, rest[found.used :])
    if pending is not None and pending.kind is FILTER:
        return [(f"{key}=", "filter") for key in FILTER_KEYS.get(found.entry.paths[0], "label until").split()]
    if pending is not None:
        return _values(ctx, pending.complete or "none")
    if current.startswith("-") and (command.interspersed or not args):
        return _flags(command.flags)
    return _values(ctx, _position(command.complete, len(args)))


def _in_group(words: Sequence[str]) -> list[Candidate]:
    """The words that can follow ``volume`` or ``volume snapshot``."""
    depth = len(words) - 1
    found: dict[str, str] = {}
    for name, entry in commands.in_group(words[0]):
        parts = name.split(" ")
        if parts[:depth] == list(words[1:]) and len(parts) > depth:
            last = len(parts) == depth + 1
            found.setdefault(parts[depth], entry.short if last else "")
    return list(found.items())


def _skip_flags(ctx: Context, flags: Sequence[Flag], words: Sequence[str]) -> tuple[list[str], Flag | None]:
    """Skip the global flags, and apply those that select the daemon. :returns: a flag that
    lacks its value."""
    left = list(words)
    while left and left[0].startswith("-"):
        flag, value = _flag_of(flags, left.pop(0))
        if flag is None or flag.kind is BOOL:
            continue
        if value is None:
            if not left:
                return [], flag
            value = left.pop(0)
        if flag.name in ("host", "context"):
            setattr(ctx.wanted, flag.name, value)
    return left, None


def _flag_of(flags: Sequence[Flag], word: str) -> tuple[Flag | None, str | None]:
    """The flag in a word, and its value if the word contains it."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        flag = next((f for f in flags if f.name == name), None)
        return flag, value if equals else None
    letters = word[1:]
    for index, letter in enumerate(letters):
        flag = next((f for f in flags if f.short == letter), None)
        if flag is None:
            return None, None
        if flag.kind is not BOOL:
            return flag, letters[index + 1 :] or None
    return next((f for f in flags if f.short == letters[-1:]), None), None


def _arguments(command: Command, words: Sequence[str]) -> tuple[list[str], Flag | None]:
    args: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return args + left, None
        if not word.startswith("-") or word == "-" or (args and not command.interspersed):
            args.append(word)
            continue
        flag, value = _flag_of(command.flags, word)
        if flag is not None and flag.kind is not BOOL and value is None:
            if not left:
                return args, flag
            left.pop(0)
    return args, None


def _position(spec: str, index: int) -> str:
    kinds = spec.split() or ["none"]
    return kinds[min(index, len(kinds) - 1)]


def _top() -> list[Candidate]:
    found = [(name, entry.short) for name, entry in commands.top_level()]
    return sorted(found + list(commands.GROUPS.items()))


def _flags(flags: Iterable[Flag]) -> list[Candidate]:
    return [
        (f"--{flag.name}", flag.text.partition("\n")[0])
        for flag in sorted(flags, key=lambda f: f.name)
        if not flag.hidden
    ]


def _values(ctx: Context, kind: str) -> list[Candidate]:
    """Names of a kind of object from the daemon; empty if it does not answer."""
    if kind == "none":
        return []
    if kind == "file":
        return [(FILES, "")]
    if kind.startswith("words:"):
        return [(word, "") for word in kind.removeprefix("words:").split(",")]
    if kind == "context":
        return _contexts(ctx)
    if kind == "copy":
        places = [(f"{name}:", text) for name, text in _values(ctx, "container")]
        return [*places, (FILES, "")]
    if kind not in ("container", "running", "image", "volume", "network", "any"):
        return [(word, "") for word in kind.split()]
    ctx = ctx.derived(start_daemon=False)
    try:
        return _names(ctx, kind)
    except WherryError:
        return []
    finally:
        ctx.close()


def _contexts(ctx: Context) -> list[Candidate]:
    from wherry.client.contexts import ContextDirectory

    names = sorted(name for name in ContextDirectory(ctx.config_dir).names() if name.isprintable())
    return [(name, "context") for name in ["default", *names]]


def _names(ctx: Context, kind: str) -> list[Candidate]:
    from wherry.client import containers, images, networks, volumes

    found: list[Candidate] = []
    if kind in ("container", "running", "any"):
        for container in containers.listing(ctx.api, all=kind != "running"):
            text = f"{container.get('Image', '')} {container.get('Status', '')}"
            found += [(str(name).removeprefix("/"), text) for name in container.get("Names") or []]
    if kind in ("image", "any"):
        found += [(tag, "image") for image in images.listing(ctx.api) for tag in image.get("RepoTags") or []]
    if kind in ("volume", "any"):
        found += [(str(v["Name"]), "volume") for v in volumes.listing(ctx.api).get("Volumes") or []]
    if kind in ("network", "any"):
        found += [(str(n["Name"]), f"{n.get('Driver', '')} network") for n in networks.listing(ctx.api)]
    return [(value, text) for value, text in found if value.isprintable() and text.isprintable()]


BASH = Command("", _script(BASH_SCRIPT))
ZSH = Command("", _script(ZSH_SCRIPT))
FISH = Command("", _script(FISH_SCRIPT))
COMPLETE = Command("-- WORDS...", complete, most=UNLIMITED, interspersed=False)
