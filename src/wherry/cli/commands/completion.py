"""Shell completion: three small scripts that all ask ``wherry __complete`` what could come next."""

from __future__ import annotations

from wherry.cli import commands
from wherry.cli.command import UNLIMITED, Command
from wherry.cli.flags import Flag
from wherry.cli.values import BOOL
from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wherry.cli.command import Context
    from wherry.cli.flags import Options

    Candidate = tuple[str, str]

FILES = ":files"
"""A candidate that asks the shell to complete file names itself."""

BASH_SCRIPT = r"""# bash completion for wherry: eval "$(wherry completion bash)"
_wherry() {
    local line IFS=$'\n'
    COMPREPLY=()
    local current="${COMP_WORDS[COMP_CWORD]}"
    for line in $(wherry __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
        if [[ "$line" == ":files" ]]; then
            COMPREPLY+=( $(compgen -f -- "$current") )
        else
            COMPREPLY+=( "${line%%$'\t'*}" )
        fi
    done
    if declare -F __ltrim_colon_completions >/dev/null; then
        __ltrim_colon_completions "$current"
    fi
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
    """Print what the last word could become, one candidate a line, with its description after a tab."""
    words, current = args[:-1], args[-1] if args else ""
    for value, text in candidates(ctx, words, current):
        if value == FILES or value.startswith(current):
            ctx.say(f"{value}\t{text}" if text else value)
    return 0


def candidates(ctx: Context, words: Sequence[str], current: str) -> Iterable[Candidate]:
    from wherry.cli.main import global_flags

    rest, pending = _skip_flags(ctx, global_flags(), words)
    if pending is not None:
        return _values(ctx, pending.complete or "none")
    if not rest:
        return _flags(global_flags()) if current.startswith("-") else _top()
    found = commands.find(rest)
    if found.entry is None:
        return _in_group(rest) if found.used == 1 else []
    command = commands.load(found.entry)
    args, pending = _arguments(command, rest[found.used :])
    if pending is not None:
        return _values(ctx, pending.complete or "none")
    if current.startswith("-") and (command.interspersed or not args):
        return _flags(command.flags)
    return _values(ctx, _position(command.complete, len(args)))


def _in_group(words: Sequence[str]) -> list[Candidate]:
    """What may follow ``volume``, or ``volume snapshot``."""
    depth = len(words) - 1
    found: dict[str, str] = {}
    for name, entry in commands.in_group(words[0]):
        parts = name.split(" ")
        if parts[:depth] == list(words[1:]) and len(parts) > depth:
            last = len(parts) == depth + 1
            found.setdefault(parts[depth], entry.short if last else "")
    return list(found.items())


def _skip_flags(ctx: Context, flags: Sequence[Flag], words: Sequence[str]) -> tuple[list[str], Flag | None]:
    """Pass over the global flags, applying those that name the daemon; a flag that still wants a value."""
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
    """The flag that a word is, and its value where the word holds it."""
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
    """Names of a kind from the daemon; nothing when it does not answer."""
    if kind == "none":
        return []
    if kind == "file":
        return [(FILES, "")]
    if kind.startswith("words:"):
        return [(word, "") for word in kind.removeprefix("words:").split(",")]
    if kind == "context":
        return _contexts(ctx)
    if kind not in ("container", "running", "image", "volume", "network", "any"):
        return [(word, "") for word in kind.split()]
    ctx.start_daemon = False
    try:
        return _names(ctx, kind)
    except WherryError:
        return []


def _contexts(ctx: Context) -> list[Candidate]:
    from wherry.client.contexts import Store

    names = sorted(name for name in Store(ctx.config_dir).names() if name.isprintable())
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
