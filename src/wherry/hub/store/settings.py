"""The operator's settings: retention times and limits."""

from __future__ import annotations

from dataclasses import dataclass

DAY = 86400


@dataclass(frozen=True)
class HubSettings:
    """All times in seconds.

    :ivar grace: how long pushed content is kept without a reference; at least the duration of the longest
        push.
    :ivar keep_deleted: how long deleted content can be restored.
    :ivar keep_untagged: how long an image is kept after its last tag has moved to another; None: for ever.
    :ivar trash: how long an unreferenced object is kept; at least the duration of the longest transfer.
    :ivar upload: how long an upload may be idle.
    :ivar lease: how long the lease of a request that writes an upload is valid without renewal.
    :ivar proxy_keep: how long a copy of another registry's image is kept after its last pull.
    :ivar public: whether repositories that are created by a push are public.
    """

    grace: int = DAY
    keep_deleted: int = 7 * DAY
    keep_untagged: int | None = 90 * DAY
    trash: int = 3600
    upload: int = DAY
    lease: int = 20
    proxy_keep: int = 30 * DAY
    public: bool = False
    repositories_max: int = 100_000
    """The maximum number of repositories in a namespace."""
    uploads_max: int = 1000
    """The maximum number of open uploads of a repository. A hundred CI jobs may push at once, and the
    uploads of interrupted ones count for a day."""
