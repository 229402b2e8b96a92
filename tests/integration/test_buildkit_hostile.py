"""What only a client of our own says: builds without a plugin, definitions, policies, everything wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from buildlab import archive, web, write
from daemonlab import LabDaemon, wait_until
from fakeclient import (
    DEVICE,
    DIRECTORY,
    PIPE,
    SYMLINK,
    FakeClient,
    Packet,
    Stat,
    SyncCall,
    connected,
    exporters,
    file,
    serve_files,
)

from wherry.buildkit.proto import (
    control_pb2,
    fsutil_pb2,
    gateway_pb2,
    ops_pb2,
    policy_pb2,
    sourcepolicy_pb2,
)
from wherry.buildkit.proto.control_rpc import Control
from wherry.buildkit.proto.gateway_rpc import LLBBridge
from wherry.rpc.client import Client
from wherry.rpc.metadata import Metadata
from wherry.rpc.status import Code, RpcError

pytestmark = pytest.mark.kernel


def run(daemon: LabDaemon, work: Any) -> Any:
    """``work(client)`` on a connection of its own."""

    async def scenario() -> Any:
        async with asyncio.timeout(60), connected(daemon.socket) as client:
            return await work(client)

    return asyncio.run(scenario())


def status_of(daemon: LabDaemon) -> str:
    last: str = daemon.api("GET", "/build/history").json[0]["Status"]
    return last


# ---- builds without a plugin -------------------------------------------------------------------------------


def test_a_plain_solve(daemon: LabDaemon, name: str) -> None:
    """What other clients than the plugins send: a frontend and its attributes, all in one call."""

    async def context(call: SyncCall) -> None:
        await serve_files(call, [file("a", b"12"), file("b", b"3")], {"a": [b"1", b"2"], "b": [b"3"]})

    async def work(client: Client) -> control_pb2.SolveResponse:
        fake = FakeClient(client, b"FROM busybox\nCOPY . /in\nRUN cat /in/a /in/b > /out\n", context)
        exporter = control_pb2.Exporter(Type="moby", Attrs={"name": name})
        return await fake.build(Exporters=[exporter], FrontendAttrs={"label:a": "b"})

    answer = run(daemon, work)
    assert answer.ExporterResponse["image.name"] == f"docker.io/library/{name}:latest"
    assert daemon.docker("run", "--rm", name, "cat", "/out").ok() == "123"


def test_status_is_told_whenever_it_is_asked_for(daemon: LabDaemon) -> None:
    async def work(client: Client) -> tuple[list[Any], list[Any]]:
        fake = FakeClient(client, b"FROM busybox\nRUN echo told\n")
        ref = fake.session

        async def follow() -> list[Any]:
            async with client.stream(Control.Status, timeout=30) as call:
                await call.send(control_pb2.StatusRequest(Ref=ref), end=True)
                return [message async for message in call]

        early = asyncio.ensure_future(follow())
        await fake.build(Ref=ref)
        return await early, await follow()

    for messages in run(daemon, work):
        names = {vertex.name for message in messages for vertex in message.vertexes}
        assert "[2/2] RUN echo told" in names
        assert b"told\n" in b"".join(log.msg for message in messages for log in message.logs)


def test_what_is_refused_has_a_name(daemon: LabDaemon) -> None:
    async def refused(client: Client, **fields: Any) -> str:
        with pytest.raises(RpcError) as caught:
            await FakeClient(client).build(**fields)
        return caught.value.message

    async def work(client: Client) -> None:
        entry = control_pb2.CacheOptionsEntry
        assert "gateway.v0" in await refused(client, Frontend="gateway.v0", FrontendAttrs={"source": "x/y"})
        assert "'bogus'" in await refused(client, FrontendAttrs={"bogus": "1"})
        assert "'gha'" in await refused(client, Cache=control_pb2.CacheOptions(Exports=[entry(Type="gha")]))
        assert "'s3'" in await refused(client, Cache=control_pb2.CacheOptions(Imports=[entry(Type="s3")]))
        assert "EnableSessionExporter" in await refused(client, EnableSessionExporter=True)
        assert "ProxyNetwork" in await refused(client, ProxyNetwork=True)
        assert "other.v1" in await refused(client, Frontend="other.v1")
        assert "'cow'" in await refused(client, Entitlements=["cow"])
        assert "invalid ref" in await refused(client, Ref="../x")
        with pytest.raises(RpcError) as caught:
            await FakeClient(client).solve(Session="")
        assert "session" in caught.value.message

    run(daemon, work)
    answer = daemon.api("POST", "/build?version=2", archive({"Dockerfile": "FROM scratch\n"}))
    assert answer.status == 501 and "version=2" in answer.message


# ---- definitions -------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves files below ``tmp_path/served``; the address."""
    place = tmp_path / "served"
    place.mkdir()
    with web(place) as address:
        yield address


