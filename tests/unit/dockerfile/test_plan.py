"""From Dockerfiles to graphs and keys, without files or containers."""

from __future__ import annotations

import asyncio

import pytest

from wherry.dockerfile.errors import DockerfileError
from wherry.dockerfile.parse import parse
from wherry.dockerfile.plan import plan
from wherry.dockerfile.requests import PlanRequest
from wherry.errors import InvalidArgument
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.oci import ImageConfig, ImageRunConfig, Platform, RootFS
from wherry.solver.graph import BaseImage, CopyOp, FetchOp, Plan, RunOp, walk
from wherry.solver.keys import Keys


class Images:
    """Images of any name; what was asked for is remembered."""

    def __init__(self, **config: object) -> None:
        self.asked: list[str] = []
        self._config = ImageRunConfig(**config)  # type: ignore[arg-type]

    async def image(self, name: str, platform: Platform) -> BaseImage:
        self.asked.append(name)
        digest = digests.of(name.encode())
        config = ImageConfig(
            architecture=platform.architecture, os="linux", config=self._config, rootfs=RootFS(diff_ids=[])
        )
        return BaseImage(name, digest, digest, config)


def planned(text: str, images: Images | None = None, **request: object) -> Plan:
    asked = PlanRequest(platform=oci.host().normalised(), **request)  # type: ignore[arg-type]
    return asyncio.run(plan(parse(text), asked, images or Images()))


class Known:
    """Contexts whose checksums are what they are told to be."""

    def __init__(self, files: str = "1") -> None:
        self.files = files

    def local(self, name: str, op: CopyOp, part: int) -> str:
        return f"{self.files} {op.parts[part].paths}"

    def local_at(self, name: str, path: str) -> str:
        return f"{self.files} {path}"

    def fetched(self, op: FetchOp) -> str:
        return op.url


def key(text: str, known: Known | None = None, **request: object) -> str:
    """Of the target."""
    keys = Keys(known or Known())
    target = planned(text, **request).target.vertex
    for vertex in walk([target]):
        keys.definition(vertex)
    return keys.definition(target)


BASE = "FROM base\nRUN make\nCOPY a b\n"


def test_stages_that_nothing_needs_are_not_looked_at() -> None:
    images = Images()
    found = planned("FROM one AS a\nFROM two AS b\nRUN x\nFROM three\nCOPY --from=a / /\n", images)
    assert sorted(images.asked) == ["one", "three"]
    assert [stage.name for stage in found.stages] == ["a", "stage-2"]
    assert planned("FROM one AS a\nFROM a AS b\nFROM nothing\n", target="b").target.name == "b"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("FROM b AS a\nCOPY --from=c / /\nFROM a AS c\n", "circular dependency"),
        ("FROM x\nCOPY a b c\n", "must be a directory"),
        ("FROM x\nRUN --network=host y\n", "network.host is not allowed"),
        ("FROM x\nADD --checksum=sha256:00 a b\n", "checksum"),
        ("FROM x\nEXPOSE 70000\n", "invalid containerPort"),
        ("FROM x\nHEALTHCHECK --interval=1us CMD y\n", "less than 1ms"),
    ],
)
def test_mistakes_are_shown_with_their_lines(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match=reason) as raised:
        planned(text)
    assert ">>>" in raised.value.message


def test_an_unknown_target() -> None:
    with pytest.raises(InvalidArgument, match="could not be found"):
        planned("FROM x\n", target="nope")


def test_configuration_follows_the_instructions() -> None:
    images = Images(env=["PATH=/bin"], cmd=["old"], on_build=["ENV T=1"])
    text = (
        'FROM x\nENV A=1 B=$A\nENTRYPOINT ["e"]\nWORKDIR d\nWORKDIR ../f\nUSER u\nEXPOSE 1-2/udp\nVOLUME /v\n'
    )
    stage = planned(text, images, labels={"l": "m"}).target
    config = stage.config.config
    assert config.env == ["PATH=/bin", "T=1", "A=1", "B="]
    assert (config.entrypoint, config.cmd, config.working_dir, config.user) == (["e"], None, "/f", "u")
    assert config.exposed_ports == {"1/udp": {}, "2/udp": {}} and config.volumes == {"/v": {}}
    assert config.labels == {"l": "m"} and config.on_build is None
    assert [step.vertex is None for step in stage.history].count(False) == 2, "the two directories are files"


def test_arguments_reach_run_and_proxies_stay_out_of_history() -> None:
    text = "ARG V=global\nFROM x:$V\nARG V\nARG W=w\nRUN go\n"
    images = Images()
    stage = planned(text, images, build_args={"W": "given", "HTTP_PROXY": "http://u:p@h", "N": "o"}).target
    op = stage.vertex.op
    assert images.asked == ["x:global"] and isinstance(op, RunOp)
    assert {"V=global", "W=given"} <= set(op.env) and op.secret_env == ("HTTP_PROXY=http://u:p@h",)
    assert stage.history[-1].created_by == "RUN |2 V=global W=given /bin/sh -c go # buildkit"
    assert planned(text, build_args={"N": "o"}).unused_args == ("N",)


def test_keys_change_with_what_matters_and_nothing_else() -> None:
    first = key(BASE)
    assert key("# a comment\nFROM base AS name\nRUN make\nLABEL a=b\nCOPY a b\n") == first
    assert key("FROM other AS unused\nRUN z\n" + BASE) == first
    assert key(BASE, build_args={"HTTP_PROXY": "http://x"}) == first
    changed = (
        BASE.replace("make", "make -j"),
        BASE.replace("COPY", "COPY --chown=1"),
        BASE.replace("RUN", "ENV A=b\nRUN"),
        BASE.replace("RUN make", "RUN --network=none make"),
        BASE.replace("FROM base", "FROM base2"),
    )
    keys = [key(text) for text in changed]
    assert first not in keys and len(set(keys)) == len(keys)
    assert key(BASE, Known("2")) != first
