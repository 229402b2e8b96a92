"""The flags of ``run`` and ``create``."""

from __future__ import annotations

from wherry.cli.create import kinds
from wherry.cli.create.mounts import parse_mount
from wherry.cli.create.networks import parse_network
from wherry.cli.create.secrets import parse_secret
from wherry.cli.grammar.flags import Flag
from wherry.cli.grammar.values import (
    BOOL,
    BYTES,
    CPUS,
    DURATION,
    ENV,
    INT,
    LABELS,
    LIST,
    MAP,
    STRING,
    SWAP_BYTES,
    UINT16,
    Kind,
)

MOUNT = Kind("mount", parse_mount, repeats=True)
SECRET = Kind("secret", parse_secret, repeats=True)
NETWORK = Kind("network", parse_network, repeats=True)

PROCESS = (
    Flag("entrypoint", "", STRING, "Overwrite the default ENTRYPOINT of the image"),
    Flag("env", "e", ENV, "Set environment variables"),
    Flag("env-file", "", LIST, "Read in a file of environment variables", complete="file"),
    Flag("group-add", "", LIST, "Add additional groups to join"),
    Flag("init", "", BOOL, "Run an init inside the container that forwards signals and reaps processes"),
    Flag("interactive", "i", BOOL, "Keep STDIN open even if not attached"),
    Flag("stop-signal", "", STRING, "Signal to stop the container"),
    Flag("stop-timeout", "", INT, "Timeout (in seconds) to stop a container"),
    Flag("tty", "t", BOOL, "Allocate a pseudo-TTY"),
    Flag("user", "u", STRING, "Username or UID (format: <name|uid>[:<group|gid>])"),
    Flag("workdir", "w", STRING, "Working directory inside the container"),
)

IDENTITY = (
    Flag(
        "annotation",
        "",
        MAP,
        "Add an annotation to the container (passed through to the OCI runtime)",
        shown="map[]",
    ),
    Flag("attach", "a", kinds.ATTACH, "Attach to STDIN, STDOUT or STDERR", complete="stdin stdout stderr"),
    Flag("cidfile", "", STRING, "Write the container ID to the file", complete="file"),
    Flag("domainname", "", STRING, "Container NIS domain name"),
    Flag("hostname", "h", STRING, "Container host name"),
    Flag("label", "l", LABELS, "Set meta data on a container"),
    Flag("label-file", "", LIST, "Read in a line delimited file of labels", complete="file"),
    Flag("name", "", STRING, "Assign a name to the container"),
    Flag("platform", "", STRING, "Set platform if server is multi-platform capable"),
    Flag(
        "pull",
        "",
        STRING,
        'Pull image before running ("always", "missing", "never")',
        default="missing",
        shown='"missing"',
        complete="always missing never",
    ),
    Flag("quiet", "q", BOOL, "Suppress the pull output"),
    Flag(
        "restart",
        "",
        STRING,
        "Restart policy to apply when a container exits",
        default="no",
        shown='"no"',
        complete="no always on-failure unless-stopped",
    ),
    Flag(
        "rm",
        "",
        BOOL,
        "Automatically remove the container and its associated anonymous volumes when it exits",
    ),
    Flag("runtime", "", STRING, "Runtime to use for this container"),
)

ISOLATION = (
    Flag("cap-add", "", LIST, "Add Linux capabilities"),
    Flag("cap-drop", "", LIST, "Drop Linux capabilities"),
    Flag("cgroup-parent", "", STRING, "Optional parent cgroup for the container"),
    Flag(
        "cgroupns",
        "",
        STRING,
        "Cgroup namespace to use (host|private); the daemon's default-cgroupns-mode when empty",
        complete="host private",
    ),
    Flag("device", "", LIST, "Add a host device to the container", complete="file"),
    Flag("device-cgroup-rule", "", kinds.CGROUP_RULES, "Add a rule to the cgroup allowed devices list"),
    Flag("gpus", "", kinds.GPUS, "GPU devices to add to the container ('all' to pass all GPUs)"),
    Flag("ipc", "", STRING, "IPC mode to use"),
    Flag("isolation", "", STRING, "Container isolation technology"),
    Flag("pid", "", STRING, "PID namespace to use"),
    Flag("privileged", "", BOOL, "Give extended privileges to this container"),
    Flag("read-only", "", BOOL, "Mount the container's root filesystem as read only"),
    Flag("security-opt", "", LIST, "Security Options"),
    Flag("sysctl", "", kinds.SYSCTLS, "Sysctl options", shown="map[]"),
    Flag("use-api-socket", "", BOOL, "Bind mount the daemon's API socket, and copy the registry logins"),
    Flag("userns", "", STRING, "User namespace to use"),
    Flag("uts", "", STRING, "UTS namespace to use"),
)

