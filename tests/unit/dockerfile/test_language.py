"""The corners of the language: variables, here-documents, directives, mounts, bytes, names of stages."""

from __future__ import annotations

import asyncio

import pytest
from test_plan import Images, planned

from wherry.dockerfile import describe
from wherry.dockerfile.checks import check
from wherry.dockerfile.checktypes import CheckContext
from wherry.dockerfile.errors import DockerfileError
from wherry.dockerfile.instructions import Copy, Run
from wherry.dockerfile.parse import parse
from wherry.dockerfile.plan import plan
from wherry.dockerfile.requests import PlanRequest
from wherry.dockerfile.urls import filename_of
from wherry.model import oci
from wherry.solver.graph import CopyOp, FetchOp, RunOp, walk
from wherry.solver.keys import Keys


def run_of(text: str, images: Images | None = None, **request: object) -> RunOp:
    op = planned(text, images, **request).target.vertex.op
    assert isinstance(op, RunOp)
    return op


def first_run(text: str | bytes) -> Run:
    (found,) = [i for i in parse(text).stages[0].instructions if isinstance(i, Run)]
    return found


# ---- variables ---------------------------------------------------------------------------------------------


def test_what_was_said_last_counts_of_arg_and_env() -> None:
    assert "V=arg" in run_of("FROM x\nENV V=env\nARG V=arg\nRUN y\n").env
    assert "V=given" in run_of("FROM x\nENV V=env\nARG V\nRUN y\n", build_args={"V": "given"}).env
    assert "V=env" in run_of("FROM x\nENV V=env\nARG V\nRUN y\n").env, "no value, nothing changes"
    assert "V=env" in run_of("FROM x\nARG V=arg\nENV V=env\nRUN y\n", build_args={"V": "g"}).env
    inherited = Images(env=["V=image"])
    assert "V=arg" in run_of("FROM x\nARG V=arg\nRUN y\n", inherited).env
    stage = planned("FROM x\nARG V=arg\nENV W=$V\nLABEL l=$V\n", inherited).target.config.config
    assert stage.env is not None and "V=image" in stage.env and "W=arg" in stage.env
    assert stage.labels == {"l": "arg"}, "the image keeps its own, the build sees the argument"


def test_a_stage_sees_the_arguments_of_the_one_it_stands_on() -> None:
    text = "FROM x AS a\nARG V=1\nENV E=$V\nARG E=2\nFROM a\nRUN y\n"
    assert {"V=1", "E=2"} <= set(run_of(text).env)
    assert "V=1" not in run_of("FROM x AS a\nARG V=1\nFROM x\nCOPY --from=a / /\nRUN y\n").env


def test_arguments_of_one_line_go_from_left_to_right() -> None:
    assert {"a=x", "b=x-"} <= set(run_of("FROM x\nARG a=x b=$a-\nRUN y\n").env)
    assert "b=given-" in run_of("FROM x\nARG a=x b=$a-\nRUN y\n", build_args={"a": "given"}).env
    images = Images()
    planned("ARG a=x b=$a\nFROM y:$b\n", images)
    assert images.asked == ["y:x"]
    assert "b=" in run_of("FROM x\nENV a=x b=$a\nRUN y\n").env, "ENV's pairs see what was before the line"
    assert check(CheckContext(parse("FROM scratch\nARG a=x b=$a\nCOPY $b /\n"))) == []


# ---- here-documents ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "name", "expands"),
    [
        ("<<EOF", "EOF", True),
        ("<< EOF", "EOF", True),
        ("<<- EOF", "EOF", True),
        ("3<<EOF", "EOF", True),
        ("<<'EOF'", "EOF", False),
        ('<<E"O"F', "EOF", False),
        ('<<"a b"', "a b", False),
        ('<<"$EOF"', "$EOF", False),
        ("<<$EOF", "$EOF", True),
    ],
)
def test_how_a_here_document_is_named(mark: str, name: str, expands: bool) -> None:
    copy = parse(f"FROM x\nCOPY {mark} /to\nline\n{name}\nRUN z\n").stages[0].instructions[0]
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.destination) == ((), "/to")
    (heredoc,) = copy.heredocs
    assert (heredoc.name, heredoc.expand, heredoc.content) == (name, expands, "line\n")
    assert first_run(f"FROM x\nRUN cat {mark}\nline\n{name}\n").heredocs[0].name == name


@pytest.mark.parametrize(
    "line", ['cat <<EOF; echo "open', "it's <<EOF", 'cat <<"EOF', "cat <<<EOF", 'cat <<""']
)
def test_lines_without_a_here_document(line: str) -> None:
    with pytest.raises(DockerfileError, match="unknown instruction: text"):
        parse(f"FROM x\nRUN {line}\ntext\nEOF\n")


