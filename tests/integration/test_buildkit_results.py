"""What the plugins can ask for besides an image: outputs, calls, caches, attestations, the history."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from buildkitlab import VERSIONS, BuildClient, step
from buildlab import cat, write
from daemonlab import LabDaemon
from registrylab import LabRegistry, registry, skopeo

from wherry.buildkit.proto import content_pb2, control_pb2
from wherry.model import digest as digests

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("buildkit-results")]


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest, daemon: LabDaemon) -> BuildClient:
    return BuildClient(daemon, request.param)


@pytest.fixture
def newest(daemon: LabDaemon) -> BuildClient:
    return BuildClient(daemon, "new")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabRegistry]:
    with registry() as made:
        yield made


@pytest.fixture
def context(tmp_path: Path) -> Path:
    text = "FROM busybox\nRUN echo made >/made\nFROM scratch\nCOPY --from=0 /made /made\nCOPY file /\n"
    return write(tmp_path / "context", {"Dockerfile": text, "file": "content"})


def names(path: Path) -> set[str]:
    with tarfile.open(path) as tar:
        return {member.name.strip("./") for member in tar if member.isfile()}


def index_of(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as tar:
        member = tar.extractfile("index.json")
        assert member is not None
        found: dict[str, Any] = json.load(member)
        return found


# ---- outputs -----------------------------------------------------------------------------------------------


def test_every_kind_of_output(client: BuildClient, context: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    client.built(context, "-o", str(out / "dir"))
    assert (out / "dir" / "made").read_text() == "made\n" and (out / "dir" / "file").read_text() == "content"
    client.built(context, "-o", f"type=tar,dest={out}/tree.tar")
    assert names(out / "tree.tar") == {"made", "file"}
    piped = client.docker("build", "-o", "-", str(context))
    (out / "piped.tar").write_bytes(piped.raw)
    assert names(out / "piped.tar") == {"made", "file"}
    client.built(context, "-o", f"type=docker,dest={out}/docker.tar", "-t", name)
    assert name in client.daemon.docker("load", "-i", f"{out}/docker.tar").ok()
    client.built(context, "-o", f"type=oci,dest={out}/oci.tar")
    target = index_of(out / "oci.tar")["manifests"][0]
    assert f"blobs/sha256/{target['digest'][7:]}" in names(out / "oci.tar")
    client.built(context, "-o", f"type=oci,tar=false,dest={out}/layout")
    layout = json.loads((out / "layout" / "index.json").read_text())["manifests"][0]
    assert (out / "layout" / "blobs" / "sha256" / layout["digest"][7:]).exists()
    assert "made" in skopeo("inspect", "--raw", f"oci:{out}/layout") or layout["size"]
    client.built(context, "-o", "type=cacheonly")


def test_several_outputs_at_once(client: BuildClient, context: Path, tmp_path: Path, name: str) -> None:
    client.built(
        context, "-o", f"type=tar,dest={tmp_path}/tree.tar", "-o", f"type=image,name={name}",
        "-o", f"type=local,dest={tmp_path}/dir",
    )  # fmt: skip
    assert names(tmp_path / "tree.tar") == {"made", "file"}
    assert (tmp_path / "dir" / "file").read_text() == "content"
    assert client.daemon.api("GET", f"/images/{name}/json").status == 200


def test_modes_and_links_of_a_directory(client: BuildClient, context: Path, tmp_path: Path) -> None:
    text = "FROM busybox AS made\nRUN mkdir -p /out/sub && cd /out && echo 1 >a && ln a b && ln -s a c && "
    text += "chmod 4751 a && mkfifo p && head -c 3000000 /dev/zero >sub/big\n"
    text += "FROM scratch\nCOPY --from=made /out /\n"
    write(context, {"Dockerfile": text})
    client.built(context, "-o", str(tmp_path / "out"))
    out = tmp_path / "out"
    assert (out / "a").stat().st_mode & 0o7777 == 0o4751
    assert (out / "b").read_text() == "1\n" and (out / "c").readlink() == Path("a")
    assert (out / "p").is_fifo() and (out / "sub" / "big").stat().st_size == 3_000_000


def test_several_platforms(client: BuildClient, tmp_path: Path, name: str) -> None:
    write(tmp_path, {"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n"})
    write(tmp_path, {"amd64": "one", "arm64": "other"})
    both = ("--platform", "linux/amd64,linux/arm64")
    client.built(tmp_path, *both, "-t", name)
    listed = client.daemon.api("GET", "/images/json", manifests=1).json
    manifests = next(one["Manifests"] for one in listed if f"{name}:latest" in (one["RepoTags"] or []))
    found = {m["ImageData"]["Platform"]["architecture"] for m in manifests if m["Kind"] == "image"}
    assert found == {"amd64", "arm64"}
    client.built(tmp_path, *both, "-o", str(tmp_path / "out"))
    assert (tmp_path / "out" / "linux_arm64" / "arch").read_text() == "other"
    assert (tmp_path / "out" / "linux_amd64" / "arch").read_text() == "one"


def test_annotations_of_every_level(client: BuildClient, context: Path, tmp_path: Path) -> None:
    flags = []
    for level in ("manifest", "index", "manifest-descriptor", "index-descriptor"):
        flags += ["--annotation", f"{level}:key={level}"]
    client.built(context, *flags, "--provenance=true", "-o", f"type=oci,dest={tmp_path}/oci.tar")
    target = index_of(tmp_path / "oci.tar")["manifests"][0]
    assert target["annotations"]["key"] == "index-descriptor"
    with tarfile.open(tmp_path / "oci.tar") as tar:

        def blob(digest: str) -> dict[str, Any]:
            member = tar.extractfile(f"blobs/sha256/{digest[7:]}")
            assert member is not None
            found: dict[str, Any] = json.load(member)
            return found

        index = blob(target["digest"])
        assert index["annotations"]["key"] == "index"
        first = index["manifests"][0]
        assert first["annotations"]["key"] == "manifest-descriptor"
        assert blob(first["digest"])["annotations"]["key"] == "manifest"


def test_attestations(client: BuildClient, context: Path, tmp_path: Path) -> None:
    client.built(
        context, "--sbom=true", "--provenance=mode=max", "--build-arg", "SEEN=1",
        "-o", f"type=oci,dest={tmp_path}/oci.tar",
    )  # fmt: skip
    with tarfile.open(tmp_path / "oci.tar") as tar:
        texts = [tar.extractfile(m).read() for m in tar if m.name.startswith("blobs/sha256/") and m.isfile()]  # type: ignore[union-attr]
    statements = [json.loads(t) for t in texts if t.startswith(b"{") and b"predicateType" in t]
    kinds = {one["predicateType"] for one in statements}
    assert kinds == {"https://slsa.dev/provenance/v1", "https://spdx.dev/Document"}
    assert "build-arg:SEEN" in json.dumps(statements)
    done = client.build(context, "--sbom=generator=example.com/scanner")
    assert done.code == 1 and "generator" in done.errors


# ---- calls -------------------------------------------------------------------------------------------------


def test_calls(newest: BuildClient, context: Path) -> None:
    text = "FROM busybox AS base\n# WHO is greeted\nARG WHO=world\nFROM base as last\n"
    text += "RUN --mount=type=secret,id=token,required=true true\n"
    write(context, {"Dockerfile": text})
    checked = newest.docker("build", "--check", str(context))
    assert "FromAsCasing" in checked.out + checked.errors and checked.code != 0
    targets = newest.docker("build", "--call=targets,format=json", str(context)).ok()
    assert [one["name"] for one in json.loads(targets)["targets"]] == ["base", "last"]
    outline = json.loads(newest.docker("build", "--call=outline,format=json", str(context)).ok())
    assert outline["secrets"][0]["name"] == "token"
    shown = newest.docker("build", "--call=outline", "--target=base", str(context)).ok()
    assert "WHO" in shown and "world" in shown
    warned = newest.built(context, "-o", "type=cacheonly", "--secret", f"id=token,src={context}/file")
    assert "FromAsCasing" in warned.errors


# ---- registries --------------------------------------------------------------------------------------------


def test_pushes_and_caches(client: BuildClient, lab: LabRegistry, context: Path, name: str) -> None:
    """The daemon pushes by itself; a cache of every stage comes back to one that has nothing."""
    text = f"FROM busybox AS maker\nRUN echo {name} >/made\nFROM scratch\nCOPY --from=maker /made /\n"
    write(context, {"Dockerfile": text})
    where = f"{lab.host}/built/{name}"
    cache = f"type=registry,ref={where}:cache"
    client.built(context, "-t", f"{where}:1", "--push", "--cache-to", f"{cache},mode=max")
    assert json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{where}:1"))["manifests"]
    for image in client.daemon.images():
        if client.daemon.api("GET", f"/images/{image}/json").json["RepoTags"] != ["busybox:latest"]:
            client.daemon.api("DELETE", f"/images/{image}?force=1")
    client.docker("buildx", "prune", "-af").ok()
    again = client.built(context, "--cache-from", cache, "-o", "type=cacheonly")
    assert step(again, "COPY --from=maker") == "CACHED"
    # What the target took from the other stage is there as well: another target may start from it.
    other = client.built(context, "--target=maker", "-o", "type=cacheonly")
    assert step(other, "RUN echo") == "CACHED"


def test_an_inline_cache(client: BuildClient, lab: LabRegistry, context: Path, name: str) -> None:
    write(context, {"Dockerfile": f"FROM busybox\nRUN echo {name} >/made\nRUN cat /made\n"})
    where = f"{lab.host}/inline/{name}"
    client.built(context, "-t", f"{where}:1", "--push", "--cache-to", "type=inline")
    client.daemon.api("DELETE", f"/images/{where}:1?force=1")
    client.docker("buildx", "prune", "-af").ok()
    again = client.built(context, "--cache-from", f"{where}:1")
    assert step(again, "RUN cat") == "CACHED"


def test_a_push_without_a_tag(newest: BuildClient, lab: LabRegistry, context: Path, tmp_path: Path) -> None:
    """The plugins do not offer it of an engine's own builder; our client does."""
    where = f"{lab.host}/digests/only"
    output = f"type=image,name={where},push-by-digest=true,name-canonical=true,push=true"
    meta = tmp_path / "meta"
    newest.daemon.wherry("build", "-o", output, "--metadata-file", str(meta), str(context)).ok()
    digest = newest.metadata(meta)["containerimage.digest"]
    assert skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{where}@{digest}")
    done = newest.build(context, "--push")
    assert done.code == 1 and "tag is needed" in done.errors