RESOURCES = (
    Flag(
        "blkio-weight",
        "",
        UINT16,
        "Block IO (relative weight), between 10 and 1000, or 0 to disable",
        shown="0",
    ),
    Flag(
        "blkio-weight-device", "", kinds.WEIGHT_DEVICE, "Block IO weight (relative device weight)", shown="[]"
    ),
    Flag("cpu-period", "", INT, "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag("cpu-quota", "", INT, "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag("cpu-rt-period", "", INT, "Limit CPU real-time period in microseconds"),
    Flag("cpu-rt-runtime", "", INT, "Limit CPU real-time runtime in microseconds"),
    Flag("cpu-shares", "c", INT, "CPU shares (relative weight)"),
    Flag("cpus", "", CPUS, "Number of CPUs"),
    Flag("cpuset-cpus", "", STRING, "CPUs in which to allow execution (0-3, 0,1)"),
    Flag("cpuset-mems", "", STRING, "MEMs in which to allow execution (0-3, 0,1)"),
    Flag(
        "device-read-bps",
        "",
        kinds.THROTTLE_BPS,
        "Limit read rate (bytes per second) from a device",
        shown="[]",
    ),
    Flag(
        "device-read-iops",
        "",
        kinds.THROTTLE_IOPS,
        "Limit read rate (IO per second) from a device",
        shown="[]",
    ),
    Flag(
        "device-write-bps",
        "",
        kinds.THROTTLE_BPS,
        "Limit write rate (bytes per second) to a device",
        shown="[]",
    ),
    Flag(
        "device-write-iops",
        "",
        kinds.THROTTLE_IOPS,
        "Limit write rate (IO per second) to a device",
        shown="[]",
    ),
    Flag("kernel-memory", "", BYTES, "Kernel memory limit"),
    Flag("memory", "m", BYTES, "Memory limit"),
    Flag("memory-reservation", "", BYTES, "Memory soft limit"),
    Flag(
        "memory-swap",
        "",
        SWAP_BYTES,
        "Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
    ),
    Flag("memory-swappiness", "", INT, "Tune container memory swappiness (0 to 100)", default=-1, shown="-1"),
    Flag("oom-kill-disable", "", BOOL, "Disable OOM Killer"),
    Flag("oom-score-adj", "", INT, "Tune host's OOM preferences (-1000 to 1000)"),
    Flag("pids-limit", "", INT, "Tune container pids limit (set -1 for unlimited)"),
    Flag("shm-size", "", BYTES, "Size of /dev/shm"),
    Flag("ulimit", "", kinds.ULIMIT, "Ulimit options", shown="[]"),
)

STORAGE = (
    Flag("log-driver", "", STRING, "Logging driver for the container"),
    Flag("log-opt", "", LIST, "Log driver options"),
    Flag("mount", "", MOUNT, "Attach a filesystem mount to the container"),
    Flag("secret", "", SECRET, "Give the container a secret (NAME[,target=,uid=,gid=,mode=])"),
    Flag("storage-opt", "", LIST, "Storage driver options for the container"),
    Flag("tmpfs", "", LIST, "Mount a tmpfs directory"),
    Flag("volume", "v", LIST, "Bind mount a volume", complete="volume"),
    Flag("volume-driver", "", STRING, "Optional volume driver for the container"),
    Flag("volumes-from", "", LIST, "Mount volumes from the specified container(s)", complete="container"),
)

NETWORKS = (
    Flag("add-host", "", kinds.EXTRA_HOSTS, "Add a custom host-to-IP mapping (host:ip)"),
    Flag("dns", "", kinds.ADDRESSES, "Set custom DNS servers"),
    Flag("dns-opt", "", LIST, "Set DNS options", hidden=True),
    Flag("dns-option", "", LIST, "Set DNS options"),
    Flag("dns-search", "", kinds.DNS_SEARCH, "Set custom DNS search domains"),
    Flag("expose", "", LIST, "Expose a port or a range of ports"),
    Flag("ip", "", STRING, "IPv4 address (e.g., 172.30.100.104)"),
    Flag("ip6", "", STRING, "IPv6 address (e.g., 2001:db8::33)"),
    Flag("link", "", kinds.LINKS, "Add link to another container", complete="container"),
    Flag("link-local-ip", "", kinds.ADDRESSES, "Container IPv4/IPv6 link-local addresses"),
    Flag("mac-address", "", STRING, "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    Flag("net", "", NETWORK, "Connect a container to a network", hidden=True),
    Flag("net-alias", "", LIST, "Add network-scoped alias for the container", hidden=True),
    Flag("network", "", NETWORK, "Connect a container to a network", complete="network"),
    Flag("network-alias", "", LIST, "Add network-scoped alias for the container"),
    Flag("publish", "p", LIST, "Publish a container's port(s) to the host"),
    Flag("publish-all", "P", BOOL, "Publish all exposed ports to random ports"),
)

HEALTH = (
    Flag("health-cmd", "", STRING, "Command to run to check health"),
    Flag("health-interval", "", DURATION, "Time between running the check (ms|s|m|h)", shown="0s"),
    Flag(
        "health-on-failure",
        "",
        STRING,
        "What to do with the container when it becomes unhealthy (none|restart|stop|kill)",
        shown='"none"',
        complete="none restart stop kill",
    ),
    Flag("health-retries", "", INT, "Consecutive failures needed to report unhealthy"),
    Flag(
        "health-start-interval",
        "",
        DURATION,
        "Time between running the check during the start period (ms|s|m|h)",
        shown="0s",
    ),
    Flag(
        "health-start-period",
        "",
        DURATION,
        "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h)",
        shown="0s",
    ),
    Flag("health-timeout", "", DURATION, "Maximum time to allow one check to run (ms|s|m|h)", shown="0s"),
    Flag("no-healthcheck", "", BOOL, "Disable any container-specified HEALTHCHECK"),
)

WINDOWS = (
    Flag("cpu-count", "", INT, "CPU count (Windows only)", hidden=True),
    Flag("cpu-percent", "", INT, "CPU percent (Windows only)", hidden=True),
    Flag(
        "io-maxbandwidth",
        "",
        BYTES,
        "Maximum IO bandwidth limit for the system drive (Windows only)",
        hidden=True,
    ),
    Flag("io-maxiops", "", INT, "Maximum IOps limit for the system drive (Windows only)", hidden=True),
)
"""Listed only to refuse them with an error of their own."""

CREATE = WINDOWS + PROCESS + IDENTITY + ISOLATION + RESOURCES + STORAGE + NETWORKS + HEALTH