def source(identifier: str, **attributes: str) -> ops_pb2.Op:
    return ops_pb2.Op(source=ops_pb2.SourceOp(identifier=identifier, attrs=attributes))


def test_files_from_elsewhere_are_looked_at(daemon: LabDaemon, server: str, tmp_path: Path) -> None:
    """What clients send before a build of a remote context."""
    (tmp_path / "served" / "x.tar").write_bytes(archive({"Dockerfile": "FROM a\n", "sub/file": "text"}))
    (tmp_path / "served" / "plain").write_text("no archive")
    copy = ops_pb2.FileActionCopy(src="/context", dest="/", attemptUnpackDockerCompatibility=True)
    unpack = ops_pb2.Op(file=ops_pb2.FileOp(actions=[ops_pb2.FileAction(input=-1, copy=copy)]))

    async def work(client: Client) -> None:
        async with FakeClient(client).open() as bridge:
            got = source(f"{server}/x.tar", **{"http.filename": "context"})
            ref = await bridge.evaluate(got, unpack)
            read = gateway_pb2.ReadFileRequest(Ref=ref, FilePath="Dockerfile")
            assert (await bridge.ask(LLBBridge.ReadFile, read)).Data == b"FROM a\n"
            read = gateway_pb2.ReadFileRequest(
                Ref=ref, FilePath="/sub/file", Range=gateway_pb2.FileRange(Offset=1, Length=2)
            )
            assert (await bridge.ask(LLBBridge.ReadFile, read)).Data == b"ex"
            listed = await bridge.ask(LLBBridge.ReadDir, gateway_pb2.ReadDirRequest(Ref=ref, DirPath="/"))
            assert [entry.path for entry in listed.entries] == ["Dockerfile", "sub"]
            told = await bridge.ask(LLBBridge.StatFile, gateway_pb2.StatFileRequest(Ref=ref, Path="sub"))
            assert told.stat.mode & DIRECTORY
            for path in ("absent", "../../../../etc/passwd", "sub/none"):
                with pytest.raises(RpcError) as caught:
                    await bridge.ask(LLBBridge.StatFile, gateway_pb2.StatFileRequest(Ref=ref, Path=path))
                assert caught.value.code is Code.NOT_FOUND
            plain = source(f"{server}/plain", **{"http.filename": "context"})
            other = await bridge.evaluate(plain, unpack)
            read = gateway_pb2.ReadFileRequest(Ref=other, FilePath="context")
            assert (await bridge.ask(LLBBridge.ReadFile, read)).Data == b"no archive"

    run(daemon, work)


def test_definitions_that_are_refused(daemon: LabDaemon) -> None:
    mkdir = ops_pb2.FileAction(mkdir=ops_pb2.FileActionMkDir(path="/x"))
    wrong = {
        "exec": ops_pb2.Op(exec=ops_pb2.ExecOp(meta=ops_pb2.Meta(args=["true"]))),
        "merge": ops_pb2.Op(merge=ops_pb2.MergeOp()),
        "diff": ops_pb2.Op(diff=ops_pb2.DiffOp()),
        "mkdir": ops_pb2.Op(file=ops_pb2.FileOp(actions=[mkdir])),
        "http.bogus": source("https://example.com/x", **{"http.bogus": "1"}),
        "docker-image": source("docker-image://docker.io/library/busybox:latest"),
    }

    async def work(client: Client) -> None:
        async with FakeClient(client).open() as bridge:
            for word, op in wrong.items():
                with pytest.raises(RpcError) as caught:
                    await bridge.evaluate(op)
                assert caught.value.code is Code.UNIMPLEMENTED and word in caught.value.message
            for broken in (
                ops_pb2.Definition(ops=[b"\xff\xff"]),
                ops_pb2.Definition(ops=[ops_pb2.Op(inputs=[ops_pb2.Input(digest="x")]).SerializeToString()]),
            ):
                with pytest.raises(RpcError, match="invalid definition"):
                    await bridge.ask(LLBBridge.Solve, gateway_pb2.SolveRequest(Definition=broken))
            with pytest.raises(RpcError, match="no such ref"):
                await bridge.ask(LLBBridge.Evaluate, gateway_pb2.EvaluateRequest(Ref="never"))
            result = gateway_pb2.Result(ref=gateway_pb2.Ref(id="never"))
            await bridge.ask(LLBBridge.Return, gateway_pb2.ReturnRequest(result=result))
            with pytest.raises(RpcError, match="no such ref"):
                await bridge.solving

    run(daemon, work)


