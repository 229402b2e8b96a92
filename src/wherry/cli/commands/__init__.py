"""The one table of commands: dispatch, help and completion all read it.

An entry names the module and the attribute that hold the :class:`~wherry.cli.command.Command`, a line of
help, and every path that leads to it. The first path is the one help shows; a later path in the same group
is an alias; a path of one word is a command at the top.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wherry.cli.command import Command


class Entry:
    """One command's place in the table."""

    __slots__ = ("attribute", "hidden", "module", "paths", "short")

    def __init__(self, module: str, attribute: str, short: str, *paths: str, hidden: bool = False) -> None:
        self.module, self.attribute, self.short = module, attribute, short
        self.paths, self.hidden = paths, hidden


class Found:
    """What the leading words of a command line are: an entry, or a group (entry None) ``used`` words deep."""

    __slots__ = ("entry", "path", "used")

    def __init__(self, entry: Entry | None, used: int, path: str) -> None:
        self.entry, self.used, self.path = entry, used, path


GROUPS = {
    "container": "Manage containers",
    "image": "Manage images",
    "builder": "Manage builds and their cache",
    "manifest": "Manage lists of manifests, one for each platform",
    "volume": "Manage volumes",
    "network": "Manage networks",
    "secret": "Manage secrets",
    "context": "Manage contexts",
    "system": "Manage wherry",
    "daemon": "Run the daemon of this machine",
    "completion": "Write the completion script for a shell",
}

