"""Hostile contexts and Dockerfiles: each tries to reach what is not its own, or to wear the daemon out."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from buildlab import archive, build, built, cat, error, post, stream, web, write
from daemonlab import LabDaemon, wait_until

SECRET = "outside of everything"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"file": "content"})


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of the host's that no build may read."""
    path = tmp_path / "outside"
    path.write_text(SECRET)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_of_a_context_stay_in_it(daemon: LabDaemon, context: Path, outside: Path) -> None:
    (context / "absolute").symlink_to(outside)
    (context / "climbing").symlink_to("../" * 30 + str(outside)[1:])
    (context / "up").symlink_to("..")
    for source in ("absolute", "climbing", "up/outside", "../outside"):
        write(context, {"Dockerfile": f"FROM busybox\nCOPY {source} /x\n"})
        assert "not found" in build(daemon, context).errors
        body = archive({"Dockerfile": f"FROM busybox\nCOPY {source} /x\n"}, [link("absolute", str(outside))])
        assert "not found" in error(post(daemon, body))
    write(context, {"Dockerfile": "FROM busybox\nCOPY . /all\nRUN ls -l /all && ! cat /all/absolute\n"})
    built(daemon, context)


def test_links_of_a_stage_stay_in_it(daemon: LabDaemon, context: Path, outside: Path) -> None:
    made = f"FROM busybox AS s\nRUN ln -s {outside} /abs; ln -s / /root-link; ln -s ../../../.. /up\n"
    for source in ("/abs", f"/root-link{outside}", f"/up{outside}"):
        for line in (f"COPY --from=s {source} /x", f"RUN --mount=from=s,source={source},target=/x cat /x"):
            write(context, {"Dockerfile": f"{made}FROM busybox\n{line}\n"})
            failed = build(daemon, context)
            assert failed.code != 0 and "not found" in failed.errors and SECRET not in failed.errors
    write(context, {"Dockerfile": f"{made}FROM busybox\nCOPY --from=s /root-link/bin/sh /x\n"})
    built(daemon, context)


