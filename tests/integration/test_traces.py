"""Traces of a daemon that works, at a collector."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemonlab import LabDaemon, new_base
from patience import until


class Collected(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict[str, Any]] = []

    def spans(self) -> list[dict[str, Any]]:
        return [
            span
            for body in list(self.bodies)
            for resource in body["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [span for span in self.spans() if span["name"] == name]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collected

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces" and self.headers["X-Key"] == "secret"
        self.server.bodies.append(json.loads(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def collector() -> Iterator[Collected]:
    with Collected() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_requests_and_builds(collector: Collected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "X-Key=secret")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    daemon = LabDaemon(new_base())
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo of a step\nRUN false\n")
    try:
        daemon.start()
        daemon.bootstrap()
        assert daemon.docker("build", str(tmp_path)).code
        daemon.docker("run", "--rm", "busybox", "true").ok()
        daemon.end()  # what waits is sent
    finally:
        daemon.destroy()
    (resource,) = {json.dumps(body["resourceSpans"][0]["resource"]) for body in collector.bodies}
    assert "deployment.environment" in resource and "wherryd" in resource
    (started,) = collector.named("POST /containers/{id}/start")
    assert int(started["startTimeUnixNano"]) < int(started["endTimeUnixNano"]) and started["kind"] == 2
    (build,) = collector.named("build")
    steps = [span for span in collector.spans() if span.get("parentSpanId") == build["spanId"]]
    assert {span["traceId"] for span in steps} == {build["traceId"]} and build["status"]["code"] == 2
    assert any("echo of a step" in span["name"] and "status" not in span for span in steps)
    assert any("RUN false" in span["name"] and span["status"]["code"] == 2 for span in steps)


def test_a_collector_that_is_not_there_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    daemon = LabDaemon(new_base())
    daemon.expects("traces are not taken")
    try:
        daemon.start()
        daemon.docker("version").ok()
        assert daemon.end() == 0
        assert "traces are not taken by http://127.0.0.1:1/v1/traces" in daemon.log
    finally:
        daemon.destroy()


def test_what_cannot_be_done_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    daemon = LabDaemon(new_base())
    try:
        daemon.start(ready=False)
        until(lambda: daemon.process is not None and daemon.process.poll() is not None)
        assert "cannot use OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in daemon.log
    finally:
        daemon.destroy()
