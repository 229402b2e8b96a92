"""The one table of commands: dispatch, help and completion all read it.

An entry has the module and attribute of the :class:`~wherry.cli.command.Command`, a line of help, and all
paths of the command. Help shows the first path; another path in the same group is an alias; a path of one
word is a top-level command.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wherry.cli.command import Command
    from wherry.cli.grammar.flags import Flag


class TableEntry:
    """The entry of one command."""

    __slots__ = ("attribute", "hidden", "module", "paths", "short")

    def __init__(self, module: str, attribute: str, short: str, *paths: str, hidden: bool = False) -> None:
        self.module, self.attribute, self.short = module, attribute, short
        self.paths, self.hidden = paths, hidden


class FoundCommand:
    """The meaning of the first ``used`` words of a command line: a command, or a group (then the entry is
    None)."""

    __slots__ = ("entry", "path", "used")

    def __init__(self, entry: TableEntry | None, used: int, path: str) -> None:
        self.entry, self.used, self.path = entry, used, path


GROUPS = {
    "container": "Manage containers",
    "image": "Manage images",
    "builder": "Manage builds and their cache",
    "compose": "Define and run applications of several containers",
    "manifest": "Manage lists of manifests, one for each platform",
    "volume": "Manage volumes",
    "network": "Manage networks",
    "secret": "Manage secrets",
    "context": "Manage contexts",
    "system": "Manage wherry",
    "migrate": "Take over what another engine has kept",
    "daemon": "Run the daemon of this machine",
    "completion": "Write the completion script for a shell",
}

GROUP_FLAGS = {"compose": ("composing.flags", "GLOBAL")}
"""Groups that have flags between the group's name and the command's: the module below ``cli`` and the
attribute with the flags."""

NESTED = {
    "compose alpha": "Experimental commands",
    "compose trash": "Volumes that down -v has put aside",
    "volume snapshot": "Manage snapshots of volumes",
}
"""Groups within a group."""

_ATTACH = "Attach local standard input, output and error streams to a running container"
COMPOSE = (
    TableEntry(
        "compose.config",
        "CONFIG",
        "Show the project as it is understood",
        "compose config",
        "compose convert",
    ),
    TableEntry("compose.up", "UP", "Create and start containers", "compose up"),
    TableEntry("compose.up", "CREATE", "Create containers for services", "compose create"),
    TableEntry("compose.up", "SCALE_COMMAND", "Scale services", "compose scale"),
    TableEntry("compose.down", "DOWN", "Stop and remove containers, networks", "compose down"),
    TableEntry("compose.inside", "ATTACH", "Attach to a running container of a service", "compose attach"),
    TableEntry("compose.images", "BUILD", "Build services' images", "compose build"),
    TableEntry("compose.inside", "COMMIT", "Make an image from a service's container", "compose commit"),
    TableEntry(
        "compose.inside", "CP", "Copy files between a service and the local file system", "compose cp"
    ),
    TableEntry("compose.output", "EVENTS", "Show events of the project's containers", "compose events"),
    TableEntry("compose.inside", "EXEC", "Run a command in a running container of a service", "compose exec"),
    TableEntry(
        "compose.inside", "EXPORT", "Export a service's file system as a tar archive", "compose export"
    ),
    TableEntry("compose.lists", "IMAGES", "List images that the containers use", "compose images"),
    TableEntry("compose.lifecycle", "KILL", "Kill services' containers", "compose kill"),
    TableEntry("compose.output", "LOGS", "Show what containers print", "compose logs"),
    TableEntry("compose.lists", "LS", "List projects that run", "compose ls"),
    TableEntry("compose.lifecycle", "PAUSE", "Pause services", "compose pause"),
    TableEntry("compose.inside", "PORT", "Show where a port is published", "compose port"),
    TableEntry("compose.lists", "PS", "List containers", "compose ps"),
    TableEntry("compose.publish", "PUBLISH", "Send the project to a registry", "compose publish"),
    TableEntry("compose.images", "PULL", "Fetch services' images", "compose pull"),
    TableEntry("compose.images", "PUSH", "Send services' images to their registries", "compose push"),
    TableEntry("compose.lifecycle", "RESTART", "Restart services' containers", "compose restart"),
    TableEntry("compose.lifecycle", "RM", "Remove stopped containers", "compose rm"),
    TableEntry("compose.run", "RUN", "Run another command in a container of a service", "compose run"),
    TableEntry("compose.lifecycle", "START", "Start services", "compose start"),
    TableEntry("compose.inside", "STATS", "Show what containers use, live", "compose stats"),
    TableEntry("compose.lifecycle", "STOP", "Stop services", "compose stop"),
    TableEntry("compose.inside", "TOP", "Show the processes of services", "compose top"),
    TableEntry("compose.lifecycle", "UNPAUSE", "Resume services", "compose unpause"),
    TableEntry("compose.lists", "VERSION", "Show the version", "compose version"),
    TableEntry("compose.lists", "VOLUMES", "List volumes", "compose volumes"),
    TableEntry("compose.lifecycle", "WAIT", "Wait until services' containers stop", "compose wait"),
    TableEntry("compose.looking", "DIFF", "Show what runs against what the file says", "compose diff"),
    TableEntry(
        "compose.looking", "EXPLAIN", "Show where each value of a service comes from", "compose explain"
    ),
    TableEntry(
        "compose.watch", "WATCH", "Sync, restart or rebuild services as files change", "compose watch"
    ),
    TableEntry("compose.history", "HISTORY", "List what a project was", "compose history"),
    TableEntry("compose.history", "ROLLBACK", "Bring a project to what it was", "compose rollback"),
    TableEntry("compose.trash", "LS", "List volumes that down -v has put aside", "compose trash ls"),
    TableEntry("compose.trash", "RESTORE", "Bring them back", "compose trash restore"),
    TableEntry("compose.trash", "EMPTY", "Remove them for good", "compose trash empty"),
    TableEntry("compose.viz", "VIZ", "Draw the services as a graph", "compose alpha viz"),
)

TABLE = (
    TableEntry("run", "RUN", "Create and run a new container from an image", "container run", "run"),
    TableEntry("exec", "EXEC", "Run a command in a running container", "container exec", "exec"),
    TableEntry("execs", "LS", "List the execs of a container (exec ls)", "container exec-ls"),
    TableEntry("execs", "STOP", "Stop execs of a container (exec stop)", "container exec-stop"),
    TableEntry("execs", "KILL", "Kill or signal execs of a container (exec kill)", "container exec-kill"),
    TableEntry("ps", "LS", "List containers", "container ls", "container list", "container ps", "ps"),
    TableEntry("build", "BUILD", "Build an image from a Dockerfile", "image build", "build", "builder build"),
    TableEntry("builder", "PRUNE", "Remove build cache", "builder prune"),
    TableEntry("builder", "DU", "Show what the build cache holds", "builder du"),
    TableEntry("builder", "HISTORY", "List builds", "builder history"),
    TableEntry("builder", "SHOW", "Show everything known about a build", "builder inspect"),
    TableEntry("builder", "FORGET", "Forget builds", "builder forget"),
    TableEntry("image", "LS", "List images", "image ls", "image list", "images"),
    TableEntry("version", "VERSION", "Show the versions of client and daemon", "version"),
    TableEntry("info", "INFO", "Show what the daemon is and has", "system info", "info"),
    TableEntry("attach", "ATTACH", _ATTACH, "container attach", "attach"),
    TableEntry("run", "CREATE", "Create a new container", "container create", "create"),
    TableEntry("commit", "COMMIT", "Make an image from a container's changes", "container commit", "commit"),
    TableEntry("cp", "CP", "Copy files between a container and the local file system", "container cp", "cp"),
    TableEntry(
        "diff", "DIFF", "Show what a container changed in its image's files", "container diff", "diff"
    ),
    TableEntry("events", "EVENTS", "Show the daemon's events as they happen", "system events", "events"),
    TableEntry(
        "diff", "EXPORT", "Export a container's file system as a tar archive", "container export", "export"
    ),
    TableEntry("image", "HISTORY", "Show the history of an image", "image history", "history"),
    TableEntry(
        "imagearchive", "IMPORT", "Make an image from a root file system tarball", "image import", "import"
    ),
    TableEntry("inspect", "INSPECT", "Show everything known about objects", "inspect"),
    TableEntry("lifecycle", "KILL", "Kill one or more running containers", "container kill", "kill"),
    TableEntry("imagearchive", "LOAD", "Load images from a tar archive or stdin", "image load", "load"),
    TableEntry("logs", "LOGS", "Show the logs of a container", "container logs", "logs"),
    TableEntry(
        "lifecycle", "PAUSE", "Pause all processes in one or more containers", "container pause", "pause"
    ),
    TableEntry("port", "PORT", "List a container's published ports", "container port", "port"),
    TableEntry("registry", "PULL", "Fetch an image from its registry", "image pull", "pull"),
    TableEntry("registry", "PUSH", "Send an image to its registry", "image push", "push"),
    TableEntry("registry", "COPY", "Copy an image from registry to registry", "image copy"),
    TableEntry("registry", "SEARCH", "Search a registry for repositories, or list tags", "search"),
    TableEntry("login", "LOGIN", "Log in to a registry", "login"),
    TableEntry("login", "LOGOUT", "Log out from a registry", "logout"),
    TableEntry("lifecycle", "RENAME", "Rename a container", "container rename", "rename"),
    TableEntry("lifecycle", "RESTART", "Restart one or more containers", "container restart", "restart"),
    TableEntry("lifecycle", "RM", "Remove one or more containers", "container rm", "container remove", "rm"),
    TableEntry("image", "RM", "Remove one or more images", "image rm", "image remove", "rmi"),
    TableEntry("imagearchive", "SAVE", "Save one or more images to a tar archive", "image save", "save"),
    TableEntry("start", "START", "Start one or more stopped containers", "container start", "start"),
    TableEntry("stats", "STATS", "Show what containers use, live", "container stats", "stats"),
    TableEntry("lifecycle", "STOP", "Stop one or more running containers", "container stop", "stop"),
    TableEntry("image", "TAG", "Give an image a further name", "image tag", "tag"),
    TableEntry("top", "TOP", "Show the processes of a container", "container top", "top"),
    TableEntry(
        "lifecycle",
        "UNPAUSE",
        "Resume all processes in one or more containers",
        "container unpause",
        "unpause",
    ),
    TableEntry(
        "update",
        "UPDATE",
        "Change limits, mounts, devices and ports of containers",
        "container update",
        "update",
    ),
    TableEntry(
        "lifecycle",
        "WAIT",
        "Wait until containers stop, then print their exit codes",
        "container wait",
        "wait",
    ),
    TableEntry("inspect", "CONTAINER", "Show everything known about containers", "container inspect"),
    TableEntry("prune", "CONTAINERS", "Remove all stopped containers", "container prune"),
    TableEntry("imagediff", "DIFF", "Show what makes one image differ from another", "image diff"),
    TableEntry("imageversions", "LOG", "Show what a name has pointed at", "image log"),
    TableEntry("imageversions", "ROLLBACK", "Point a name at an earlier image again", "image rollback"),
    TableEntry("imageversions", "TREE", "Draw which images share which layers", "image tree"),
    TableEntry("inspect", "IMAGE", "Show everything known about images", "image inspect"),
    TableEntry("prune", "IMAGES", "Remove unused images", "image prune"),
    TableEntry(
        "imagearchive", "BOOTSTRAP", "Make a base image from the distribution's packages", "image bootstrap"
    ),
    TableEntry("volume", "LS", "List volumes", "volume ls", "volume list"),
    TableEntry("volume", "CREATE", "Create a volume", "volume create"),
    TableEntry("inspect", "VOLUME", "Show everything known about volumes", "volume inspect"),
    TableEntry("cp", "VOLUME_CP", "Copy files between a volume and the local file system", "volume cp"),
    TableEntry("volume", "RENAME", "Rename a volume", "volume rename"),
    TableEntry("volumeversions", "CLONE", "Make a volume with the same data", "volume clone"),
    TableEntry("volumeversions", "DIFF", "Show what changed since a snapshot", "volume diff"),
    TableEntry("volumeversions", "DU", "Show what takes how much room in a volume", "volume du"),
    TableEntry("volumeversions", "EXPORT", "Export a volume as a tar archive", "volume export"),
    TableEntry("volumeversions", "IMPORT", "Make a volume of a tar archive", "volume import"),
    TableEntry("volumeregistry", "PULL", "Make a volume of one in a registry", "volume pull"),
    TableEntry("volumeregistry", "PUSH", "Send a volume to a registry", "volume push"),
    TableEntry("volumeversions", "SCHEDULE", "Show or set when snapshots are made", "volume schedule"),
    TableEntry("volumeversions", "SNAPSHOT_CREATE", "Keep what is in a volume now", "volume snapshot create"),
    TableEntry("volumeversions", "SNAPSHOT_LS", "List the snapshots of a volume", "volume snapshot ls"),
    TableEntry("volumeversions", "SNAPSHOT_RESTORE", "Go back to a snapshot", "volume snapshot restore"),
    TableEntry("volumeversions", "SNAPSHOT_RM", "Remove snapshots of a volume", "volume snapshot rm"),
    TableEntry("volume", "RM", "Remove one or more volumes", "volume rm", "volume remove"),
    TableEntry("prune", "VOLUMES", "Remove unused local volumes", "volume prune"),
    TableEntry("network", "LS", "List networks", "network ls", "network list"),
    TableEntry("network", "CONNECT", "Connect a container to a network", "network connect"),
    TableEntry("network", "CREATE", "Create a network", "network create"),
    TableEntry("network", "DISCONNECT", "Disconnect a container from a network", "network disconnect"),
    TableEntry("inspect", "NETWORK", "Show everything known about networks", "network inspect"),
    TableEntry("prune", "NETWORKS", "Remove all unused networks", "network prune"),
    TableEntry("network", "RM", "Remove one or more networks", "network rm", "network remove"),
    TableEntry("secret", "CREATE", "Create a secret from a file or STDIN", "secret create"),
    TableEntry(
        "secret", "INSPECT", "Show everything known about secrets, but their values", "secret inspect"
    ),
    TableEntry("secret", "LS", "List secrets", "secret ls", "secret list"),
    TableEntry("secret", "RM", "Remove one or more secrets", "secret rm", "secret remove"),
    TableEntry("context", "CREATE", "Create a context", "context create"),
    TableEntry("context", "EXPORT", "Export a context to a tar archive FILE or stdout", "context export"),
    TableEntry("context", "IMPORT", "Import a context from a tar or zip file", "context import"),
    TableEntry("manifest", "ANNOTATE", "Say more of a manifest in a local list", "manifest annotate"),
    TableEntry("manifest", "CREATE", "Create a local list of manifests", "manifest create"),
    TableEntry("manifest", "INSPECT", "Show a manifest, or a list of manifests", "manifest inspect"),
    TableEntry("manifest", "PUSH", "Push a list of manifests to its repository", "manifest push"),
    TableEntry("manifest", "RM", "Remove local lists of manifests", "manifest rm"),
    TableEntry("context", "INSPECT", "Show everything known about contexts", "context inspect"),
    TableEntry("context", "LS", "List contexts", "context ls", "context list"),
    TableEntry("context", "RM", "Remove one or more contexts", "context rm", "context remove"),
    TableEntry("context", "SHOW", "Print the name of the current context", "context show"),
    TableEntry("context", "UPDATE", "Update a context", "context update"),
    TableEntry("context", "USE", "Set the current context", "context use"),
    TableEntry("df", "DF", "Show how much disk wherry uses", "system df"),
    TableEntry("fsck", "FSCK", "Check the store of images, and mend it", "system fsck"),
    TableEntry("backup", "BACKUP", "Write everything of the daemon to one archive", "system backup"),
    TableEntry("backup", "RESTORE", "Put a backup below the empty root of a daemon", "system restore"),
    TableEntry("migrate", "DOCKER", "Take over what a stopped Docker has kept", "migrate docker"),
    TableEntry("migrate", "EXPORT_ALL", "Write everything out as archives for Docker", "export-all"),
    TableEntry("lost", "LS", "List what no row knew and was set aside", "system lost ls"),
    TableEntry("lost", "RESTORE", "Make a volume of what was set aside", "system lost restore"),
    TableEntry("lost", "RM", "Delete what was set aside", "system lost rm"),
    TableEntry("prune", "SYSTEM", "Remove unused data", "system prune"),
    TableEntry("dial", "DIAL", "Connect stdin and stdout to the daemon", "system dial-stdio", hidden=True),
    *COMPOSE,
    TableEntry("daemon", "START", "Start the daemon of this machine", "daemon start"),
    TableEntry("daemon", "STOP", "Stop the daemon; containers go on running", "daemon stop"),
    TableEntry("daemon", "STATUS", "Say whether the daemon runs", "daemon status"),
    TableEntry("daemon", "LOGS", "Show what the daemon wrote", "daemon logs"),
    TableEntry("completion", "BASH", "Completion script for bash", "completion bash"),
    TableEntry("completion", "ZSH", "Completion script for zsh", "completion zsh"),
    TableEntry("completion", "FISH", "Completion script for fish", "completion fish"),
    TableEntry("completion", "COMPLETE", "Complete a command line", "__complete", hidden=True),
)

COMMON = ("run", "exec", "ps", "build", "images", "version", "info")
"""The commands that help lists first."""

PLANNED = ("buildx checkpoint plugin trust swarm node service stack config").split()
PLANNED_IN_GROUPS = {
    "volume": "update",
    "completion": "powershell",
    "compose": "bridge",
}
"""Docker's commands that wherry does not have yet: they are refused with an error of their own, and not
completed."""

_BY_PATH = {path: entry for entry in TABLE for path in entry.paths}


def group_flags(group: str) -> Sequence[Flag]:
    """The flags between a group's name and its command's."""
    from importlib import import_module

    if group not in GROUP_FLAGS:
        return ()
    module, attribute = GROUP_FLAGS[group]
    flags: Sequence[Flag] = getattr(import_module(f"wherry.cli.{module}"), attribute)
    return flags


def find(words: Sequence[str]) -> FoundCommand:
    """Look up the longest path that ``words`` begin with."""
    if words[0] in GROUPS:
        triple = " ".join(words[:3])
        if len(words) > 2 and triple in _BY_PATH:
            return FoundCommand(_BY_PATH[triple], 3, f"wherry {triple}")
        pair = f"{words[0]} {words[1]}" if len(words) > 1 else ""
        if pair in _BY_PATH:
            entry = _BY_PATH[pair]
            return FoundCommand(entry, 2, f"wherry {canonical(entry, words[0])}")
        if pair in NESTED:
            return FoundCommand(None, 2, f"wherry {pair}")
        return FoundCommand(None, 1, f"wherry {words[0]}")
    if words[0] in _BY_PATH:
        return FoundCommand(_BY_PATH[words[0]], 1, f"wherry {words[0]}")
    return FoundCommand(None, 0, "wherry")


def canonical(entry: TableEntry, group: str) -> str:
    """The path of an entry in the help of a group."""
    return next(path for path in entry.paths if path.startswith(f"{group} "))


def load(entry: TableEntry) -> Command:
    """Import the module of an entry and return its command."""
    from importlib import import_module

    command: Command = getattr(import_module(f"{__name__}.{entry.module}"), entry.attribute)
    return command


def top_level() -> Iterator[tuple[str, TableEntry]]:
    """Commands of one word, in the table's order."""
    for entry in TABLE:
        for path in entry.paths:
            if " " not in path and not entry.hidden:
                yield path, entry


def in_group(group: str) -> Iterator[tuple[str, TableEntry]]:
    """A group's commands by name, aliases left out."""
    for entry in sorted(TABLE, key=lambda e: e.paths[0]):
        if not entry.hidden and any(path.startswith(f"{group} ") for path in entry.paths):
            yield canonical(entry, group).removeprefix(f"{group} "), entry


def is_planned(name: str) -> bool:
    """Whether ``name`` ("build", "network create") is a command of Docker that wherry does not have yet."""
    group, _, command = name.partition(" ")
    return name in PLANNED or (bool(command) and command in PLANNED_IN_GROUPS.get(group, "").split())


def suggestion(word: str, group: str = "") -> str:
    """A hint for a mistyped command: similar names in the group."""
    from difflib import get_close_matches

    names = [path for path, _ in top_level()] + list(GROUPS)
    if group:
        below = f"{group} "
        paths = (p for entry in TABLE if not entry.hidden for p in entry.paths if p.startswith(below))
        names = list(dict.fromkeys(path.removeprefix(below).partition(" ")[0] for path in paths))
    close = get_close_matches(word, names, n=3, cutoff=0.7)
    return "\n\nDid you mean this?\n" + "\n".join(f"\t{name}" for name in close) if close else ""