def test_a_cache_in_a_directory(client: BuildClient, context: Path, tmp_path: Path, name: str) -> None:
    text = f"FROM busybox AS maker\nRUN echo {name} >/made\n"
    text += "FROM busybox\nCOPY --from=maker /made /\nRUN cat /made\n"
    write(context, {"Dockerfile": text})
    kept = tmp_path / "cache"
    client.built(context, "-o", "type=cacheonly", "--cache-to", f"type=local,dest={kept},mode=max")
    assert json.loads((kept / "index.json").read_text())["manifests"]
    client.docker("buildx", "prune", "-af").ok()
    again = client.built(context, "-o", "type=cacheonly", "--cache-from", f"type=local,src={kept}")
    assert step(again, "RUN cat") == "CACHED"
    client.docker("buildx", "prune", "-af").ok()
    maker = client.built(
        context, "--target=maker", "-o", "type=cacheonly", "--cache-from", f"type=local,src={kept}"
    )
    assert step(maker, "RUN echo") == "CACHED"


def test_an_oci_layout_as_a_context(client: BuildClient, context: Path, tmp_path: Path, name: str) -> None:
    write(context, {"Dockerfile": f"FROM busybox\nRUN echo {name} >/made\n"})
    client.built(context, "-o", f"type=oci,tar=false,dest={tmp_path}/layout")
    client.docker("buildx", "prune", "-af").ok()
    text = b"FROM x\nRUN cat /made > /again\n"
    layout = f"x=oci-layout://{tmp_path}/layout"
    client.built(context, "-t", name, "--build-context", layout, "-f", "-", input=text)
    assert cat(client.daemon, name, "/again") == name
    own = client.daemon.wherry(
        "build", "-q", "--build-context", layout, "-f", "-", str(context), input=text
    ).ok()
    assert cat(client.daemon, own, "/again") == name


