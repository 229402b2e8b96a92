"""Facts about a build that the history keeps in addition to those of every face."""

from __future__ import annotations

from typing import Any

from wherry.buildkit.proto import control_pb2


def of(request: control_pb2.SolveRequest) -> dict[str, Any]:
    """The client's request: attributes, exporters."""
    exporters = [{"Type": one.Type, "Attrs": dict(one.Attrs)} for one in request.Exporters]
    return {
        "Frontend": request.Frontend or "dockerfile.v0",
        "FrontendAttrs": dict(request.FrontendAttrs),
        "Exporters": exporters,
    }
