"""What a build says, kept for who listens early, late and slowly."""

from __future__ import annotations

import asyncio

from wherry.buildkit.proto import control_pb2
from wherry.buildkit.status import BuildKitReport, StatusLog


def vertex(name: str) -> control_pb2.StatusResponse:
    message = control_pb2.StatusResponse()
    message.vertexes.add(digest=name, name=name)
    return message


async def names(log: StatusLog) -> list[str]:
    return [one.name async for message in log.follow() for one in message.vertexes]


def test_early_and_late_listeners_are_told_the_same() -> None:
    async def scenario() -> None:
        log = StatusLog()
        early = asyncio.ensure_future(names(log))
        await asyncio.sleep(0)
        for name in "abc":
            log.put(vertex(name))
            await asyncio.sleep(0)
        log.end()
        assert await early == await names(log) == ["a", "b", "c"]

    asyncio.run(scenario())


def test_output_is_clipped_and_comes_in_pieces() -> None:
    async def scenario() -> None:
        log = StatusLog()
        for _ in range(10):
            log.log("x", b"y" * 1_000_000, 1)
        log.log("other", b"whole", 1)
        log.end()
        messages = [message async for message in log.follow()]
        assert all(message.ByteSize() < 1 << 20 for message in messages)
        text = b"".join(one.msg for message in messages for one in message.logs)
        assert 2_000_000 <= len(text) < 3_000_000 and b"clipped" in text and b"whole" in text

    asyncio.run(scenario())


def test_a_pulls_lines_are_statuses_of_one_vertex() -> None:
    async def scenario() -> None:
        log = StatusLog()
        report = BuildKitReport("id", log)
        with report.task("load metadata for x") as tell:
            tell({"id": "layer", "status": "Downloading", "progressDetail": {"current": 5, "total": 10}})
            tell({"id": "layer", "status": "Pull complete"})
            tell({"status": "Digest: sha256:0"})
        log.end()
        messages = [message async for message in log.follow()]
        vertexes = [one for message in messages for one in message.vertexes]
        assert {one.name for one in vertexes} == {"[internal] load metadata for x"}
        assert vertexes[-1].HasField("completed") and not vertexes[0].HasField("completed")
        statuses = [one for message in messages for one in message.statuses if one.ID == "layer"]
        assert [(one.current, one.total) for one in statuses] == [(5, 10), (10, 10)]
        assert statuses[-1].HasField("completed")

    asyncio.run(scenario())
