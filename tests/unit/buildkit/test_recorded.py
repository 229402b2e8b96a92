"""What buildx 0.13.1 and 0.29.1 sent, byte for byte, where no plugin is at hand.

tests/data/buildkit/{old,new}.solves: a letter (``c`` Control.Solve, ``g`` LLBBridge.Solve), the length in
four bytes, the message. Recorded of a build with nearly every flag, one for two platforms into an archive,
one of an archive on standard input, a bake with two targets on a third, and (the newer one)
``--call=outline``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.buildkit import definitions
from wherry.buildkit.attributes import asked, with_exports
from wherry.buildkit.proto import control_pb2, gateway_pb2

DATA = Path(__file__).parents[2] / "data" / "buildkit"


def recorded(version: str) -> Iterator[control_pb2.SolveRequest | gateway_pb2.SolveRequest]:
    data = (DATA / f"{version}.solves").read_bytes()
    while data:
        kind, size = struct.unpack_from(">cI", data)
        message = data[5 : 5 + size]
        data = data[5 + size :]
        if kind == b"c":
            yield control_pb2.SolveRequest.FromString(message)
        else:
            yield gateway_pb2.SolveRequest.FromString(message)


def controls(version: str) -> list[control_pb2.SolveRequest]:
    return [one for one in recorded(version) if isinstance(one, control_pb2.SolveRequest)]


def gateways(version: str) -> list[gateway_pb2.SolveRequest]:
    return [one for one in recorded(version) if isinstance(one, gateway_pb2.SolveRequest)]


@pytest.mark.parametrize("version", ["old", "new"])
def test_every_request_is_understood(version: str) -> None:
    for solve in controls(version):
        assert not solve.Frontend, "the client drives the build itself"
        request = with_exports(asked(solve.FrontendAttrs, solve.Entitlements).request, solve)
        assert len(request.outputs) == len(solve.Exporters)
    for one in gateways(version):
        assert one.Frontend == "dockerfile.v0"
        held = {name: definitions.held_by(found) for name, found in one.FrontendInputs.items()}
        asked(one.FrontendOpt, (), held)


@pytest.mark.parametrize("version", ["old", "new"])
def test_nearly_every_flag(version: str) -> None:
    solve = controls(version)[0]
    request = with_exports(asked(solve.FrontendAttrs, solve.Entitlements).request, solve)
    assert request.no_cache and request.pull and request.target == "last" and request.network == "none"
    assert request.build_args == {"A": "b=c"} and request.labels == {"k": "v"}
    assert request.limits.host.shm_size == 32 << 20
    assert request.limits.host.extra_hosts == ["h:1.2.3.4"]
    assert set(request.attestations) == {"provenance", "sbom"}
    assert set(request.contexts) == {"base", "other"} and request.entitlements == {"network.host"}
    assert request.outputs[0].names == ("rec:1",)
    assert [one["type"] for one in request.cache_to] == ["inline"]


@pytest.mark.parametrize("version", ["old", "new"])
def test_the_other_builds(version: str) -> None:
    archive, upload = controls(version)[1:3]
    found = with_exports(asked(archive.FrontendAttrs).request, archive)
    assert [str(one) for one in found.platforms] == ["linux/amd64", "linux/arm64"]
    assert found.outputs[0].kind == "oci" and found.outputs[0].annotations[0].level == "index"
    assert found.no_cache_filter == {"one"}
    assert asked(upload.FrontendAttrs).upload


@pytest.mark.parametrize("version", ["old", "new"])
def test_targets_on_another_target(version: str) -> None:
    """The definition that stands for a result comes back as it was given, byte for byte."""
    linked = [one for one in gateways(version) if one.FrontendInputs]
    assert len(linked) == 2
    for one in linked:
        (definition,) = one.FrontendInputs.values()
        ref = definitions.held_by(definition)
        assert ref and definition.ops == definitions.opaque(ref).ops
        found = asked(one.FrontendOpt, (), {"0-base": ref})
        assert list(found.held.values()) == [ref]
        if version == "new":
            assert found.sessions["context"] == found.sessions["dockerfile"]


def test_a_call() -> None:
    (call,) = [one for one in gateways("new") if "requestid" in one.FrontendOpt]
    assert asked(call.FrontendOpt).call == "frontend.outline"
