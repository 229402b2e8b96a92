"""``--call``: describe a Dockerfile instead of building it, as JSON (``result.json``) and as text
(``result.txt``)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from wherry.buildkit.errors import unsupported_call
from wherry.engine.builds import describing
from wherry.engine.builds.describing import CheckFinding, Variables, describe, excerpt, ins
from wherry.engine.builds.onebuild import Read

_DESCRIPTIONS = [
    {
        "name": "frontend.outline",
        "version": "1.0.0",
        "type": "rpc",
        "description": "List all parameters current build target supports",
        "opts": [{"name": "target", "description": "Target build stage"}],
        "metadata": [{"name": "result.json"}, {"name": "result.txt"}],
    },
    {
        "name": "frontend.targets",
        "version": "1.0.0",
        "type": "rpc",
        "description": "List all targets current build supports",
        "opts": [],
        "metadata": [{"name": "result.json"}, {"name": "result.txt"}],
    },
    {
        "name": "frontend.lint",
        "version": "1.0.0",
        "type": "rpc",
        "description": "Lint a Dockerfile",
        "opts": [],
        "metadata": [{"name": "result.json"}, {"name": "result.txt"}, {"name": "result.statuscode"}],
    },
    {
        "name": "frontend.subrequests.describe",
        "version": "1.0.0",
        "type": "rpc",
        "description": "List available subrequest types",
        "metadata": [{"name": "result.json"}, {"name": "result.txt"}],
    },
]


def answer(call: str, found: Read, variables: Variables) -> Mapping[str, bytes]:
    """The metadata of a subrequest's result. :raises RpcError: there is no such subrequest."""
    if call == "frontend.lint":
        findings = describing.findings(found.dockerfile, found.request, found.ignore, variables)
        return _lint(findings, found.dockerfile)
    if call == "frontend.outline":
        outline = describe.outline(found.dockerfile, found.request.target, found.request.build_args)
        return _result(*_outline(outline, found.dockerfile))
    if call == "frontend.targets":
        return _result(*_targets(found.dockerfile))
    if call == "frontend.subrequests.describe":
        text = "".join(f"{one['name']}\t{one['description']}\n" for one in _DESCRIPTIONS)
        return _result(_DESCRIPTIONS, text)
    raise unsupported_call(call)


def _result(document: Any, text: str) -> dict[str, bytes]:
    return {"result.json": msgspec.json.encode(document), "result.txt": text.encode(), "version": b"1.0.0"}


def _source(dockerfile: ins.Dockerfile) -> dict[str, str]:
    data = base64.b64encode(dockerfile.source.encode("utf-8", "surrogateescape")).decode()
    return {"filename": dockerfile.name, "language": "Dockerfile", "data": data}


def _location(first: int, last: int) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": first}, "end": {"line": last}}]}


def _lint(findings: Sequence[CheckFinding], dockerfile: ins.Dockerfile) -> dict[str, bytes]:
    warnings = [
        {
            "ruleName": one.rule,
            "description": one.description,
            "url": one.url,
            "detail": one.detail,
            "location": {"sourceIndex": 0, **_location(one.location.first, one.location.last)},
        }
        for one in findings
    ]
    lines = []
    for one in findings:
        shown = excerpt(dockerfile.source, one.location, dockerfile.name)
        lines.append(f"\nWARNING: {one.rule} - {one.url}\n{one.description}\n{one.detail}\n\n{shown}\n")
    document = {"warnings": warnings, "sources": [_source(dockerfile)]}
    status = b"1" if findings else b"0"
    return {**_result(document, "".join(lines)), "result.statuscode": status}


def _outline(outline: describe.Outline, dockerfile: ins.Dockerfile) -> tuple[dict[str, Any], str]:
    document: dict[str, Any] = {"sources": [_source(dockerfile)["data"]]}
    name = _written_name(outline.target)
    if name:
        document["name"] = name
    if outline.target.description:
        document["description"] = outline.target.description
    groups: dict[str, list[dict[str, Any]]] = {
        "args": [
            {
                "name": a.name,
                **({"value": a.value} if a.value else {}),
                **({"description": a.description} if a.description else {}),
                "location": _location(a.location.first, a.location.last),
            }
            for a in outline.arguments
        ],
        "secrets": [{"name": n.name, "required": n.required} for n in outline.secrets],
        "ssh": [{"name": n.name, "required": n.required} for n in outline.ssh],
        "cache": [{"ID": n.name} for n in outline.caches],
    }
    document.update({key: value for key, value in groups.items() if value})
    lines = [f"TARGET:\t{name}\n"] if name else []
    if outline.target.description:
        lines.append(f"DESCRIPTION:\t{outline.target.description}\n")
    if groups["args"]:
        lines.append("\nBUILD ARG\tVALUE\tDESCRIPTION\n")
        lines += [f"{a.name}\t{a.value or ''}\t{a.description}\n" for a in outline.arguments]
    for title, key in (("SECRET", "secrets"), ("SSH", "ssh")):
        if groups[key]:
            lines.append(f"\n{title}\tREQUIRED\n")
            lines += [f"{one['name']}\t{str(one['required']).lower()}\n" for one in groups[key]]
    return document, "".join(lines)


def _written_name(target: describe.TargetDescription) -> str:
    """A stage without a name has its number for one here, which BuildKit leaves out."""
    return "" if target.name.isdigit() else target.name


def _targets(dockerfile: ins.Dockerfile) -> tuple[dict[str, Any], str]:
    found = [
        {
            **({"name": _written_name(one)} if _written_name(one) else {}),
            **({"default": True} if one.default else {}),
            **({"description": one.description} if one.description else {}),
            "base": one.base,
            **({"platform": one.platform} if one.platform else {}),
            "location": _location(one.location.first, one.location.last),
        }
        for one in describe.targets(dockerfile)
    ]
    lines = ["TARGET\tDESCRIPTION\n"]
    for one in describe.targets(dockerfile):
        shown = " ".join(filter(None, (_written_name(one), "(default)" if one.default else "")))
        lines.append(f"{shown}\t{one.description}\n")
    return {"targets": found, "sources": [_source(dockerfile)["data"]]}, "".join(lines)