# ---- policies ----------------------------------------------------------------------------------------------


def test_a_session_decides_about_every_source(daemon: LabDaemon, server: str, tmp_path: Path) -> None:
    (tmp_path / "served" / "added").write_text("x")
    dockerfile = f"FROM busybox\nADD {server}/added /\nCOPY . /\n".encode()
    denied: list[str] = []

    def decide(request: policy_pb2.CheckPolicyRequest) -> policy_pb2.CheckPolicyResponse:
        answer = policy_pb2.CheckPolicyResponse()
        identifier = request.Source.Source.identifier
        if identifier.startswith("docker-image://") and not request.Source.Image.Digest:
            answer.request.Source.CopyFrom(request.Source.Source)  # it wants to know more
            return answer
        answer.decision.action = sourcepolicy_pb2.ALLOW
        if any(identifier.startswith(one) for one in denied):
            answer.decision.action = sourcepolicy_pb2.DENY
            answer.decision.denyMessages.add(message="not that one")
        return answer

    async def work(client: Client) -> list[str]:
        async def context(call: SyncCall) -> None:
            await serve_files(call, [file("a")], {})

        fake = FakeClient(client, dockerfile, context, decide)
        await fake.build(SourcePolicySession=fake.session)
        return [one for one in fake.asked if "://" in one]

    asked = run(daemon, work)
    assert set(asked) == {
        "docker-image://docker.io/library/busybox:latest", f"{server}/added", "local://context"
    }  # fmt: skip
    for one in sorted(set(asked)):
        denied[:] = [one]
        with pytest.raises(RpcError, match="not allowed by policy: not that one"):
            run(daemon, work)


# ---- sessions and refs -------------------------------------------------------------------------------------


def test_sessions_that_are_wrong(daemon: LabDaemon) -> None:
    async def work(client: Client) -> None:
        fake = FakeClient(client)
        async with fake.serving():
            again = Metadata({"x-docker-expose-session-uuid": fake.session})
            with pytest.raises(RpcError, match="already exists"):
                async with client.stream(Control.Session, again) as call:
                    await call.receive()
        with pytest.raises(RpcError, match="no id"):
            async with client.stream(Control.Session) as call:
                await call.receive()

        async def status() -> None:
            async with client.stream(Control.Status) as call:
                await call.send(control_pb2.StatusRequest(Ref="never"), end=True)
                await call.receive()

        # Both may come a little later than what names them, so they are waited for.
        waited = await asyncio.gather(fake.solve(Session="never"), status(), return_exceptions=True)
        assert "no such session" in str(waited[0]) and "no such job" in str(waited[1])

    run(daemon, work)


def test_a_session_that_is_cut(daemon: LabDaemon) -> None:
    """The build ends at once, though the connection that asked for it lives."""

    async def work(client: Client) -> None:
        started = asyncio.Event()

        async def context(call: SyncCall) -> None:
            await call.send(Packet(type=Packet.PACKET_STAT, stat=file("a", size=10)))
            started.set()
            await asyncio.sleep(60)

        fake = FakeClient(client, context=context)
        with contextlib.suppress(RpcError):
            async with fake.serving():
                solving = asyncio.ensure_future(fake.solve(Exporters=exporters("cacheonly")))
                await started.wait()
        with pytest.raises(RpcError):
            await asyncio.wait_for(solving, 5)

    run(daemon, work)
    wait_until(lambda: status_of(daemon) != "Running", "the build has ended")