_ATTACH = "Attach local standard input, output and error streams to a running container"
TABLE = (
    Entry("run", "RUN", "Create and run a new container from an image", "container run", "run"),
    Entry("exec", "EXEC", "Run a command in a running container", "container exec", "exec"),
    Entry("execs", "LS", "List the execs of a container (exec ls)", "container exec-ls"),
    Entry("execs", "STOP", "Stop execs of a container (exec stop)", "container exec-stop"),
    Entry("execs", "KILL", "Kill or signal execs of a container (exec kill)", "container exec-kill"),
    Entry("ps", "LS", "List containers", "container ls", "container list", "container ps", "ps"),
    Entry("build", "BUILD", "Build an image from a Dockerfile", "image build", "build", "builder build"),
    Entry("builder", "PRUNE", "Remove build cache", "builder prune"),
    Entry("builder", "DU", "Show what the build cache holds", "builder du"),
    Entry("builder", "HISTORY", "List builds", "builder history"),
    Entry("builder", "SHOW", "Show everything known about a build", "builder inspect"),
    Entry("builder", "FORGET", "Forget builds", "builder forget"),
    Entry("image", "LS", "List images", "image ls", "image list", "images"),
    Entry("version", "VERSION", "Show the versions of client and daemon", "version"),
    Entry("info", "INFO", "Show what the daemon is and has", "system info", "info"),
    Entry("attach", "ATTACH", _ATTACH, "container attach", "attach"),
    Entry("run", "CREATE", "Create a new container", "container create", "create"),
    Entry("commit", "COMMIT", "Make an image from a container's changes", "container commit", "commit"),
    Entry("cp", "CP", "Copy files between a container and the local file system", "container cp", "cp"),
    Entry("diff", "DIFF", "Show what a container changed in its image's files", "container diff", "diff"),
    Entry("events", "EVENTS", "Show the daemon's events as they happen", "system events", "events"),
    Entry(
        "diff", "EXPORT", "Export a container's file system as a tar archive", "container export", "export"
    ),
    Entry("image", "HISTORY", "Show the history of an image", "image history", "history"),
    Entry("archive", "IMPORT", "Make an image from a root file system tarball", "image import", "import"),
    Entry("inspect", "INSPECT", "Show everything known about objects", "inspect"),
    Entry("lifecycle", "KILL", "Kill one or more running containers", "container kill", "kill"),
    Entry("archive", "LOAD", "Load images from a tar archive or stdin", "image load", "load"),
    Entry("logs", "LOGS", "Show the logs of a container", "container logs", "logs"),
    Entry("lifecycle", "PAUSE", "Pause all processes in one or more containers", "container pause", "pause"),
    Entry("port", "PORT", "List a container's published ports", "container port", "port"),
    Entry("registry", "PULL", "Fetch an image from its registry", "image pull", "pull"),
    Entry("registry", "PUSH", "Send an image to its registry", "image push", "push"),
    Entry("registry", "COPY", "Copy an image from registry to registry", "image copy"),
    Entry("registry", "SEARCH", "Search a registry for repositories, or list tags", "search"),
    Entry("login", "LOGIN", "Log in to a registry", "login"),
    Entry("login", "LOGOUT", "Log out from a registry", "logout"),
    Entry("lifecycle", "RENAME", "Rename a container", "container rename", "rename"),
    Entry("lifecycle", "RESTART", "Restart one or more containers", "container restart", "restart"),
    Entry("lifecycle", "RM", "Remove one or more containers", "container rm", "container remove", "rm"),
    Entry("image", "RM", "Remove one or more images", "image rm", "image remove", "rmi"),
    Entry("archive", "SAVE", "Save one or more images to a tar archive", "image save", "save"),
    Entry("start", "START", "Start one or more stopped containers", "container start", "start"),
    Entry("stats", "STATS", "Show what containers use, live", "container stats", "stats"),
    Entry("lifecycle", "STOP", "Stop one or more running containers", "container stop", "stop"),
    Entry("image", "TAG", "Give an image a further name", "image tag", "tag"),
    Entry("top", "TOP", "Show the processes of a container", "container top", "top"),
    Entry(
        "lifecycle",
        "UNPAUSE",
        "Resume all processes in one or more containers",
        "container unpause",
        "unpause",
    ),
    Entry(
        "update",
        "UPDATE",
        "Change limits, mounts, devices and ports of containers",
        "container update",
        "update",
    ),
    Entry(
        "lifecycle",
        "WAIT",
        "Wait until containers stop, then print their exit codes",
        "container wait",
        "wait",
    ),
    Entry("inspect", "CONTAINER", "Show everything known about containers", "container inspect"),
    Entry("prune", "CONTAINERS", "Remove all stopped containers", "container prune"),
    Entry("imagediff", "DIFF", "Show what makes one image differ from another", "image diff"),
    Entry("versions", "LOG", "Show what a name has pointed at", "image log"),
    Entry("versions", "ROLLBACK", "Point a name at an earlier image again", "image rollback"),
    Entry("versions", "TREE", "Draw which images share which layers", "image tree"),
    Entry("inspect", "IMAGE", "Show everything known about images", "image inspect"),
    Entry("prune", "IMAGES", "Remove unused images", "image prune"),
    Entry("archive", "BOOTSTRAP", "Make a base image from the distribution's packages", "image bootstrap"),
    Entry("volume", "LS", "List volumes", "volume ls", "volume list"),
    Entry("volume", "CREATE", "Create a volume", "volume create"),
    Entry("inspect", "VOLUME", "Show everything known about volumes", "volume inspect"),
    Entry("cp", "VOLUME_CP", "Copy files between a volume and the local file system", "volume cp"),
    Entry("volume", "RENAME", "Rename a volume", "volume rename"),
    Entry("volumeversions", "CLONE", "Make a volume with the same data", "volume clone"),
    Entry("volumeversions", "DIFF", "Show what changed since a snapshot", "volume diff"),
    Entry("volumeversions", "DU", "Show what takes how much room in a volume", "volume du"),
    Entry("volumeversions", "EXPORT", "Export a volume as a tar archive", "volume export"),
    Entry("volumeversions", "IMPORT", "Make a volume of a tar archive", "volume import"),
    Entry("volumeregistry", "PULL", "Make a volume of one in a registry", "volume pull"),
    Entry("volumeregistry", "PUSH", "Send a volume to a registry", "volume push"),
    Entry("volumeversions", "SCHEDULE", "Show or set when snapshots are made", "volume schedule"),
    Entry("volumeversions", "SNAPSHOT_CREATE", "Keep what is in a volume now", "volume snapshot create"),
    Entry("volumeversions", "SNAPSHOT_LS", "List the snapshots of a volume", "volume snapshot ls"),
    Entry("volumeversions", "SNAPSHOT_RESTORE", "Go back to a snapshot", "volume snapshot restore"),
    Entry("volumeversions", "SNAPSHOT_RM", "Remove snapshots of a volume", "volume snapshot rm"),
    Entry("volume", "RM", "Remove one or more volumes", "volume rm", "volume remove"),
    Entry("prune", "VOLUMES", "Remove unused local volumes", "volume prune"),
    Entry("network", "LS", "List networks", "network ls", "network list"),
    Entry("network", "CONNECT", "Connect a container to a network", "network connect"),
    Entry("network", "CREATE", "Create a network", "network create"),
    Entry("network", "DISCONNECT", "Disconnect a container from a network", "network disconnect"),
    Entry("inspect", "NETWORK", "Show everything known about networks", "network inspect"),
    Entry("prune", "NETWORKS", "Remove all unused networks", "network prune"),
    Entry("network", "RM", "Remove one or more networks", "network rm", "network remove"),
    Entry("secret", "CREATE", "Create a secret from a file or STDIN", "secret create"),
    Entry("secret", "INSPECT", "Show everything known about secrets, but their values", "secret inspect"),
    Entry("secret", "LS", "List secrets", "secret ls", "secret list"),
    Entry("secret", "RM", "Remove one or more secrets", "secret rm", "secret remove"),
    Entry("context", "CREATE", "Create a context", "context create"),
    Entry("context", "EXPORT", "Export a context to a tar archive FILE or stdout", "context export"),
    Entry("context", "IMPORT", "Import a context from a tar or zip file", "context import"),
    Entry("manifest", "ANNOTATE", "Say more of a manifest in a local list", "manifest annotate"),
    Entry("manifest", "CREATE", "Create a local list of manifests", "manifest create"),
    Entry("manifest", "INSPECT", "Show a manifest, or a list of manifests", "manifest inspect"),
    Entry("manifest", "PUSH", "Push a list of manifests to its repository", "manifest push"),
    Entry("manifest", "RM", "Remove local lists of manifests", "manifest rm"),
    Entry("context", "INSPECT", "Show everything known about contexts", "context inspect"),
    Entry("context", "LS", "List contexts", "context ls", "context list"),
    Entry("context", "RM", "Remove one or more contexts", "context rm", "context remove"),
    Entry("context", "SHOW", "Print the name of the current context", "context show"),
    Entry("context", "UPDATE", "Update a context", "context update"),
    Entry("context", "USE", "Set the current context", "context use"),
    Entry("df", "DF", "Show how much disk wherry uses", "system df"),
    Entry("fsck", "FSCK", "Check the store of images, and mend it", "system fsck"),
    Entry("prune", "SYSTEM", "Remove unused data", "system prune"),
    Entry("dial", "DIAL", "Connect stdin and stdout to the daemon", "system dial-stdio", hidden=True),
    Entry("daemon", "START", "Start the daemon of this machine", "daemon start"),
    Entry("daemon", "STOP", "Stop the daemon; containers go on running", "daemon stop"),
    Entry("daemon", "STATUS", "Say whether the daemon runs", "daemon status"),
    Entry("daemon", "LOGS", "Show what the daemon wrote", "daemon logs"),
    Entry("completion", "BASH", "Completion script for bash", "completion bash"),
    Entry("completion", "ZSH", "Completion script for zsh", "completion zsh"),
    Entry("completion", "FISH", "Completion script for fish", "completion fish"),
    Entry("completion", "COMPLETE", "Complete a command line", "__complete", hidden=True),
)