def test_a_destination_that_is_a_link_stays_in_the_image(
    daemon: LabDaemon, context: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    text = f"FROM busybox\nRUN ln -s {target} /out && mkdir -p {target}\n"
    text += "COPY file /out/\nADD a.tar /out/\nWORKDIR /out/w\n"
    write(context, {"Dockerfile": text, "a.tar": archive({"packed": "p"})})
    image = built(daemon, context)
    assert (
        list(target.iterdir()) == []
        and cat(daemon, image, f"{target}/file", f"{target}/packed") == "contentp"
    )
    assert "CREATED" not in build(daemon, context, "--no-cache").errors


def test_a_file_never_becomes_a_directory(daemon: LabDaemon, context: Path) -> None:
    write(context, {"Dockerfile": "FROM busybox\nCOPY d /etc/passwd\n", "d/x": "y"})
    assert "cannot copy to non-directory" in build(daemon, context).errors
    write(context, {"Dockerfile": "FROM busybox\nRUN mkdir /d/ && mkdir /d/file\nCOPY file /d/\n"})
    assert "with file" in build(daemon, context).errors


def test_archives_that_leave_their_destination(daemon: LabDaemon, outside: Path) -> None:
    bad = {
        "climbs": archive({"../../../../../evil": "x"}),
        "through a link": archive({}, [link("l", "/"), tarfile.TarInfo("l/evil-dir/x")]),
        "hard link": archive({}, [link("h", "../../../../../../" + str(outside), tarfile.LNKTYPE)]),
    }
    for what, inner in bad.items():
        dockerfile = "FROM busybox\nADD a.tar /d/\nRUN cat /d/h 2>/dev/null; ls -la / /d\n"
        answer = post(daemon, archive({"Dockerfile": dockerfile, "a.tar": inner}))
        assert SECRET.encode() not in answer.body, what
        assert answer.status != 200 or b'"error"' in answer.body or what == "through a link"
    assert not Path("/evil").exists() and not Path("/evil-dir").exists()


@pytest.mark.parametrize(
    "members",
    [
        [tarfile.TarInfo("../escape")],
        [link("l", "../../.."), tarfile.TarInfo("l/../../escape")],
        [link("h", "../../../../etc/shadow", tarfile.LNKTYPE)],
    ],
)
def test_contexts_that_leave_their_directory(daemon: LabDaemon, members: list[tarfile.TarInfo]) -> None:
    answer = post(daemon, archive({"Dockerfile": "FROM busybox\n"}, members))
    assert answer.status == 400, answer.body
    # the context is removed after the answer; what a name led outside would stay
    wait_until(lambda: not any((daemon.root / "build" / "contexts").glob("once-*")))
    assert not any((daemon.root / "build").rglob("escape"))


def test_device_nodes_are_no_part_of_a_context(daemon: LabDaemon) -> None:
    node = tarfile.TarInfo("disk")
    node.type, node.devmajor, node.devminor = tarfile.BLKTYPE, 8, 0
    assert "device nodes" in error(post(daemon, archive({"Dockerfile": "FROM busybox\n"}, [node])))


def test_contexts_that_are_broken(daemon: LabDaemon) -> None:
    whole = archive({"Dockerfile": "FROM busybox\n", "big": "x" * 5000})
    assert post(daemon, whole[:2000]).status == 400
    assert post(daemon, b"\x1f\x8bnonsense").status == 400
    assert post(daemon, b"nonsense" * 100).status == 400
    assert "Cannot locate specified Dockerfile" in error(post(daemon, b""))
    assert "Cannot locate" in error(post(daemon, archive({"x": "y"}), dockerfile="../../etc/passwd"))


def test_targets_of_mounts_stay_in_the_container(daemon: LabDaemon, context: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    for kind in ("type=cache", "type=tmpfs", "type=bind"):
        text = f"FROM busybox\nRUN ln -s {target} /t && mkdir -p {target}\n"
        text += f"RUN --mount={kind},target=/t/in touch /t/in/x || true\n"
        write(context, {"Dockerfile": text})
        built(daemon, context)
        assert list(target.iterdir()) == [], kind
    for place in ("/proc", "/proc/self", "/proc/sys/kernel"):
        write(context, {"Dockerfile": f"FROM busybox\nRUN --mount=type=tmpfs,target={place} true\n"})
        assert "/proc" in build(daemon, context).errors


def test_what_is_made_to_mount_on_is_gone_and_nothing_else(daemon: LabDaemon, context: Path) -> None:
    """The step moves the mount point's directory away and puts links in its place."""
    text = """\
FROM busybox
RUN mkdir /keep && touch /keep/a
RUN --mount=type=tmpfs,target=/made/by/engine mv /made/by /moved 2>/dev/null; ln -s /keep /made/by2; true
RUN test -e /keep/a && ! test -e /made/by/engine
"""
    write(context, {"Dockerfile": text})
    built(daemon, context)


def test_cache_mounts_lead_nowhere(daemon: LabDaemon, context: Path, outside: Path, name: str) -> None:
    """A cache's content is hostile by the next build: links in it resolve within it."""
    mount = f"--mount=type=cache,id={name},target=/c"
    write(context, {"Dockerfile": f"FROM busybox\nRUN {mount} ln -s {outside.parent} /c/l\n"})
    built(daemon, context)
    line = f"RUN --mount=type=cache,id={name},target=/d,source=l cat /d/{outside.name}"
    write(context, {"Dockerfile": f"FROM busybox\n{line}\n"})
    failed = build(daemon, context)
    assert failed.code != 0 and SECRET not in failed.errors


def test_secrets_stay_where_they_are(daemon: LabDaemon, context: Path, name: str) -> None:
    secret = "hunter2-" + name
    (context.parent / "secret").write_text(secret)
    mounts = "--mount=type=secret,id=s,target=/s --mount=type=secret,id=s,env=S"
    text = f'FROM busybox\nRUN {mounts} test -n "$S" && wc -c /s\n'
    write(context, {"Dockerfile": text})
    arguments = ("--secret", f"id=s,src={context.parent}/secret", "--provenance", "mode=max", "-t", name)
    image = built(daemon, context, *arguments)
    history = daemon.docker("history", "--no-trunc", image).ok()
    assert secret not in history and secret not in daemon.log
    found = subprocess.run(
        ["grep", "-rl", "--binary-files=text", secret, str(daemon.root), str(daemon.run)],
        capture_output=True,
        check=False,
    )
    assert found.stdout == b"", found.stdout
    write(context, {"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=missing,required=true true\n"})
    assert "secret missing: not found" in build(daemon, context).errors


def test_a_redirect_to_a_local_address(daemon: LabDaemon, context: Path) -> None:
    """From where the Dockerfile sent us that is our own network, a redirect may stay there; the guard itself
    is tried without a network in tests/unit/registry."""
    with web(context, redirect="file:///etc/passwd") as url:
        write(context, {"Dockerfile": f"FROM busybox\nADD {url}/redirect /x\n"})
        assert "redirects to file" in build(daemon, context).errors
    with web(context, redirect="/redirect") as url:
        write(context, {"Dockerfile": f"FROM busybox\nADD {url}/redirect /x\n"})
        assert "too many redirects" in build(daemon, context).errors


def test_a_sparse_file_of_ten_gigabytes(daemon: LabDaemon, context: Path) -> None:
    with (context / "huge").open("wb") as file:
        file.truncate(10 << 30)
        file.seek(5 << 30)
        file.write(b"middle")
    tests = "test $(stat -c %s /huge) = 10737418240 -a $(du -k /huge | cut -f1) -lt 100"
    text = f"FROM busybox\nCOPY huge /huge\nRUN {tests}\n"
    write(context, {"Dockerfile": text})
    image = built(daemon, context)
    size = daemon.api("GET", f"/images/{image}/json").json["Size"]
    assert size < 64 << 20


def test_names_that_are_no_names(daemon: LabDaemon, context: Path) -> None:
    for name in ("new\nline", "tab\there", "-rf", "quote'\"", "\udcff", "*"):
        (context / os.fsdecode(os.fsencode(name))).write_text("x")
    count = "find /d -type f -print0 | tr -dc '\\0' | wc -c > /n"
    write(context, {"Dockerfile": f"FROM busybox\nCOPY . /d\nRUN {count}\n"})
    assert cat(daemon, built(daemon, context), "/n") == "8"


def test_entitlements_are_asked_for(daemon: LabDaemon, context: Path) -> None:
    for line, what in (("--network=host", "network.host"), ("--security=insecure", "security.insecure")):
        write(context, {"Dockerfile": f"FROM busybox\nRUN {line} true\n"})
        assert f"granting entitlement {what} is not allowed" in build(daemon, context).errors
        build(daemon, context, "--allow", what).ok()


@pytest.mark.parametrize(
    ("dockerfile", "reason"),
    [
        ("FROM busybox\nRUNN x\n", "unknown instruction: RUNN"),
        ("FROM busybox\nCOPY --frm=x a b\n", "unknown flag: --frm"),
        ("FROM busybox\nRUN true\nCOPY nothing /x\n", '"/nothing": not found'),
        ("FROM b AS a\nCOPY --from=c / /\nFROM a AS c\n", "circular dependency"),
        ("# syntax=example.org/evil\nFROM busybox\n", "frontend"),
        ("FROM busybox\nRUN --mount=type=evil true\n", "evil"),
        ("FROM busybox\nEXPOSE 99999999\n", "invalid containerPort"),
        ("FROM busybox\nADD --checksum=md5:x http://127.0.0.1:1/f /x\n", "checksum"),
        ("", "cannot be empty"),
        ("FROM busybox\nUSER 4294967296\nRUN true\n", "range"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_runs(daemon: LabDaemon, dockerfile: str, reason: str) -> None:
    assert reason in error(post(daemon, archive({"Dockerfile": dockerfile, "f": ""})))


def test_a_failed_build_leaves_nothing(daemon: LabDaemon, context: Path) -> None:
    """The leak guard looks; here what the step says must reach the client."""
    write(context, {"Dockerfile": "FROM busybox\nRUN echo last words; (sleep 1000 &) ; exit 9\n"})
    failed = build(daemon, context)
    assert "returned a non-zero code: 9" in failed.errors and "last words" in failed.errors
    assert ">>> RUN echo last words" in failed.errors and failed.code == 1
    assert daemon.wherry("build", "history").out.splitlines()[1].split()[2] == "Error"
    assert "Successfully built" in stream(post(daemon, archive({"Dockerfile": "FROM busybox\n"})))


@pytest.mark.slow
@pytest.mark.fault("a build context of many files", "200,000 files")
@pytest.mark.patient(300)
def test_two_hundred_thousand_small_files(daemon: LabDaemon, context: Path) -> None:
    for number in range(200_000):
        if number % 1000 == 0:
            directory = context / f"d{number // 1000}"
            directory.mkdir()
        (directory / f"f{number}").touch()
    write(context, {"Dockerfile": "FROM busybox\nCOPY . /d\nRUN find /d -type f | wc -l > /n\n"})
    image = daemon.wherry("build", "-q", str(context), timeout=240).ok()
    assert int(cat(daemon, image, "/n")) == 200_002
