"""What builds give, and how they go on beside each other: outputs, attestations, cache, cancellation."""

from __future__ import annotations

import json
import signal
import socket
import tarfile
import threading
from pathlib import Path

import pytest
from buildlab import archive, build, built, cat, post, stream, write
from daemonlab import LabDaemon, new_base, wait_until


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"file": "content"})


def test_the_same_inputs_give_the_same_bytes(daemon: LabDaemon, context: Path) -> None:
    write(context, {"Dockerfile": "FROM busybox\nRUN echo hello > /hello\nCOPY . /c\n"})
    epoch = ("--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-o", "type=image,rewrite-timestamp=true")
    first = built(daemon, context, "--no-cache", *epoch)
    for path in (context / "file", context / "Dockerfile"):
        path.touch()
    assert built(daemon, context, "--no-cache", *epoch) == first
    assert daemon.api("GET", f"/images/{first}/json").json["Created"] == "2023-11-14T22:13:20Z"
    assert cat(daemon, first, "/hello") == "hello", "its layers are unpacked anew"


def test_no_file_of_an_output_is_younger_than_the_build_says(
    daemon: LabDaemon, context: Path, tmp_path: Path
) -> None:
    made = "mkdir /o && echo x > /o/new && ln -s new /o/link && touch -d @1000000000 /o/old"
    write(context, {"Dockerfile": f"FROM busybox AS b\nRUN {made}\nFROM scratch\nCOPY --from=b /o /o\n"})
    out, epoch = tmp_path / "out", ("--build-arg", "SOURCE_DATE_EPOCH=1700000000")
    build(daemon, context, *epoch, "-o", str(out / "tree")).ok()
    times = {path.name: path.lstat().st_mtime_ns for path in (out / "tree").rglob("*")}
    late, early = 1_700_000_000 * 10**9, 1_000_000_000 * 10**9
    assert times == {"o": late, "new": late, "link": late, "old": early}
    build(daemon, context, *epoch, "-o", f"type=tar,dest={out}/t.tar").ok()
    with tarfile.open(out / "t.tar") as tar:
        assert {Path(m.name).name: m.mtime * 10**9 for m in tar} == times
    build(daemon, context, "-o", str(out / "as-they-are")).ok()
    assert (out / "as-they-are/o/new").stat().st_mtime > 1_700_000_000
    for kind in ("local", "tar"):
        asked = f"type={kind},dest={out}/{kind},rewrite-timestamp=true"
        assert "needs SOURCE_DATE_EPOCH" in build(daemon, context, "-o", asked).errors


def test_results_go_where_they_are_wanted(
    daemon: LabDaemon, context: Path, tmp_path: Path, name: str
) -> None:
    write(context, {"Dockerfile": "FROM scratch\nCOPY file /out/file\n"})
    out = tmp_path / "o"
    build(daemon, context, "-o", str(out / "tree")).ok()
    assert (out / "tree/out/file").read_text() == "content"
    build(daemon, context, "-o", f"type=tar,dest={out}/t.tar").ok()
    with tarfile.open(out / "t.tar") as tar:
        assert "out/file" in tar.getnames()
    for kind in ("oci", "docker"):
        path = out / f"{kind}.tar"
        build(daemon, context, "-t", f"{name}:{kind}", "-o", f"type={kind},dest={path}").ok()
        assert f"{name}:{kind}" not in daemon.tags()
        assert daemon.docker("load", "-i", str(path)).ok() == f"Loaded image: {name}:{kind}"
    iid, metadata = out / "iid", out / "metadata"
    image = built(
        daemon, context, "-t", name, "--iidfile", str(iid), "--metadata-file", str(metadata),
        "--annotation", "a=b", "--label", "l=m", "-o", "type=image,compression=gzip",
    )  # fmt: skip
    assert iid.read_text() == image == json.loads(metadata.read_text())["containerimage.digest"]
    manifest = json.loads((daemon.root / "content/sha256" / image.removeprefix("sha256:")).read_text())
    assert manifest["annotations"] == {"a": "b"} and manifest["layers"][0]["mediaType"].endswith("tar+gzip")


