"""A blob of another registry: sent to a client while it is being fetched, or afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from wherry.errors import WherryError
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry.context import Ask
from wherry.hub.registry.flights import FlightReader
from wherry.hub.registry.proxying import away
from wherry.hub.remote.registry import RemoteBlob
from wherry.hub.store.proxies import Proxy


async def fetched(
    ask: Ask, proxy: Proxy, digest: str, headers: Mapping[str, str]
) -> web.StreamResponse | None:
    """The response; None if the blob is stored now and can be sent like any other.

    :raises Refusal: the other registry does not have the blob, or does not answer.
    """
    hub = ask.hub
    if ask.request.method == "HEAD":
        blob = await hub.flights.passing(proxy, ask.name, digest)
        blob.close()
        length = {} if blob.size is None else {"Content-Length": str(blob.size)}
        return web.Response(headers={**headers, **length})
    flight = await hub.flights.join(proxy, ask.name, digest)
    reader: FlightReader | RemoteBlob | None = None
    size = flight.size
    if not flight.kept:
        reader = await hub.flights.passing(proxy, ask.name, digest)
        size = reader.size
    elif size is not None and "Range" not in ask.request.headers:
        reader = flight.reader()
    if reader is None:
        try:
            await flight.landed()
        except Refusal:
            raise
        except WherryError as e:
            raise away(e) from e
        return None
    try:
        return await _stream(ask, size, reader.pieces(), headers)
    finally:
        reader.close()


async def _stream(
    ask: Ask, size: int | None, pieces: AsyncIterator[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    length = {} if size is None else {"Content-Length": str(size)}
    response = web.StreamResponse(headers={**headers, **length})
    await response.prepare(ask.request)
    sent = 0
    try:
        async for piece in pieces:
            await response.write(piece)
            sent += len(piece)
    except (WherryError, OSError) as e:  # headers are already sent: close the connection to signal the error
        raise ConnectionResetError(str(e)) from e
    if size is not None and sent != size:
        raise ConnectionResetError("the blob is shorter than the size that the other registry announced")
    ask.hub.counters.bytes["out"] += sent
    await response.write_eof()
    return response