def test_tabs_and_brackets() -> None:
    assert first_run("FROM x\nRUN <<-EOF\n\t\tone\n\tEOF\n").heredocs[0].content == "one\n"
    assert first_run("FROM x\nRUN [ -f y ] && cat <<EOF\nz\nEOF\n").heredocs[0].content == "z\n"
    op = run_of("FROM x\nRUN <<-EOF\n\t#!/bin/sh\n\techo\nEOF\n")
    assert op.files == (("/dev/pipes/EOF", "#!/bin/sh\necho\n"),)


# ---- mounts ------------------------------------------------------------------------------------------------


def test_every_value_of_a_mount_may_hold_variables() -> None:
    text = (
        "FROM x\nARG T=cache R=true M=/m S=locked\nRUN --mount=type=$T,target=$M,readonly=$R,sharing=$S y\n"
    )
    (mount,) = run_of(text).mounts
    assert (mount.type, mount.target, mount.readonly, mount.sharing) == ("cache", "/m", True, "locked")
    (mount,) = run_of(
        text, build_args={"T": "tmpfs", "R": "0", "S": "x"}.copy() | {"T": "cache", "S": "SHARED"}
    ).mounts
    assert (mount.readonly, mount.sharing) == (False, "shared")
    for changed, reason in (
        ({"T": "nothing"}, 'unsupported mount type "nothing"'),
        ({"R": "maybe"}, "invalid value for readonly: maybe"),
        ({"T": "tmpfs"}, "unexpected key 'sharing' for mount type 'tmpfs'"),
    ):
        with pytest.raises(DockerfileError, match=reason) as raised:
            planned(text, build_args=changed)
        assert raised.value.location is not None and raised.value.location.first == 3


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        ("from=$S,target=/m", "'from' doesn't support variable expansion"),
        ("type=$T,nothing=1", "unexpected key 'nothing'"),
        ("type=odd,target=$T", 'unsupported mount type "odd"'),
    ],
)
def test_what_is_wrong_in_a_mount_without_its_values(mount: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match=reason):
        parse(f"FROM x\nRUN --mount={mount} y\n")


def test_checks_do_not_mind_what_a_type_will_be() -> None:
    found = check(CheckContext(parse("FROM scratch\nARG T\nRUN --mount=type=$T,target=$NO y\n")))
    assert [f.detail for f in found] == ["Usage of undefined variable '$NO' (did you mean $T?)"]


# ---- bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"LABEL a=\xff",
        b"RUN echo \xff",
        b"RUN <<EOF\necho \xff\nEOF",
        b"RUN cat <<EOF\n\xff\nEOF",
        b"ENV a=\xff",
        b"COPY --chown=\xff a b",
        b"FROM x AS \xff",
        b"FROM \xff",
        b"ONBUILD COPY <<EOF /a\n\xff\nEOF",
        b"\xff\xfe y",
        b"WORKDIR /\xff",
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_line(line: bytes) -> None:
    text = b"FROM x\n" + line + b"\n"
    with pytest.raises(DockerfileError) as raised:
        asyncio.run(plan(parse(text), PlanRequest(platform=oci.host()), Images()))
    assert raised.value.location is not None and raised.value.location.first == 2
    assert ">>>" in raised.value.message
    raised.value.message.encode()


def test_bytes_of_names_and_contents_are_carried() -> None:
    text = b"# \xff\nFROM x\nCOPY \xe9 <<EOF /\xe8/\n\xff$A\nEOF\nRUN <<EOF\n#!/bin/cat\n\xff\nEOF\n"
    dockerfile = parse(text)
    dockerfile.source.encode()
    made = asyncio.run(plan(dockerfile, PlanRequest(platform=oci.host().normalised()), Images()))
    copy, run = [step.vertex for step in made.target.history if step.vertex is not None]
    assert isinstance(copy.op, CopyOp) and isinstance(run.op, RunOp)
    assert (copy.op.parts[0].paths, copy.op.destination) == (("\udce9",), "/\udce8")
    assert copy.op.files == (("EOF", "\udcff\n"),)
    assert run.op.files[0][1] == "#!/bin/cat\n\udcff\n"
    copy.text.encode()
    keys = Keys(_Files())
    assert len({keys.definition(vertex) for vertex in walk([run])}) == len(list(walk([run])))


class _Files:
    def local(self, name: str, op: CopyOp, part: int) -> str:
        return "1"

    def local_at(self, name: str, path: str) -> str:
        return "1"

    def fetched(self, op: FetchOp) -> str:
        return "1"


# ---- stages, images, triggers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["COPY --from=7 / /", "RUN --mount=from=7,target=/m y", "COPY --from=-1 / /"]
)
def test_a_number_is_a_stage_and_never_an_image(line: str) -> None:
    images = Images()
    with pytest.raises(DockerfileError, match="invalid stage index"):
        planned(f"FROM x\n{line}\n", images)
    assert images.asked == ["x"]


