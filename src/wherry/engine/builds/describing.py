"""``--call``: describe a Dockerfile instead of building it: its checks, its targets, a target's arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from wherry.dockerfile import checks, describe
from wherry.dockerfile import instructions as ins
from wherry.dockerfile.checktypes import CheckContext, CheckFinding, CheckOptions
from wherry.dockerfile.errors import excerpt
from wherry.engine.builds.requests import BuildRequest
from wherry.errors import InvalidArgument
from wherry.model.ignore import Patterns, read

Variables = Callable[[str], Collection[str] | None]
CHECK_ARG = "BUILDKIT_DOCKERFILE_CHECK"


def called(
    call: str,
    dockerfile: ins.Dockerfile,
    request: BuildRequest,
    ignore: bytes | None,
    variables: Variables,
) -> dict[str, Any]:
    """:param variables: the variables that the base images set, as far as they are known.

    :raises InvalidArgument: there is no such call."""
    if call in ("check", "lint"):
        found = findings(dockerfile, request, ignore, variables)
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


def options_of(dockerfile: ins.Dockerfile, request: BuildRequest) -> CheckOptions:
    """The options of the ``check`` directive, or of the build argument that replaces it."""
    return CheckOptions.parse(request.build_args.get(CHECK_ARG, dockerfile.check))


def findings(
    dockerfile: ins.Dockerfile, request: BuildRequest, ignore: bytes | None, variables: Variables
) -> list[CheckFinding]:
    """The results of the checks. ``ignore`` is the ``.dockerignore``.

    :raises InvalidArgument: the directive is invalid.
    """
    ignored = None if ignore is None else Patterns(read(ignore.decode("utf-8", "replace")))
    wanted = CheckContext(dockerfile, request.build_args, ignored, variables)
    return checks.check(wanted, options_of(dockerfile, request))


def document(finding: CheckFinding, dockerfile: ins.Dockerfile) -> dict[str, Any]:
    return {
        "Rule": finding.rule,
        "Description": finding.description,
        "Detail": finding.detail,
        "URL": finding.url,
        "Line": finding.location.first,
        "Excerpt": excerpt(dockerfile.source, finding.location, dockerfile.name),
    }


__all__ = ["CheckFinding", "called", "describe", "document", "excerpt", "findings", "ins", "options_of"]
