"""Objects in a store with the S3 API, through aiobotocore.

    s3://BUCKET/PREFIX/<first two digits of the key>/<key>          a whole object
    s3://BUCKET/PREFIX/<first two digits of the key>/<key>.tail     the end of an open object that
                                                                    is too short for a part

An open object is a multipart upload with the final key, so finishing copies no data. Parts have at least 5
MiB, so the rest of a request is stored separately as the *tail*, and becomes the beginning of the next part.
``state`` has everything that another replica needs to continue: the upload's id, its parts, the tail's size.
A short upload, below the size of one part, does not use a multipart upload. Credentials, region and endpoint
come from the same sources as for the AWS tools (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` …).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiobotocore.session
from aiobotocore.config import AioConfig
from aiohttp import ClientError as BrokenOff
from botocore.exceptions import BotoCoreError, ClientError

from wherry.errors import InvalidArgument
from wherry.hub.store.objects import CHUNK, Away, Full, ObjectLost, StoredObject

PART = 8 << 20
"""The size of a part in bytes. A part is in memory until it has been sent. S3 allows at most 10,000 parts, so
from the thousandth on they are four times as large: 300 GB in total."""
_SMALL_PARTS = 1000
_PART_MIN = 5 << 20
_AT_ONCE = 16
"""The number of deletions at the same time; not every store can delete many objects in one request."""
_GONE = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchUpload"})


def _gone(error: ClientError) -> bool:
    return str(error.response.get("Error", {}).get("Code", "")) in _GONE


class _State:
    """The state of an open object."""

    def __init__(self, text: str) -> None:
        known: dict[str, Any] = json.loads(text) if text else {}
        self.upload: str = known.get("upload", "")
        self.parts: list[tuple[str, int]] = [(etag, size) for etag, size in known.get("parts", [])]
        self.tail: int = known.get("tail", 0)

    def text(self) -> str:
        return json.dumps({"upload": self.upload, "parts": self.parts, "tail": self.tail})

    @property
    def size(self) -> int:
        return sum(size for _, size in self.parts) + self.tail

    def listed(self) -> dict[str, Any]:
        return {"Parts": [{"ETag": etag, "PartNumber": i} for i, (etag, _) in enumerate(self.parts, 1)]}


class S3Appending:
    """Collects pieces until they fill a part."""

    def __init__(self, store: S3, key: str, state: _State, tail: bytes) -> None:
        self._store, self._key, self._state = store, key, state
        self._pieces: list[bytes] = [tail] if tail else []
        self._size = len(tail)

    async def write(self, pieces: Sequence[bytes]) -> None:
        self._pieces += pieces
        self._size += sum(map(len, pieces))
        if self._size >= (PART if len(self._state.parts) < _SMALL_PARTS else 4 * PART):
            await self._part()

    async def _part(self) -> None:
        body = b"".join(self._pieces)
        etag = await self._store.put_part(self._key, self._state, body)
        self._state.parts.append((etag, len(body)))
        self._pieces, self._size = [], 0

    async def close(self) -> str:
        if self._size >= _PART_MIN:
            await self._part()
        body = b"".join(self._pieces)
        self._state.tail = len(body)
        if body:
            await self._store.put(f"{self._key}.tail", body)
        return self._state.text()

    async def abandon(self) -> None:
        self._pieces = []


class S3:
    """Objects in S3; see the module's docstring. All requests use one client, which the first one creates."""

    min_chunk = _PART_MIN

    def __init__(self, url: str) -> None:
        """:param url: ``s3://BUCKET/PREFIX``."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if len(bucket) < 3:
            raise InvalidArgument(f"objects: invalid bucket name {bucket!r}")
        self._bucket, self._prefix = bucket, prefix.strip("/")
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._making = asyncio.Lock()

    def describe(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    async def _s3(self) -> Any:
        async with self._making:
            if self._client is None:
                config = AioConfig(
                    signature_version="s3v4",
                    # We verify digests ourselves; other stores than Amazon's do not support these checksums.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    retries={"max_attempts": 5, "mode": "standard"},
                    connect_timeout=10,
                    read_timeout=60,
                    max_pool_connections=64,
                )
                session = aiobotocore.session.get_session()
                self._client = await self._stack.enter_async_context(
                    session.create_client("s3", config=config)
                )
        return self._client

    def _name(self, key: str) -> str:
        path = f"{key[:2]}/{key}"
        return f"{self._prefix}/{path}" if self._prefix else path

    async def _call(self, method: str, key: str, **more: Any) -> Any:
        """:raises Full: the store refuses it, or does not answer. :raises ClientError: any other error."""
        client = await self._s3()
        try:
            return await getattr(client, method)(Bucket=self._bucket, Key=self._name(key), **more)
        except BotoCoreError as e:
            raise Away(f"the object store does not answer: {e}") from e
        except ClientError as e:
            if _gone(e):
                raise
            raise Away(f"the object store refused the request: {e}") from e

    async def put(self, key: str, body: bytes) -> None:
        await self._call("put_object", key, Body=body)

    async def put_part(self, key: str, state: _State, body: bytes) -> str:
        """Send a part. The first one begins the multipart upload. :returns: the part's etag."""
        if not state.upload:
            state.upload = (await self._call("create_multipart_upload", key))["UploadId"]
        try:
            done = await self._call(
                "upload_part", key, UploadId=state.upload, PartNumber=len(state.parts) + 1, Body=body
            )
        except ClientError as e:
            raise Full("the upload no longer exists") from e
        etag: str = done["ETag"]
        return etag

    async def append(self, key: str, state: str, offset: int) -> S3Appending:
        known = _State(state)
        if known.size != offset:
            raise ObjectLost(f"an upload has {known.size} bytes, not {offset}")
        tail = await self._whole(f"{key}.tail", known.tail) if known.tail else b""
        known.tail = 0
        return S3Appending(self, key, known, tail)

    async def _whole(self, key: str, size: int) -> bytes:
        return b"".join([piece async for piece in self.read(key, 0, size - 1)])

    async def finish(self, key: str, state: str, size: int) -> None:
        known = _State(state)
        if known.size != size:
            raise ObjectLost(f"an upload has {known.size} bytes, not {size}")
        tail = await self._whole(f"{key}.tail", known.tail) if known.tail else b""
        if not known.upload:
            await self.put(key, tail)
        else:
            if tail:
                etag = await self.put_part(key, known, tail)
                known.parts.append((etag, len(tail)))
            try:
                await self._call(
                    "complete_multipart_upload", key, UploadId=known.upload, MultipartUpload=known.listed()
                )
            except ClientError as e:
                # An earlier request may have completed it and been killed before it recorded that.
                if await self.size(key) != size:
                    raise ObjectLost("the upload no longer exists") from e
        if known.tail:
            await self.delete(f"{key}.tail")

    async def discard(self, key: str, state: str) -> None:
        for upload in await self._multipart(key):
            try:
                await self._call("abort_multipart_upload", key, UploadId=upload)
            except ClientError:
                pass  # already completed or aborted
        await self.delete(f"{key}.tail", key)

    async def _multipart(self, key: str) -> list[str]:
        """The ids of the key's multipart uploads, also of one whose process was killed before it recorded the
        id."""
        client, name = await self._s3(), self._name(key)
        try:
            found = await client.list_multipart_uploads(Bucket=self._bucket, Prefix=name)
        except (BotoCoreError, ClientError) as e:
            raise Away(f"the object store does not answer: {e}") from e
        return [one["UploadId"] for one in found.get("Uploads", []) if one["Key"] == name]

    async def delete(self, *keys: str) -> None:
        for start in range(0, len(keys), _AT_ONCE):
            await asyncio.gather(*(self._delete(key) for key in keys[start : start + _AT_ONCE]))

    async def _delete(self, key: str) -> None:
        try:
            await self._call("delete_object", key)
        except ClientError:
            pass  # it does not exist

    async def size(self, key: str) -> int | None:
        try:
            return int((await self._call("head_object", key))["ContentLength"])
        except ClientError:
            return None

    def path(self, key: str) -> Path | None:
        return None

    async def read(self, key: str, first: int, last: int) -> AsyncIterator[bytes]:
        if last < first:
            return
        try:
            found = await self._call("get_object", key, Range=f"bytes={first}-{last}")
        except ClientError as e:
            raise ObjectLost(f"no object {key}") from e
        left, body = last - first + 1, found["Body"]
        try:
            while left:
                piece: bytes = await body.read(CHUNK)
                if not piece:
                    raise ObjectLost(f"object {key}: {left} bytes are missing")
                left -= len(piece)
                yield piece
        except (BotoCoreError, OSError, BrokenOff) as e:
            raise Away(f"the object store interrupted the transfer: {e}") from e
        finally:
            body.close()

    async def address(self, key: str, seconds: int) -> str | None:
        client = await self._s3()
        url: str = await client.generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": self._name(key)}, ExpiresIn=seconds
        )
        return url

    async def all(self) -> AsyncIterator[StoredObject]:
        client = await self._s3()
        prefix = f"{self._prefix}/" if self._prefix else ""
        async for page in client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        ):
            for one in page.get("Contents", []):
                name = one["Key"].rpartition("/")[2]
                yield StoredObject(name, int(one["Size"]), one["LastModified"].timestamp())

    async def check_room(self, size: int) -> None:
        return None  # a bucket has no limit that could be queried

    async def close(self) -> None:
        await self._stack.aclose()