def test_squash_makes_one_layer(daemon: LabDaemon, context: Path) -> None:
    write(context, {"Dockerfile": "FROM busybox\nRUN echo big > /gone\nRUN rm /gone\nRUN echo k > /k\n"})
    image = built(daemon, context, "--squash")
    before = len(daemon.api("GET", "/images/busybox/json").json["RootFS"]["Layers"])
    assert len(daemon.api("GET", f"/images/{image}/json").json["RootFS"]["Layers"]) == before + 1
    assert daemon.docker("run", "--rm", image, "ls", "/gone").code != 0 and cat(daemon, image, "/k") == "k"


def test_platforms_and_attestations(daemon: LabDaemon, context: Path, name: str) -> None:
    write(context, {"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY file /file-$TARGETARCH\n"})
    built(daemon, context, "--platform", "linux/amd64,linux/arm64", "--provenance", "mode=max", "-t", name)
    found = daemon.api("GET", f"/images/{name}/json?manifests=1").json["Manifests"]
    kinds = [(one["Kind"], one["Descriptor"]["platform"]["architecture"]) for one in found]
    assert kinds == [("image", "amd64"), ("image", "arm64"), *[("attestation", "unknown")] * 2]
    blobs = daemon.root / "content/sha256"
    attested = json.loads((blobs / found[2]["ID"].removeprefix("sha256:")).read_text())
    assert attested["subject"]["digest"] == found[0]["ID"]
    statement = json.loads((blobs / attested["layers"][0]["digest"].removeprefix("sha256:")).read_text())
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    write(context, {"Dockerfile": "FROM --platform=linux/s390x scratch\nCOPY file /f\nRUN true\n"})
    assert "cannot run programs of linux/s390x" in build(daemon, context).errors


def test_checks_outline_and_targets(daemon: LabDaemon, context: Path) -> None:
    write(
        context, {"Dockerfile": "# check=error=true\nFROM busybox AS one\nMAINTAINER me\nFROM one\nARG A=1\n"}
    )
    checked = daemon.wherry("build", "--check", str(context))
    assert checked.code == 1 and "MaintainerDeprecated" in checked.out
    assert "lint violation found" in build(daemon, context).errors
    text = "FROM busybox AS one\nFROM one\nARG A=1\nRUN --mount=type=secret,id=s true\n"
    write(context, {"Dockerfile": text})
    assert "no warnings" in daemon.wherry("build", "--check", str(context)).ok()
    assert "one" in daemon.wherry("build", "--call=targets", str(context)).ok()
    outline = daemon.wherry("build", "--call=outline", str(context)).ok()
    assert "A" in outline and "SECRET" in outline


