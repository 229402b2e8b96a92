"""What traces are, and where they are sent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from wherry.errors import InvalidArgument
from wherry.tracing import settings, spans
from wherry.tracing.exporter import TraceExporter
from wherry.tracing.settings import TraceSettings

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, True),
        ({"OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_whether_they_are_wanted(more: dict[str, str], wanted: bool) -> None:
    assert settings.named({**HERE, **more}) is wanted


def test_what_the_environment_says() -> None:
    found = settings.read(
        {
            **HERE,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x,a=b",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_RESOURCE_ATTRIBUTES": "host.name=h,service.name=other",
            "OTEL_SERVICE_NAME": "engine",
        }
    )
    assert found.endpoint == "http://collector:4318/v1/traces" and found.timeout == 2.5
    assert found.headers == {"authorization": "Bearer x", "a": "b"}
    assert found.resource == {"host.name": "h", "service.name": "engine"}
    own = settings.read({**HERE, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t.example/x"})
    assert own.endpoint == "https://t.example/x" and own.resource == {"service.name": "wherryd"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "nothing"),
    ],
)
def test_what_cannot_be_done_is_named(variable: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match=variable):
        settings.read({**HERE, variable: value})


def test_a_request_within_the_clients_trace_and_without() -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    facts: dict[str, Any] = {"stream": False, "now": 2_000_000_000}
    span = spans.of_request("GET", "/info", 200, 0.5, parent=parent, **facts)
    assert (span["traceId"], span["parentSpanId"]) == ("a" * 32, "b" * 16)
    assert (span["startTimeUnixNano"], span["endTimeUnixNano"]) == ("1500000000", "2000000000")
    assert "status" not in span and span["name"] == "GET /info"
    for wrong in ("", "x", f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'0' * 16}-01"):
        alone = spans.of_request("", "", 500, 0, parent=wrong, **facts)
        assert "parentSpanId" not in alone and alone["traceId"] != "a" * 32
        assert alone["status"]["code"] == 2 and alone["name"] == "HTTP"


class Collector:
    """Answers with the statuses that it is given, then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[dict[str, Any]] = []

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        status = self.statuses.pop(0) if self.statuses else 200
        body = json.loads(await request.read())
        if status == 200:
            self.got += body["resourceSpans"][0]["scopeSpans"][0]["spans"]
        return web.Response(status=status)

    async def __aenter__(self) -> str:
        self.runner = web.ServerRunner(web.Server(self._answer))
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        host, port = self.runner.addresses[0][:2]
        return f"http://{host}:{port}/v1/traces"

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


def span(number: int) -> spans.Span:
    return {"name": str(number)}


@pytest.mark.parametrize(("statuses", "arrive"), [((), True), ((503,), True), ((400,), False)])
def test_what_is_refused_for_good_is_not_sent_again(statuses: tuple[int, ...], arrive: bool) -> None:
    async def work() -> list[str]:
        collector = Collector(*statuses)
        async with collector as endpoint:
            exporter = TraceExporter(TraceSettings(endpoint, resource={"service.name": "x"}))
            exporter.take(span(1))
            await exporter._send()
            exporter.take(span(2))
            await exporter.close()
        return [each["name"] for each in collector.got]

    assert asyncio.run(work()) == (["1", "2"] if arrive else ["2"])


def test_without_a_collector_the_oldest_are_dropped_and_nothing_fails() -> None:
    async def work() -> list[str]:
        exporter = TraceExporter(TraceSettings("http://127.0.0.1:1/v1/traces", timeout=1))
        for number in range(5000):
            exporter.take(span(number))
        await exporter.close()
        return [each["name"] for each in exporter._waiting]

    left = asyncio.run(work())
    assert len(left) == 4096 and left[0] == "904" and left[-1] == "4999"