COMMON = ("run", "exec", "ps", "build", "images", "version", "info")
"""What help lists first."""

PLANNED = ("buildx checkpoint plugin trust swarm node service stack config compose").split()
PLANNED_IN_GROUPS = {
    "volume": "update",
    "completion": "powershell",
}
"""Commands that Docker has and wherry does not have yet: refused by name, and not completed."""

_BY_PATH = {path: entry for entry in TABLE for path in entry.paths}


def find(words: Sequence[str]) -> Found:
    """Look up the longest path that ``words`` begin with."""
    if words[0] in GROUPS:
        triple = " ".join(words[:3])
        if len(words) > 2 and triple in _BY_PATH:
            return Found(_BY_PATH[triple], 3, f"wherry {triple}")
        pair = f"{words[0]} {words[1]}" if len(words) > 1 else ""
        if pair in _BY_PATH:
            entry = _BY_PATH[pair]
            return Found(entry, 2, f"wherry {canonical(entry, words[0])}")
        return Found(None, 1, f"wherry {words[0]}")
    if words[0] in _BY_PATH:
        return Found(_BY_PATH[words[0]], 1, f"wherry {words[0]}")
    return Found(None, 0, "wherry")


def canonical(entry: Entry, group: str) -> str:
    """The path that help shows for an entry within a group."""
    return next(path for path in entry.paths if path.startswith(f"{group} "))


def load(entry: Entry) -> Command:
    """Import the module of an entry and return its command."""
    from importlib import import_module

    command: Command = getattr(import_module(f"{__name__}.{entry.module}"), entry.attribute)
    return command


def top_level() -> Iterator[tuple[str, Entry]]:
    """Commands of one word, in the table's order."""
    for entry in TABLE:
        for path in entry.paths:
            if " " not in path and not entry.hidden:
                yield path, entry


def in_group(group: str) -> Iterator[tuple[str, Entry]]:
    """A group's commands by name, aliases left out."""
    for entry in sorted(TABLE, key=lambda e: e.paths[0]):
        if not entry.hidden and any(path.startswith(f"{group} ") for path in entry.paths):
            yield canonical(entry, group).partition(" ")[2], entry


def is_planned(name: str) -> bool:
    """Whether ``name`` ("build", "network create") is a command of Docker's that is not there yet."""
    group, _, command = name.partition(" ")
    return name in PLANNED or (bool(command) and command in PLANNED_IN_GROUPS.get(group, "").split())


def suggestion(word: str) -> str:
    """A hint for a mistyped command: the names that are close to it."""
    from difflib import get_close_matches

    names = [path for path, _ in top_level()] + list(GROUPS)
    close = get_close_matches(word, names, n=3, cutoff=0.7)
    return "\n\nDid you mean this?\n" + "\n".join(f"\t{name}" for name in close) if close else ""