def test_two_builds_share_what_they_both_need(daemon: LabDaemon, name: str) -> None:
    """Both come to a step that waits for a file which only the test makes, in a cache mount: it runs once."""
    wait = "while [ ! -e /c/go ]; do sleep 0.02; done"
    text = f"FROM busybox\nRUN --mount=type=cache,id={name},target=/c echo run >> /c/runs; {wait}\n"
    body = archive({"Dockerfile": text})
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(stream(post(daemon, body)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    runs = _in_cache(daemon, "runs")
    wait_until(lambda: sum(h["Status"] == "Running" for h in daemon.api("GET", "/build/history").json) == 2)
    (runs.parent / "go").touch()
    for thread in threads:
        thread.join()
    assert runs.read_text() == "run\n"
    assert len(answers) == 2, answers


def _in_cache(daemon: LabDaemon, name: str) -> Path:
    mounts = daemon.root / "build/cachemounts"
    found: Path = wait_until(lambda: next(mounts.glob(f"*/{name}"), None), f"a step makes {name}")
    return found


def test_a_client_that_leaves_ends_its_build(daemon: LabDaemon, name: str) -> None:
    mount = f"--mount=type=cache,id={name},target=/c"
    body = archive({"Dockerfile": f"FROM busybox\nRUN {mount} touch /c/{name}; sleep 1000\n"})
    connection = daemon.connection()
    connection.request("POST", "/build", body=body, headers={"Content-Type": "application/x-tar"})
    _in_cache(daemon, name)
    connection.close()
    wait_until(lambda: not any((daemon.run / "tasks").iterdir()), "the step is gone")
    wait_until(lambda: daemon.api("GET", "/build/history").json[0]["Status"] == "Canceled")


def test_independent_stages_run_at_once(daemon: LabDaemon, context: Path, name: str) -> None:
    """Two steps that each wait for the other end only when they run at the same time."""
    run = f"RUN --mount=type=cache,id={name},target=/c"
    wait = "while [ ! -e /c/{} ]; do sleep 0.02; done"
    text = (
        f"FROM busybox AS a\n{run} touch /c/a; {wait.format('b')}\n"
        f"FROM busybox AS b\n{run} touch /c/b; {wait.format('a')}\n"
        "FROM scratch\nCOPY --from=a /etc /a\nCOPY --from=b /etc /b\n"
    )
    write(context, {"Dockerfile": text})
    built(daemon, context)


def test_the_cache_is_counted_and_pruned(daemon: LabDaemon, context: Path, name: str) -> None:
    daemon.api("POST", "/build/prune", all=1)
    run = f"RUN --mount=type=cache,id={name},target=/c head -c 100000 /dev/zero >/f"
    write(context, {"Dockerfile": f"FROM busybox\n{run}\n"})
    image = built(daemon, context)
    records = daemon.api("GET", "/system/df?verbose=1").json["BuildCacheUsage"]["Items"]
    assert {r["Type"] for r in records} == {"regular", "exec.cachemount", "source.local"}
    assert next(r for r in records if r["Type"] == "regular")["Shared"] is True
    daemon.api("DELETE", f"/images/{image}?force=1")
    records = daemon.api("GET", "/system/df?verbose=1").json["BuildCacheUsage"]["Items"]
    (regular,) = [r for r in records if r["Type"] == "regular"]
    assert regular["Size"] >= 100000 and not regular["Shared"]
    nothing = daemon.api("POST", "/build/prune", filters={"until": ["24h"]}).json
    assert nothing == {"CachesDeleted": None, "SpaceReclaimed": 0}
    kept = daemon.api("POST", "/build/prune", **{"reserved-space": 1 << 40}).json
    assert kept["CachesDeleted"] is None
    assert regular["ID"] in daemon.wherry("builder", "prune", "--force", "--all").ok()
    assert daemon.api("GET", "/system/df?verbose=1").json["BuildCacheUsage"]["Items"] == []
    assert built(daemon, context), "what was pruned is built again"


def test_caches_travel(daemon: LabDaemon, context: Path, tmp_path: Path, name: str) -> None:
    """Into a directory, and inline in an image; then the daemon forgets, and takes it back."""
    text = "FROM busybox AS a\nRUN echo $RANDOM$RANDOM > /r\n"
    text += "FROM busybox\nCOPY --from=a /r /r\nRUN cat /r > /s\n"
    write(context, {"Dockerfile": text})
    cache = tmp_path / "cache"
    first = built(daemon, context, "--cache-to", f"type=local,dest={cache}")
    inline = built(daemon, context, "--cache-to", "type=inline", "-t", name)
    assert first != inline
    daemon.api("DELETE", f"/images/{first}?force=1")
    daemon.api("POST", "/build/prune", all=1)
    assert built(daemon, context, "--cache-from", f"type=local,src={cache}") == first
    daemon.api("DELETE", f"/images/{first}?force=1")
    daemon.api("POST", "/build/prune", all=1)
    done = build(daemon, context, "--cache-from", name)
    assert done.code == 0 and "importing cache" in done.errors
    assert cat(daemon, daemon.api("GET", "/build/history").json[0]["Image"], "/s") == cat(
        daemon, inline, "/s"
    )
    daemon.api("POST", "/build/prune", all=1)
    missing = build(daemon, context, "--cache-from", f"type=local,src={tmp_path}/nothing")
    assert missing.code == 0, "a cache that is not there is no reason to fail"
    assert "mode max is not supported" in build(daemon, context, "--cache-to", "type=inline,mode=max").errors


def test_a_shell_in_the_state_before_the_failure(daemon: LabDaemon, context: Path) -> None:
    write(context, {"Dockerfile": "FROM busybox\nENV V=w\nWORKDIR /w\nRUN echo s > state\nRUN false\n"})
    typed = b"cat state; echo $V; exit\n"
    done = daemon.wherry("build", "--progress=plain", "debug", str(context), input=typed)
    assert done.out.split() == ["s", "w"] and "RUN false" in done.errors


def test_an_agent_is_lent_to_a_step(daemon: LabDaemon, context: Path, tmp_path: Path) -> None:
    step = "--mount=type=ssh,required=true,uid=7 test -S $SSH_AUTH_SOCK && stat -c %u $SSH_AUTH_SOCK"
    write(context, {"Dockerfile": f"FROM busybox\nRUN {step}\n"})
    assert "unset ssh forward key default" in build(daemon, context).errors
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        assert " 7\n" in build(daemon, context, "--ssh", f"default={tmp_path}/agent").errors
    assert (tmp_path / "agent").stat().st_uid == 0, "the step chose the owner of a socket of its own"
    assert "is no agent's socket" in build(daemon, context, "--ssh", f"default={context}/file").errors


def test_a_long_dockerfile_from_elsewhere(daemon: LabDaemon, context: Path) -> None:
    text = "FROM busybox\nCOPY file /file\n" + "# a comment that makes it long\n" * 2000
    done = daemon.wherry("build", "-q", "--file", "-", str(context), input=text.encode())
    assert cat(daemon, done.ok(), "/file") == "content"
    assert daemon.wherry("build", "-q", "-", input=b"FROM busybox\nRUN true\n").ok().startswith("sha256:")


def test_history_of_builds(daemon: LabDaemon, context: Path, name: str) -> None:
    write(context, {"Dockerfile": "FROM busybox\nCOPY . .\n"})
    built(daemon, context, "-t", name)
    listed = daemon.wherry("build", "history").ok()
    assert f"{name}:latest" in listed and "Completed" in listed
    identifier = daemon.api("GET", "/build/history").json[0]["ID"]
    assert "COPY . ." in daemon.wherry("build", "history", identifier[:8]).ok()
    assert daemon.wherry("builder", "forget", identifier).ok() == identifier
    assert daemon.api("GET", f"/build/history/{identifier}").status == 404


def test_builds_on_the_driver_that_copies(tmp_path: Path) -> None:
    daemon = LabDaemon(new_base(), "--storage-driver", "vfs")
    try:
        daemon.start()
        daemon.bootstrap()
        text = "FROM busybox AS a\nRUN echo hi > /hi\nFROM a\nCOPY file /f\nCOPY --from=a /hi /copied\n"
        image = built(daemon, write(tmp_path, {"Dockerfile": text, "file": "content"}))
        assert cat(daemon, image, "/f", "/copied") == "contenthi"
    finally:
        daemon.destroy()


def test_a_daemon_that_is_killed_amid_a_build(fresh_daemon: LabDaemon, name: str) -> None:
    """The next start ends the step, and what was built before it is still in the cache."""
    daemon = fresh_daemon
    mount = f"--mount=type=cache,id={name},target=/c"
    text = f"FROM busybox\nRUN echo kept > /kept\nRUN {mount} touch /c/{name}; sleep 1000\n"
    connection = daemon.connection()
    body = archive({"Dockerfile": text})
    connection.request("POST", "/build", body=body, headers={"Content-Type": "application/x-tar"})
    _in_cache(daemon, name)
    daemon.restart(signal.SIGKILL)
    connection.close()
    assert not list((daemon.run / "tasks").iterdir()) and not daemon.processes()
    assert not [trace for trace in daemon.traces() if trace.startswith(("mount", "cgroup"))]
    assert daemon.api("GET", "/build/history").json[0]["Status"] == "Interrupted"
    again = stream(post(daemon, archive({"Dockerfile": text.replace("sleep 1000", "true")})))
    assert again.count("Using cache") == 1 and "Successfully built" in again


def test_the_exit_code_of_a_command_that_failed(daemon: LabDaemon) -> None:
    answer = post(daemon, archive({"Dockerfile": "FROM busybox\nRUN exit 7\n"}))
    last = answer.lines[-1]
    assert last["errorDetail"] == {"code": 7, "message": last["error"]}
    assert last["error"].startswith("The command '/bin/sh -c exit 7' returned a non-zero code: 7")
    failed = daemon.docker(
        "build", "-", input=b"FROM busybox\nRUN exit 9\n", environment={"DOCKER_BUILDKIT": "0"}
    )
    assert failed.code == 9, "the docker CLI ends with the command's code"