# ---- history and upkeep ------------------------------------------------------------------------------------


def test_one_history_for_all(newest: BuildClient, context: Path, name: str) -> None:
    write(context, {"Dockerfile": f"FROM busybox\nRUN echo said by {name}\nRUN exit 7\n"})
    assert newest.build(context).code == 1
    failed = newest.history()[0]["ID"]
    listed = newest.docker("buildx", "history", "ls", "--format", "json").ok().splitlines()
    found = {json.loads(line)["ref"].rpartition("/")[2]: json.loads(line)["status"] for line in listed}
    assert found[failed] == "Error"
    logs = newest.docker("buildx", "history", "logs", "--progress=plain", failed)
    assert f"said by {name}" in logs.errors + logs.out
    shown = newest.docker("buildx", "history", "inspect", failed)
    assert "exit code: 7" in shown.out + shown.errors
    write(context, {"Dockerfile": "FROM busybox\nRUN true\n"})
    newest.daemon.wherry("build", "-q", str(context)).ok()
    own = newest.history()[0]["ID"]
    assert own in newest.docker("buildx", "history", "ls").ok()
    assert newest.docker("buildx", "history", "logs", own).code == 0
    assert failed in newest.daemon.wherry("build", "history", "--no-trunc").out + json.dumps(newest.history())
    newest.docker("buildx", "history", "rm", failed).ok()
    assert failed not in [one["ID"] for one in newest.history()]