# ---- files -------------------------------------------------------------------------------------------------

LINK = Stat(path="link", mode=0o644, linkname="never")
WRONG: dict[str, tuple[Sequence[fsutil_pb2.Stat], str]] = {
    "parent": ([file("../x")], "invalid name"),
    "inner parent": ([file("a/../x")], "invalid name"),
    "absolute": ([file("/x")], "invalid name"),
    "empty": ([Stat(path="", mode=0o644)], "invalid name"),
    "nul": ([file("a\0b")], "invalid name"),
    "order": ([file("b"), file("a")], "out of order"),
    "twice": ([file("a"), file("a")], "out of order"),
    "below a file": ([file("a"), file("a/b")], "not a directory"),
    "below a link": ([Stat(path="a", mode=SYMLINK | 0o777, linkname="/etc"), file("a/b")], "not a directory"),
    "hard link to nothing": ([file("a"), LINK], "was not sent"),
    "negative": ([Stat(path="a", mode=0o644, size=-1)], "bytes"),
    "endless": ([Stat(path="a", mode=0o644, size=1 << 60)], "bytes"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_contexts_that_no_honest_client_has(daemon: LabDaemon, kind: str) -> None:
    stats, reason = WRONG[kind]

    async def work(client: Client) -> None:
        async def context(call: SyncCall) -> None:
            await serve_files(call, stats, {})

        with pytest.raises(RpcError, match=reason):
            await FakeClient(client, context=context).build(Exporters=exporters("cacheonly"))

    run(daemon, work)


def test_files_that_change_while_they_are_sent(daemon: LabDaemon, name: str) -> None:
    """They are cut or padded to the size they were said to have; pipes come, devices do not."""
    stats = [
        Stat(path="device", mode=DEVICE | 0o600, devmajor=1, devminor=3),
        file("grows", size=3),
        Stat(path="linked", mode=0o644, linkname="grows"),
        Stat(path="pipe", mode=PIPE | 0o600),
        file("shrinks", size=4),
    ]
    contents = {"grows": [b"12", b"3456", b"789"], "shrinks": [b"1"]}

    async def work(client: Client) -> None:
        async def context(call: SyncCall) -> None:
            await serve_files(call, stats, contents)

        dockerfile = b"FROM busybox\nCOPY . /in\nRUN ls /in > /names; cat /in/grows /in/linked > /data; "
        dockerfile += b"wc -c < /in/shrinks > /size\n"
        exporter = control_pb2.Exporter(Type="moby", Attrs={"name": name})
        for _ in range(2):
            fake = FakeClient(client, dockerfile, context)
            await fake.build(Exporters=[exporter])

    run(daemon, work)
    shown = daemon.docker("run", "--rm", name, "cat", "/names", "/data", "/size").ok()
    assert shown.split() == ["grows", "linked", "pipe", "shrinks", "1231234"]


def test_answers_that_nobody_asked_for(daemon: LabDaemon) -> None:
    async def work(client: Client) -> None:
        for wrong in (
            Packet(type=Packet.PACKET_DATA, ID=7, data=b"x"),
            Packet(type=Packet.PACKET_DATA, ID=1 << 31, data=b"x"),
            Packet(type=Packet.PACKET_STAT, stat=file("late")),
            Packet(type=Packet.PACKET_ERR, data=b"the disk is on fire"),
        ):

            async def context(call: SyncCall, wrong: fsutil_pb2.Packet = wrong) -> None:
                await call.send(Packet(type=Packet.PACKET_STAT, stat=file("a", b"x")))
                await call.send(Packet())
                await call.receive()
                await call.send(wrong)
                await asyncio.sleep(60)

            with pytest.raises(RpcError, match="cannot read the build context"):
                await FakeClient(client, context=context).build(Exporters=exporters("cacheonly"))

    run(daemon, work)


def test_the_next_build_is_right(daemon: LabDaemon, tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
    done = daemon.wherry("build", "-o", str(tmp_path / "out"), str(tmp_path))
    assert done.code == 0, done.errors
    assert (tmp_path / "out" / "file").read_text() == "x"
