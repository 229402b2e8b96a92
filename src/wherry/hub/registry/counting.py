"""Counters of requests, and counts of pulls that are not yet in the database.

A pull is a GET of a manifest. It costs one addition in a dict; every few seconds the sums are written, with
one statement for each row. If the process is killed, the last seconds of counts are lost, but never a pull
itself.
"""

from __future__ import annotations

from collections import Counter

from wherry.hub.store import insights
from wherry.hub.store.insights import PullKey
from wherry.hub.store.sql import HubDatabase, Tx, now

_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)

_CLIENTS = (
    ("podman", "podman"), ("buildah", "podman"), ("libpod", "podman"), ("skopeo", "skopeo"),
    ("containerd", "containerd"), ("cri-o", "cri-o"), ("buildkit", "buildkit"), ("wherry", "wherry"),
    ("docker", "docker"), ("containers/", "podman"), ("crane", "crane"), ("oras", "oras"),
    ("mozilla", "browser"),
)  # fmt: skip


def client_of(agent: str) -> str:
    """The class of a client, by its ``User-Agent``: one of a few words, so that rows stay few."""
    lower = agent[:200].lower()
    return next((name for part, name in _CLIENTS if part in lower), "other")


class Counters:
    """Used on the loop only."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.took: Counter[tuple[str, float]] = Counter()
        self.seconds: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.running = 0
        self._pulls: Counter[PullKey] = Counter()
        self._tags: dict[tuple[int, str], int] = {}

    def answered(self, kind: str, method: str, status: int, seconds: float) -> None:
        self.requests[kind, method, status] += 1
        self.seconds[kind] += seconds  # type: ignore[assignment]
        for bound in _BUCKETS:
            if seconds <= bound:
                self.took[kind, bound] += 1

    def pulled(self, repository: int, tag: str, digest: str, agent: str) -> None:
        """:param tag: empty for a pull by digest. :param agent: the client's ``User-Agent``."""
        self._pulls[PullKey(repository, tag, digest, client_of(agent))] += 1
        if tag:
            self._tags[repository, tag] = now()

    async def flush(self, db: HubDatabase) -> None:
        pulls, self._pulls = self._pulls, Counter()
        tags, self._tags = self._tags, {}
        if not pulls and not tags:
            return

        def write(tx: Tx) -> None:
            # All replicas use the same order, so that they never deadlock.
            sums: Counter[int] = Counter()
            for key, count in pulls.items():
                sums[key.repository] += count
            for repository, count in sorted(sums.items()):
                tx.run("UPDATE repository SET pulls = pulls + ? WHERE id = ?", count, repository)
            insights.count(tx, pulls)
            for (repository, tag), moment in sorted(tags.items()):
                tx.run(
                    "UPDATE tag SET last_pulled = ? WHERE repository_id = ? AND name = ?"
                    " AND (last_pulled IS NULL OR last_pulled < ?)",
                    moment, repository, tag, moment - 3600,
                )  # fmt: skip

        try:
            await db.write(write)
        except BaseException:
            self._pulls.update(pulls)
            self._tags = {**tags, **self._tags}
            raise

    def text(self) -> str:
        """In Prometheus' text format (version 0.0.4)."""
        lines = ["# TYPE wherry_hub_requests_total counter"]
        for (kind, method, status), count in sorted(self.requests.items()):
            lines.append(
                f'wherry_hub_requests_total{{kind="{kind}",method="{method}",status="{status}"}} {count}'
            )
        lines.append("# TYPE wherry_hub_request_seconds histogram")
        totals: Counter[str] = Counter()
        for (kind, _, _), count in self.requests.items():
            totals[kind] += count
        for kind in sorted(totals):
            for bound in _BUCKETS:
                count = self.took[kind, bound]
                lines.append(f'wherry_hub_request_seconds_bucket{{kind="{kind}",le="{bound:g}"}} {count}')
            lines.append(f'wherry_hub_request_seconds_bucket{{kind="{kind}",le="+Inf"}} {totals[kind]}')
            lines.append(f'wherry_hub_request_seconds_sum{{kind="{kind}"}} {self.seconds[kind]:.6f}')
            lines.append(f'wherry_hub_request_seconds_count{{kind="{kind}"}} {totals[kind]}')
        lines.append("# TYPE wherry_hub_bytes_total counter")
        lines += [f'wherry_hub_bytes_total{{direction="{d}"}} {n}' for d, n in sorted(self.bytes.items())]
        lines += ["# TYPE wherry_hub_requests_running gauge", f"wherry_hub_requests_running {self.running}"]
        return "\n".join(lines) + "\n"
