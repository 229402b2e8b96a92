"""What root may do in a container by default, and what not: each attempt is made, in one container for all.

Most system calls have no program in busybox. perl makes any by number, and every Debian has one; it comes in
with its libraries as read-only binds. Every refusal is shown to come from the profile: the same attempts go
through in a container that is given the right (``--privileged``, or ``seccomp=unconfined`` where no
capability stands before them), but for those this kernel has not.
"""

from __future__ import annotations

import errno
import platform
from pathlib import Path

import pytest
from daemonlab import LabDaemon

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not Path("/usr/bin/perl").exists(), reason="the distribution's perl is not there"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="numbers of other machines"),
]

X86 = platform.machine() == "x86_64"
# name: (number on x86_64, number on aarch64); one number where both have the same
NUMBERS: dict[str, tuple[int, int]] = {
    "socket": (41, 198), "clone": (56, 220), "kill": (62, 129), "ptrace": (101, 117), "syslog": (103, 116),
    "chroot": (161, 51), "pivot_root": (155, 41), "acct": (163, 89), "settimeofday": (164, 170),
    "mount": (165, 40), "umount2": (166, 39), "swapon": (167, 224), "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, -1), "ioperm": (173, -1),
    "init_module": (175, 105), "delete_module": (176, 106), "quotactl": (179, 60), "personality": (135, 92),
    "clock_settime": (227, 112), "exit_group": (231, 94), "kexec_load": (246, 104), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "mknodat": (259, 33), "unshare": (272, 97),
    "perf_event_open": (298, 241), "fanotify_init": (300, 262), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "setns": (308, 268), "process_vm_readv": (310, 270), "kcmp": (312, 272),
    "finit_module": (313, 273), "bpf": (321, 280), "userfaultfd": (323, 282), "lookup_dcookie": (212, 18),
    "io_uring_setup": (425, 425), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "pidfd_open": (434, 434), "clone3": (435, 435), "pidfd_getfd": (438, 438), "mount_setattr": (442, 442),
    "quotactl_fd": (443, 443),
}  # fmt: skip
HEAD = r"""
$| = 1;
sub attempt {
  my ($name, $code) = @_;
  pipe(my $in, my $out);
  if (!fork()) {
    alarm 5;
    $! = 0;
    my $result = $code->();
    my $error = $! + 0;
    syswrite($out, defined $result && $result ne "-1" ? "done" : $error);
    exit 0;
  }
  close $out;
  sysread($in, my $line, 200);
  wait();
  print "$name\t", $line // "died", "\n";
}
sub child { my $p = call($CLONE, @_, 0, 0, 0, 0); call($EXIT, 0) if !$p; return $p }
sub call {
  my $n = shift; my @a = (@_, (0) x (6 - @_)); syscall($n, $a[0], $a[1], $a[2], $a[3], $a[4], $a[5])
}
sub reads { my ($p) = @_; open(my $f, "<", $p) or return; return sysread($f, my $b, 1) ? 1 : undef }
sub lists { my ($p) = @_; opendir(my $d, $p) or return; return grep(!/^\./, readdir $d) ? 1 : undef }
sub opens { my ($p) = @_; return sysopen(my $f, $p, 1) ? 1 : undef }
sub node { my ($kind, $major, $minor) = @_; my $p = "/tmp/n$$";
  call($MKNOD, -100, $p, $kind, $major << 8 | $minor) == 0 or return;
  return sysopen(my $f, $p, 2048) ? 1 : undef
}
"""
CLONES = {
    "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000,
    "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip


def call(name: str, *arguments: str | int) -> str:
    """The call in perl; a str is perl itself, so a string's pointer is a quoted one."""
    return f"call({', '.join(map(str, (NUMBERS[name][0 if X86 else 1], *arguments)))})"


NEED_CAPABILITIES = {
    "mount": call("mount", '"none"', '"/tmp"', '"tmpfs"', 0, 0),
    "remount": call("mount", '"none"', '"/sys"', 0, 32, 0),
    "umount": call("umount2", '"/proc/acpi"', 0),
    "pivot_root": call("pivot_root", '"/"', '"/"'),
    "open_tree": call("open_tree", -100, '"/"', 1),
    "fsopen": call("fsopen", '"tmpfs"', 0),
    "mount_setattr": call("mount_setattr", -100, '"/"', 0, 'pack("x32")', 32),
    "move_mount": call("move_mount", -1, '""', -1, '""', 4),
    **{f"unshare {kind}": call("unshare", flag) for kind, flag in CLONES.items() if kind != "user"},
    **{f"clone {kind}": f"child({flag} | 17)" for kind, flag in CLONES.items() if kind != "user"},
    "setns": f"open(my $f, '<', '/proc/self/ns/net'); {call('setns', 'fileno($f)', 0)}",
    "setns of a pidfd": f"my $p = {call('pidfd_open', '$$', 0)}; {call('setns', '$p', 0x4000000)}",
    "kexec_load": call("kexec_load", 0, 0, 0, 0),
    "init_module": call("init_module", '"x"', 1, '""'),
    "finit_module": f"open(my $f, '<', '/bin/busybox'); {call('finit_module', 'fileno($f)', chr(34) * 2, 0)}",
    "delete_module": call("delete_module", '"none_such"', 0x800),
    "reboot": call("reboot", 1, 2, 3, 0),
    "swapon": call("swapon", '"/none"', 0),
    "swapoff": call("swapoff", '"/none"'),
    "settimeofday": call("settimeofday", 'pack("q2", -1, -1)', 0),
    "clock_settime": call("clock_settime", 0, 'pack("q2", -1, -1)'),
    "sethostname": call("sethostname", '"other"', 5),
    "setdomainname": call("setdomainname", '"other"', 5),
    "quotactl": call("quotactl", 0x80000700, '"/none"', 0, 0),
    "quotactl_fd": call("quotactl_fd", 0, 0x80000700, 0, 0),
    "syslog": call("syslog", 3, '"x" x 100', 100),
    "acct": call("acct", '"/none"'),
    "fanotify_init": call("fanotify_init", 0, 0),
    "perf_event_open": call("perf_event_open", 'pack("LLQx112", 1, 128, 0)', 0, -1, -1, 0),
    **({"iopl": call("iopl", 3), "ioperm": call("ioperm", 128, 1, 1)} if X86 else {}),
    "kcmp": call("kcmp", "$$", "$$", 0, 0, 1),
    "pidfd_getfd": f"my $p = {call('pidfd_open', '$$', 0)}; {call('pidfd_getfd', '$p', 0, 0)}",
    "lookup_dcookie": call("lookup_dcookie", 0, '"x" x 100', 100),
    "bpf": call("bpf", 0, 'pack("LLLLx112", 2, 4, 8, 1)', 128),
    "open_by_handle_at": f"my $h = pack('Llx128', 128, 0); my $m = pack('l', 0); "
    f"{call('name_to_handle_at', -100, chr(34) + '/etc/hosts' + chr(34), '$h', '$m', 0)}; "
    f"open(my $f, '<', '/etc/hosts'); {call('open_by_handle_at', 'fileno($f)', '$h', 0)}",
    "kernel log": "opens('/dev/kmsg') || node(020666, 1, 11)",
    "disk": "node(060666, 7, 0)",
    "memory": "node(020666, 1, 1)",
    "ports": "node(020666, 1, 4)",
    "tunnel": "node(020666, 10, 200)",
    "fuse": "node(020666, 10, 229)",
    "loop control": "node(020666, 10, 237)",
    "console of the host": "node(020666, 4, 1)",
    "sysctl": "opens('/proc/sys/kernel/core_pattern')",
    "sysrq": "opens('/proc/sysrq-trigger')",
    "interrupts": "opens('/proc/irq/default_smp_affinity')",
    "sysfs": "opens('/sys/kernel/mm/ksm/run')",
    "parameters of modules": "opens('/sys/module/kernel/parameters/panic')",
    "queue of a disk": "opens('/sys/block/loop0/queue/read_ahead_kb')",
}
NEED_NOTHING = {
    "unshare user": call("unshare", CLONES["user"]),
    "clone user": f"child({CLONES['user']} | 17)",
    "add_key": call("add_key", '"user"', '"x"', '"y"', 1, -2),
    "request_key": call("request_key", '"user"', '"x"', 0, -2),
    "keyctl": call("keyctl", 0, -3, 1),
    "userfaultfd": call("userfaultfd", 1),
    "io_uring_setup": call("io_uring_setup", 1, 'pack("x120")'),
    "personality": call("personality", 0x0040000),
    "vsock": call("socket", 40, 1, 0),
    # the kernel takes an int and forgets the upper half; a filter sees all of it
    "vsock behind 32 bits": call("socket", (1 << 32) + 40, 1, 0),
    "alg": call("socket", 38, 5, 0),
    "alg behind 32 bits": call("socket", (1 << 32) + 38, 5, 0),
}
READ_ONLY = {"sysctl", "sysrq", "interrupts", "sysfs", "parameters of modules", "queue of a disk"}
MASKED = {
    path: f"reads('{path}')" for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts")
}
MASKED |= {path: f"lists('{path}')" for path in ("/proc/acpi", "/proc/scsi", "/sys/firmware")}
CGROUPS = """
for (</sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs>) { return 1 if opens($_) }
for (</sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent>) { return 1 if opens($_) }
for (grep -d, </sys/fs/cgroup /sys/fs/cgroup/*>) { my @s = stat "$_/cgroup.procs"; next unless @s;
  return 1 if mkdir "$_/made-by-a-test" and rmdir "$_/made-by-a-test" }
return undef
""".replace("\n", " ")
ALLOWED = {
    "chown": "chown(1, 1, '/tmp') || undef",
    "mknod": call("mknodat", -100, '"/tmp/zero"', 0o20666, 0x105),
    "chroot": "chroot('/proc') || undef",
    "a raw socket": call("socket", 2, 3, 1),
    "a packet socket": call("socket", 17, 3, 0),
    "a netlink socket": call("socket", 16, 3, 0),
    "a unix socket": call("socket", 1, 1, 0),
    "xdp": call("socket", 44, 3, 0),
    "being traced": call("ptrace", 0, 0, 0, 0),
    "tracing a child": f"my $p = fork(); sleep 9, exit if !$p; my $r = {call('ptrace', 16, '$p', 0, 0)}; "
    "kill 9, $p; $r",
    "handles": "my $h = pack('Llx128', 128, 0); my $m = pack('l', 0); "
    + call("name_to_handle_at", -100, '"/etc/hosts"', "$h", "$m", 0),
    "zero": "node(020666, 1, 5)",
}


def outcomes(daemon: LabDaemon, table: dict[str, str], *flags: str) -> dict[str, str]:
    """What became of each attempt, in one container: ``done`` or the name of an errno."""
    head = HEAD
    for word in ("clone", "exit_group", "mknodat"):
        variable = {"clone": "$CLONE", "exit_group": "$EXIT", "mknodat": "$MKNOD"}[word]
        head = head.replace(variable, str(NUMBERS[word][0 if X86 else 1]))
    lines = [f"attempt('{name}', sub {{ {code} }});" for name, code in table.items()]
    binds = ["-v", "/usr:/usr:ro", "-v", "/usr/lib:/lib:ro"]
    if Path("/lib64").exists():
        binds += ["-v", "/lib64:/lib64:ro"]
    done = daemon.docker(
        *("run", "--rm", "-i", *binds, *flags, "busybox", "/usr/bin/perl", "-"),
        input="\n".join([head, *lines, ""]).encode(),
    )
    pairs = (line.split("\t") for line in done.ok().splitlines())
    return {n: errno.errorcode.get(int(o), o) if o.isdigit() else o for n, o in pairs}


def test_refused(daemon: LabDaemon) -> None:
    table = {**NEED_CAPABILITIES, **NEED_NOTHING}
    expected = {name: "EROFS" if name in READ_ONLY else "EPERM" for name in table}
    if not Path("/proc/sysrq-trigger").exists():
        expected["sysrq"] = "ENOENT"
    assert outcomes(daemon, table) == expected


def test_refused_by_the_capabilities_alone(daemon: LabDaemon) -> None:
    """Without the filter, what matters most is still refused: two walls, not one."""
    kept = {
        n: c for n, c in NEED_CAPABILITIES.items() if n.startswith(("mount", "unshare", "clone", "setns"))
    }
    kept |= {n: NEED_CAPABILITIES[n] for n in ("reboot", "sethostname", "bpf", "open_by_handle_at", "swapon")}
    assert set(outcomes(daemon, kept, "--security-opt", "seccomp=unconfined").values()) == {"EPERM"}


def test_the_same_goes_through_where_it_is_allowed(daemon: LabDaemon) -> None:
    """Whatever comes instead of EPERM comes from behind the defence."""
    absent = {"ENOSYS", "EAFNOSUPPORT"}
    free = outcomes(daemon, NEED_CAPABILITIES, "--privileged")
    assert not {n: o for n, o in free.items() if o in ("EPERM", "EROFS")}
    assert [*free.values()].count("done") > len(free) / 2
    loose = outcomes(daemon, NEED_NOTHING, "--security-opt", "seccomp=unconfined")
    assert not {n: o for n, o in loose.items() if o != "done" and o not in absent | {"ENOKEY"}}


def test_clone3_is_said_to_be_absent(daemon: LabDaemon) -> None:
    """A filter cannot read its flags, and libraries then use clone."""
    attempt = {"clone3": call("clone3", 'pack("Qx80", 0x10000000)', 88)}
    assert outcomes(daemon, attempt) == {"clone3": "ENOSYS"}


def test_allowed(daemon: LabDaemon) -> None:
    assert outcomes(daemon, ALLOWED) == dict.fromkeys(ALLOWED, "done")


def test_masked(daemon: LabDaemon) -> None:
    """An empty device or directory stands before what tells about the host, or it is not there at all."""
    assert "done" not in outcomes(daemon, MASKED).values()
    assert outcomes(daemon, MASKED, "--security-opt", "systempaths=unconfined")["/proc/interrupts"] == "done"


def test_cgroups_cannot_be_written(daemon: LabDaemon) -> None:
    assert outcomes(daemon, {"cgroups": CGROUPS})["cgroups"] in ("EROFS", "EACCES", "ENOENT")
    assert outcomes(daemon, {"cgroups": CGROUPS}, "--privileged") == {"cgroups": "done"}


@pytest.mark.parametrize("user", ["0", "1000"])
def test_privileges_of_a_process(daemon: LabDaemon, user: str) -> None:
    """Docker's fourteen capabilities and no more; nothing to inherit (CVE-2022-29162), in execs as well."""
    granted = sum(1 << n for n in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))
    own = granted if user == "0" else 0
    identifier = daemon.docker("run", "-d", "-u", user, "busybox", "sleep", "1000").ok()
    for reader in (f"/proc/{daemon.pid_of(identifier)}/status", ""):
        text = (
            Path(reader).read_text()
            if reader
            else daemon.docker("exec", identifier, "cat", "/proc/self/status").ok()
        )
        status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        found = {key: int(status[key], 16) for key in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")}
        assert found == {"CapBnd": granted, "CapEff": own, "CapPrm": own, "CapInh": 0, "CapAmb": 0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")


def test_nothing_of_the_host_is_visible(daemon: LabDaemon) -> None:
    """Processes, signals, memory: by number or by name, the host's are not there."""
    attempts = {
        "a crowd": "my @p = grep m{/[0-9]+$}, </proc/*>; return @p > 4 ? 1 : opens('/nothing')",
        "a signal": f"{call('kill', daemon.pid, 0)}",
        "its memory": f"open(my $f, '<', '/proc/{daemon.pid}/mem') ? 1 : undef",
        "a trace": call("ptrace", 16, daemon.pid, 0, 0),
        "a copy": f"my $v = pack('PQ', 'x' x 8, 8); {call('process_vm_readv', daemon.pid, '$v', 1, '$v', 1)}",
    }
    assert set(outcomes(daemon, attempts).values()) <= {"ESRCH", "ENOENT"}
    seen = outcomes(daemon, attempts, "--pid", "host")
    assert seen["a signal"] == seen["a crowd"] == "done"
