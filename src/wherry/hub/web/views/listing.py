"""Lists of events with filters, for audits."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse

from wherry.hub.store import events
from wherry.hub.store.events import EventFilter, HubEvent
from wherry.hub.store.sql import Tx
from wherry.hub.web.asking import number

PAGE = 50
_CSV_MAX = 10_000


def _day(text: str, *, end: bool = False) -> int | None:
    try:
        moment = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) + (86399 if end else 0)


def _find(request: HttpRequest, tx: Tx, count: int, namespace: str) -> list[HubEvent]:
    get = request.GET
    wanted = EventFilter(
        namespace=namespace or get.get("namespace", "")[:64].replace("\0", ""),
        repository=get.get("repository", "")[:255].replace("\0", ""),
        actor=get.get("actor", "")[:128].replace("\0", ""),
        action=get.get("action", "")[:64].replace("\0", ""),
        since=_day(get.get("since", "")) or 0,
        until=_day(get.get("until", ""), end=True) or 2**62,
    )
    before = number(get.get("before", ""), 2**62, 2**62) or 2**62
    return events.page(tx, wanted, before=before, count=count)


def events_of(request: HttpRequest, tx: Tx, namespace: str = "") -> dict[str, Any]:
    """A page of events for the filters of the query."""
    lines = _find(request, tx, PAGE + 1, namespace)
    more = lines[PAGE - 1].id if len(lines) > PAGE else None
    return {"lines": lines[:PAGE], "more": more, "later": "before" in request.GET, "filters": request.GET}


def as_csv(request: HttpRequest, tx: Tx) -> HttpResponse:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("id", "time", "account", "address", "action", "repository", "detail"))
    for one in _find(request, tx, _CSV_MAX, ""):
        moment = datetime.fromtimestamp(one.at, UTC).isoformat()
        cells = (one.id, moment, one.actor, one.address, one.action, one.repository, one.detail)
        # A cell that begins with one of these is a formula to spreadsheets.
        writer.writerow([f"'{c}" if str(c).startswith(("=", "+", "-", "@", "\t")) else c for c in cells])
    return HttpResponse(
        out.getvalue(), content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="audit.csv"'},
    )  # fmt: skip