def test_triggers_may_use_stages() -> None:
    images = Images(on_build=["COPY --from=tools /a /b", "RUN --mount=from=1,target=/m y"])
    found = planned("FROM x\nCOPY c d\nFROM scratch AS tools\nCOPY e /a\n", images, target="0")
    assert [stage.name for stage in found.stages] == ["stage-0", "tools"]
    assert len(list(walk([found.target.vertex]))) == 7
    with pytest.raises(DockerfileError, match="circular dependency"):
        planned("FROM x AS tools\n", images)
    assert planned("FROM base\nCOPY --from=scratch / /\n").target.vertex.sources[0].is_source


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("FROM x\nSTOPSIGNAL FOO\n", "invalid signal: FOO"),
        ("FROM x\nRUN y\nSTOPSIGNAL 0\n", "invalid signal: 0"),
        ("FROM --platform=foo x\n", 'failed to parse platform foo: "foo": unknown operating system'),
        ("FROM x\nEXPOSE x:80\n", "invalid containerPort: x:80"),
    ],
)
def test_values_that_cannot_be_fail_at_their_line(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match=reason) as raised:
        planned(text)
    assert raised.value.location is not None


def test_published_ports_are_the_containers() -> None:
    text = "FROM x\nEXPOSE 8080:80 127.0.0.1:5353:53/udp [::1]:1-2:3-4\n"
    ports = planned(text).target.config.config.exposed_ports
    assert ports == {"80/tcp": {}, "53/udp": {}, "3/tcp": {}, "4/tcp": {}}
    assert {f.rule for f in check(CheckContext(parse(text)))} == {"ExposeInvalidFormat"}


# ---- directives, descriptions, checks ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        "#!/usr/bin/env x\n# syntax=some/other\n",
        "//syntax=some/other\n",
        "#!/x\n// syntax = some/other\n",
    ],
)
def test_the_frontend_is_named_in_other_ways_as_well(head: str) -> None:
    with pytest.raises(DockerfileError, match="frontend some/other is not supported"):
        parse(head + "FROM x\n")


def test_the_frontend_is_named_in_json() -> None:
    with pytest.raises(DockerfileError, match="frontend some/other is not supported"):
        parse('{"syntax": "some/other", "x": 1}')
    assert parse("#!/x\n# escape=`\nFROM x\n").escape == "`"
    with pytest.raises(DockerfileError, match="unknown instruction"):
        parse("// escape=`\nFROM x\n")


def test_descriptions_may_stand_apart() -> None:
    text = "# builds it\n# app is what it is for\n\nFROM x AS app\n# V of it\n\nARG V\n"
    assert describe.targets(parse(text))[0].description == "is what it is for"
    assert describe.outline(parse(text)).arguments[0].description == "of it"


def test_undefined_variables_know_what_images_set() -> None:
    dockerfile = parse("FROM x\nWORKDIR $THERE/$MISSING\n")
    assert check(CheckContext(dockerfile)) == [], "of an unknown image nothing is said"
    found = check(CheckContext(dockerfile, image_env=lambda base: {"THERE"} if base == "x" else None))
    assert [f.detail for f in found] == ["Usage of undefined variable '$MISSING'"]


# ---- ADD ---------------------------------------------------------------------------------------------------


def add(text: str) -> CopyOp:
    op = planned(f"FROM x\nADD {text}\n").target.vertex.op
    assert isinstance(op, CopyOp)
    return op


def test_what_is_fetched_is_unpacked_only_when_that_is_said() -> None:
    assert [part.unpack for part in add("http://h/a.tar b.tar /x/").parts] == [False, True]
    assert [part.unpack for part in add("--unpack http://h/a.tar /x/").parts] == [True]
    assert [part.unpack for part in add("--unpack=false a.tar /x/").parts] == [False]
    mixed = add("a http://h/b c d /x/").parts
    assert [part.paths for part in mixed] == [("a",), ("/b",), ("c", "d")], "in their order"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a%20b.txt", "a b.txt"),
        ("http://h/x/y/?q=/z#f", "y"),
        ("http://h/%e9", "\udce9"),
        ("http://h/a%2Fb", "b"),
        ("http://h", ""),
        ("http://h/", ""),
        ("http://h/a/%2e%2e", ""),
    ],
)
def test_what_a_fetched_file_is_called(url: str, name: str) -> None:
    assert filename_of(url) == name


def test_names_with_wildcards_stand_for_themselves() -> None:
    assert add("http://h/a%2A%5B.txt /x/").parts[0].paths == ("/a\\*\\[.txt",)
