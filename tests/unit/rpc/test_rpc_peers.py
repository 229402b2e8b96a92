"""Our server with grpcio's client, our client with grpcio's server: all kinds of calls and of ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from patience import patiently
from rpc_tools import (
    DETAIL,
    Demo,
    DemoService,
    Stubs,
    connected,
    grpcio_channel,
    grpcio_served,
    pair,
    run,
    served,
)

from wherry.rpc.metadata import Metadata
from wherry.rpc.proto import status_pb2
from wherry.rpc.status import Code, RpcError

SIZES = [0, 1, 16_379, 65_530, 65_536, 1 << 20, 5_000_001]


async def messages(*sizes: int):  # type: ignore[no-untyped-def]
    for size in sizes:
        yield BytesValue(value=b"m" * size)


# grpcio asks our server.


def test_server_all_kinds(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = DemoService()
        async with served(tmp_path, service.routes()) as (_, where), grpcio_channel(where) as channel:
            stubs = Stubs(channel)
            for size in SIZES:
                assert len((await stubs.echo(BytesValue(value=b"e" * size))).value) == size
            assert [m.value async for m in stubs.count(BytesValue(value=b"200 3"))] == [b"xxx"] * 200
            assert (await stubs.sum(messages(*SIZES))).value == str(sum(SIZES)).encode()
            assert [len(m.value) async for m in stubs.mirror(messages(*SIZES))] == SIZES
            assert [m.value async for m in stubs.count(BytesValue(value=b"0"))] == []

    run(scenario())


def test_server_many_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, DemoService().routes()) as (_, where), grpcio_channel(where) as channel:
            stubs = Stubs(channel)
            answers = await asyncio.gather(*[stubs.echo(BytesValue(value=b"%d" % i)) for i in range(300)])
            assert [int(a.value) for a in answers] == list(range(300))

    run(scenario())


def test_server_metadata_and_trailers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, DemoService().routes()) as (_, where), grpcio_channel(where) as channel:
            call = Stubs(channel).echo(
                BytesValue(value=b"1"),
                metadata=[("x-text", "one"), ("x-text", "two"), ("x-raw-bin", b"\0\xff\x80")],
            )
            await call
            assert [v for k, v in await call.initial_metadata() if k == "x-text"] == ["one", "two"]
            assert dict(await call.trailing_metadata())["x-raw-bin"] == b"\0\xff\x80"

    run(scenario())


def test_server_errors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with served(tmp_path, DemoService().routes()) as (_, where), grpcio_channel(where) as channel:
            stubs = Stubs(channel)

            async def failure(call: object) -> grpc.aio.AioRpcError:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call  # type: ignore[misc]
                return caught.value

            error = await failure(stubs.fail(StringValue(value="detail")))
            assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "grün 100% \n")
            packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
            whole = status_pb2.Status.FromString(packed)
            assert (whole.code, whole.message) == (9, "grün 100% \n")
            assert [(d.type_url, d.value) for d in whole.details] == [(DETAIL.type_url, DETAIL.value)]

            error = await failure(stubs.fail(StringValue(value="tree")))
            assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
            error = await failure(stubs.fail(StringValue(value="defect")))
            assert error.code() == grpc.StatusCode.INTERNAL
            assert "ZeroDivisionError" in (error.details() or "")
            # What is more than the client takes as headers is cut, and the code still arrives.
            error = await failure(stubs.fail(StringValue(value="large")))
            assert error.code() == grpc.StatusCode.ABORTED
            error = await failure(stubs.unknown(BytesValue()))
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED
            assert error.details() == "unknown method Nothing for service test.Demo"
            error = await failure(stubs.elsewhere(BytesValue()))
            assert error.details() == "unknown service test.Other"

    run(scenario())
    assert "/test.Demo/Fail failed" in caplog.text


def test_server_deadline_and_cancellation(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = DemoService()
        async with served(tmp_path, service.routes()) as (_, where), grpcio_channel(where) as channel:
            stubs = Stubs(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stubs.hang(BytesValue(), timeout=0.2)
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await service.noted("cleaned")
            service.log.clear()
            call = stubs.hang(BytesValue())
            await asyncio.sleep(0)
            await service.noted("began")
            call.cancel()
            await service.noted("cancelled")
            await service.noted("cleaned")

    run(scenario())


def test_server_ends_before_the_client(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, DemoService().routes()) as (_, where), grpcio_channel(where) as channel:
            stubs = Stubs(channel)
            call = stubs.early()
            await call.write(BytesValue(value=b"1"))
            assert (await call.read()).value == b"enough"
            assert await call.read() is grpc.aio.EOF
            assert await call.code() == grpc.StatusCode.OK
            # The connection is as good as before.
            assert (await stubs.echo(BytesValue(value=b"2"))).value == b"2"

    run(scenario())


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_server_compression(tmp_path: Path, compression: grpc.Compression) -> None:
    async def scenario() -> None:
        async with served(tmp_path, DemoService().routes()) as (_, where), grpcio_channel(where) as channel:
            call = Stubs(channel).echo(BytesValue(value=b"z" * 100_000), compression=compression)
            if compression is grpc.Compression.Gzip:
                assert (await call).value == b"z" * 100_000
            else:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
                assert "compression 'deflate' is not supported" in (caught.value.details() or "")

    run(scenario())


def test_server_gzip_bomb(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, DemoService().routes()) as (_, where), grpcio_channel(where) as channel:
            call = Stubs(channel).echo(BytesValue(value=bytes(200 << 20)), compression=grpc.Compression.Gzip)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    run(scenario())


# Our client asks grpcio.


def test_client_all_kinds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with grpcio_served(tmp_path) as (_, where), connected(where) as client:
            for size in SIZES:
                answer = await client.unary(Demo.Echo, BytesValue(value=b"e" * size))
                assert len(answer.value) == size
            async with client.stream(Demo.Count) as counted:
                await counted.send(BytesValue(value=b"200 3"), end=True)
                assert [m.value async for m in counted] == [b"xxx"] * 200
            async with client.stream(Demo.Sum) as summed:
                for size in SIZES:
                    await summed.send(BytesValue(value=b"m" * size))
                await summed.end()
                assert (await summed.response()).value == str(sum(SIZES)).encode()
            async with client.stream(Demo.Mirror) as mirrored:
                for size in SIZES:
                    await mirrored.send(BytesValue(value=b"m" * size))
                    message = await mirrored.receive()
                    assert message is not None and len(message.value) == size
                await mirrored.end()
                assert await mirrored.receive() is None

    run(scenario())


def test_client_metadata_and_trailers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with grpcio_served(tmp_path) as (_, where), connected(where) as client:
            sent = Metadata([("x-text", "one"), ("x-text", "two"), ("x-raw-bin", b"\0\xff\x80")])
            async with client.stream(Demo.Echo, sent) as call:
                await call.send(BytesValue(value=b"1"), end=True)
                assert (await call.headers()).all("x-text") == ["one", "two"]
                await call.response()
                assert call.trailers().get_bytes("x-raw-bin") == b"\0\xff\x80"

    run(scenario())


def test_client_errors(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with grpcio_served(tmp_path) as (_, where), connected(where) as client:
            for text in ("plain", "odd"):
                with pytest.raises(RpcError) as caught:
                    await client.unary(Demo.Fail, StringValue(value=text))
                assert caught.value.code is Code.FAILED_PRECONDITION
                assert caught.value.message == "grün 100% \n"

    run(scenario())


def test_details_arrive_whole() -> None:
    async def scenario() -> None:
        async with pair(DemoService().routes()) as (client, _):
            with pytest.raises(RpcError) as caught:
                await client.unary(Demo.Fail, StringValue(value="detail"))
            assert caught.value.details == (DETAIL,)

    run(scenario())


def test_client_deadline_and_cancellation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with grpcio_served(tmp_path) as (service, where), connected(where) as client:
            with pytest.raises(RpcError) as caught:
                await client.unary(Demo.Hang, BytesValue(), timeout=0.2)
            assert caught.value.code is Code.DEADLINE_EXCEEDED
            await asyncio.wait_for(service.cancelled.wait(), patiently(10))
            service.cancelled.clear()
            task = asyncio.create_task(client.unary(Demo.Hang, BytesValue()))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(service.cancelled.wait(), patiently(10))
            assert (await client.unary(Demo.Echo, BytesValue(value=b"3"))).value == b"3"

    run(scenario())


def test_client_of_a_server_that_ends_early(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with grpcio_served(tmp_path) as (_, where), connected(where) as client:
            async with client.stream(Demo.Early) as call:
                for _ in range(200):
                    await call.send(BytesValue(value=b"x" * 100_000))  # More than the windows hold.
                assert [m.value async for m in call] == [b"enough"]
            assert (await client.unary(Demo.Echo, BytesValue(value=b"2"))).value == b"2"

    run(scenario())


def test_client_compression(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            grpcio_served(tmp_path, grpc.Compression.Gzip) as (_, where),
            connected(where) as client,
        ):
            answer = await client.unary(Demo.Echo, BytesValue(value=b"z" * 100_000))
            assert answer.value == b"z" * 100_000

    run(scenario())


def test_a_peer_stops_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with grpcio_served(tmp_path) as (_, where), connected(where) as client:
            assert (await client.unary(Demo.Echo, BytesValue(value=b"1"))).value == b"1"
        assert client.connection.closing
        with pytest.raises(RpcError) as caught:
            await client.unary(Demo.Echo, BytesValue())
        assert caught.value.code is Code.UNAVAILABLE

    run(scenario())
