"""The hub's error answers: the codes of the distribution specification ("Error Codes") and their statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.errors import WherryError

STATUS: dict[str, int] = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "PAGINATION_NUMBER_INVALID": 400,
    "RANGE_INVALID": 416,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNAVAILABLE": 503,
    "UNSUPPORTED": 405,
}


class Refusal(WherryError):
    """One error of the protocol: its code, a message for people, and details for programs.

    :ivar status: the HTTP status, by default that of the code.
    :ivar headers: further headers of the answer, such as ``Retry-After`` or an upload's ``Location``.
    """

    expected = True

    def __init__(
        self,
        code: str,
        text: str,
        *,
        detail: Any = None,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.code, self.detail = code, detail
        self.status = status or STATUS[code]
        self.headers = dict(headers or {})