def test_provenance_is_in_the_history(newest: BuildClient, context: Path) -> None:
    newest.built(context, "--provenance=mode=max", "-o", "type=cacheonly")
    reference = newest.history()[0]["ID"]
    shown = newest.docker("buildx", "history", "inspect", "attachment", reference, "--type", "provenance")
    assert "buildType" in shown.ok()


def test_a_builds_trace_is_in_the_history(newest: BuildClient, context: Path) -> None:
    """As ``buildx history trace`` reads it: the record names the trace, the content store has it."""
    write(context, {"Dockerfile": "FROM busybox\nRUN echo of the trace\nRUN exit 7\n"})
    assert newest.build(context).code == 1
    row = newest.history()[0]
    with grpc.insecure_channel(f"unix://{newest.daemon.socket}") as channel:
        listen = channel.unary_stream(
            "/moby.buildkit.v1.Control/ListenBuildHistory",
            request_serializer=control_pb2.BuildHistoryRequest.SerializeToString,
            response_deserializer=control_pb2.BuildHistoryEvent.FromString,
        )
        (event,) = listen(control_pb2.BuildHistoryRequest(Ref=row["ID"], EarlyExit=True), timeout=60)
        trace = event.record.trace
        read = channel.unary_stream(
            "/containerd.services.content.v1.Content/Read",
            request_serializer=content_pb2.ReadContentRequest.SerializeToString,
            response_deserializer=content_pb2.ReadContentResponse.FromString,
        )
        pieces = read(content_pb2.ReadContentRequest(digest=trace.digest), timeout=60)
        text = b"".join(piece.data for piece in pieces)
    assert trace.media_type == "application/vnd.buildkit.otlp.json.v0" and trace.size == len(text)
    assert digests.of(text) == trace.digest
    whole, *steps = map(json.loads, text.splitlines())
    assert whole["Status"]["Code"] == "Error" and whole["ChildSpanCount"] == len(steps)
    assert whole["Parent"]["SpanID"] == "0" * 16
    by_name = {span["Name"].partition("] ")[2]: span for span in steps}
    good, bad = by_name["RUN echo of the trace"], by_name["RUN exit 7"]
    assert (good["Status"]["Code"], bad["Status"]["Code"]) == ("Unset", "Error")
    assert "a non-zero code: 7" in bad["Status"]["Description"]
    assert len({span["SpanContext"]["SpanID"] for span in (whole, *steps)}) == 1 + len(steps)
    for span in steps:
        assert span["Parent"] == whole["SpanContext"]
        assert span["SpanContext"]["TraceID"] == whole["SpanContext"]["TraceID"]
        assert whole["StartTime"] <= span["StartTime"] <= span["EndTime"] <= whole["EndTime"]


def test_disk_usage_and_prune(client: BuildClient, context: Path, name: str) -> None:
    write(context, {"Dockerfile": f"FROM busybox\nRUN echo {name} && head -c 2000000 /dev/urandom >/made\n"})
    client.built(context, "-o", "type=cacheonly")
    assert "RUN echo" in client.docker("buildx", "du", "--verbose").ok()
    none = client.docker("buildx", "du", "--filter", "type=exec.cachemount").ok()
    assert "RUN echo" not in none
    kept = client.docker("buildx", "prune", "-f", "--filter", "until=24h").ok()
    assert "RUN echo" in client.docker("buildx", "du", "--verbose").ok(), kept
    size = "--max-used-space=10gb" if client.is_new else "--keep-storage=10gb"
    client.docker("buildx", "prune", "-af", size).ok()
    assert "RUN echo" in client.docker("buildx", "du", "--verbose").ok()
    assert "Total" in client.docker("buildx", "prune", "-af").ok()
    assert "RUN echo" not in client.docker("buildx", "du", "--verbose").ok()
