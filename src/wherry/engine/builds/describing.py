"""``--call``: what a Dockerfile says, instead of a build: its checks, its targets, what one of them takes."""

from __future__ import annotations

from typing import Any

from wherry.build import checks, describe
from wherry.build import instructions as ins
from wherry.build.checktypes import Context as CheckContext
from wherry.build.checktypes import Finding, Options
from wherry.build.errors import excerpt
from wherry.engine.builds.requests import BuildRequest
from wherry.engine.builds.worker import Inputs
from wherry.errors import InvalidArgument
from wherry.model.ignore import Patterns, read

CHECK_ARG = "BUILDKIT_DOCKERFILE_CHECK"


def called(call: str, dockerfile: ins.Dockerfile, request: BuildRequest, inputs: Inputs) -> dict[str, Any]:
    """:raises InvalidArgument: there is no such call."""
    if call in ("check", "lint"):
        found = findings(dockerfile, request, inputs)
        return {"Findings": [document(one, dockerfile) for one in found]}
    if call == "targets":
        return {
            "Targets": [
                {
                    "Name": one.name,
                    "Default": one.default,
                    "Description": one.description,
                    "Base": one.base,
                    "Platform": one.platform,
                }
                for one in describe.targets(dockerfile)
            ]
        }
    if call == "outline":
        return _outline(describe.outline(dockerfile, request.target, request.build_args))
    raise InvalidArgument(f"invalid call {call!r}: build, check, outline or targets")


def _outline(outline: describe.Outline) -> dict[str, Any]:
    return {
        "Target": outline.target.name,
        "Description": outline.target.description,
        "Arguments": [
            {"Name": a.name, "Value": a.value or "", "Description": a.description} for a in outline.arguments
        ],
        "Secrets": [{"Name": n.name, "Required": n.required} for n in outline.secrets],
        "SSH": [{"Name": n.name, "Required": n.required} for n in outline.ssh],
        "Caches": [{"Name": n.name} for n in outline.caches],
    }


def options_of(dockerfile: ins.Dockerfile, request: BuildRequest) -> Options:
    """The directive's, or the build argument's that stands in for it."""
    return Options.parse(request.build_args.get(CHECK_ARG, dockerfile.check))


def findings(dockerfile: ins.Dockerfile, request: BuildRequest, inputs: Inputs) -> list[Finding]:
    """What the checks find. :raises InvalidArgument: the directive is none."""
    context = inputs.contexts.get("")
    ignored = None
    if context is not None:
        for name in (f"{dockerfile.name}.dockerignore", ".dockerignore"):
            data = context.read(name)
            if data is not None:
                ignored = Patterns(read(data.decode("utf-8", "replace")))
                break
    wanted = CheckContext(dockerfile, request.build_args, ignored)
    return checks.check(wanted, options_of(dockerfile, request))


def document(finding: Finding, dockerfile: ins.Dockerfile) -> dict[str, Any]:
    return {
        "Rule": finding.rule,
        "Description": finding.description,
        "Detail": finding.detail,
        "URL": finding.url,
        "Line": finding.location.first,
        "Excerpt": excerpt(dockerfile.source, finding.location, dockerfile.name),
    }


def warning(finding: Finding) -> str:
    """One line, as BuildKit's."""
    return f"{finding.rule}: {finding.detail} (line {finding.location.first})"
