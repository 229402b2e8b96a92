"""Every build check on a Dockerfile that breaks it, and on one that does not; targets and outlines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wherry.dockerfile import describe
from wherry.dockerfile.checks import RULES, check
from wherry.dockerfile.checktypes import CheckContext, CheckOptions
from wherry.dockerfile.parse import parse
from wherry.errors import InvalidArgument
from wherry.model.ignore import Patterns

ALL = CheckOptions(experimental=frozenset(("all",)))
ENV = {"known": ["PATH", "HOME_OF_IT"]}


def found(text: str, *, ignored: str = "", **build_args: str) -> list[tuple[str, int, str]]:
    context = CheckContext(
        parse(text),
        build_args=build_args,
        ignored=Patterns([ignored]) if ignored else None,
        image_env=ENV.get,
    )
    return [(f.rule, f.location.first, f.detail) for f in check(context, ALL)]


BAD = [
    ("StageNameCasing", "FROM a AS Base", 1, "'Base' should be lowercase"),
    ("FromAsCasing", "FROM a as base", 1, "'as' and 'FROM' keywords' casing do not match"),
    ("NoEmptyContinuation", "FROM a\nRUN x \\\n\n  y", 2, "Empty continuation line"),
    ("ConsistentInstructionCasing", "FROM a\nRUN x\nrun y", 3, "'run' should match the case of the command "),
    ("ConsistentInstructionCasing", "from a\nrun x\nRUN y", 3, "majority (lowercase)"),
    ("DuplicateStageName", "FROM a AS b\nFROM a AS b", 2, 'Duplicate stage name "b"'),
    ("ReservedStageName", "FROM a AS scratch", 1, 'reserved stage "scratch"'),
    ("JSONArgsRecommended", "FROM a\nCMD x", 2, "JSON arguments recommended for CMD"),
    ("MaintainerDeprecated", "FROM a\nMAINTAINER me", 2, "in favor of using label"),
    ("MultipleInstructionsDisallowed", 'FROM a\nCMD ["x"]\nCMD ["y"]', 2, "Multiple CMD instructions"),
    ("LegacyKeyValueFormat", "FROM a\nENV a b", 2, '"ENV key=value" should be used'),
    ("SecretsUsedInArgOrEnv", "FROM a\nARG MY_TOKEN", 2, '(ARG "MY_TOKEN")'),
    ("WorkdirRelativePath", "FROM a\nWORKDIR x", 2, 'Relative workdir "x"'),
    ("ExposeProtoCasing", "FROM a\nEXPOSE 80/TCP", 2, "'80/TCP'"),
    ("ExposeInvalidFormat", "FROM a\nEXPOSE 127.0.0.1:80:80", 2, "found '127.0.0.1:80:80'"),
    ("RedundantTargetPlatform", "FROM --platform=$TARGETPLATFORM a", 1, "is redundant"),
    ("FromPlatformFlagConstDisallowed", "FROM --platform=linux/amd64 a", 1, 'constant value "linux/amd64"'),
    (
        "UndefinedArgInFrom",
        "ARG VERSION=1\nFROM a:$VERSON",
        2,
        "'VERSON' is not declared (did you mean VERSION?)",
    ),
    ("InvalidDefaultArgInFrom", "ARG V\nFROM a:$V", 2, "Default value for ARG a:$V results in"),
    ("UndefinedVar", "FROM known\nCOPY $HOME_OF_IY /x", 2, "'$HOME_OF_IY' (did you mean $HOME_OF_IT?)"),
    ("UndefinedVar", "FROM scratch AS s\nFROM s\nWORKDIR $x", 3, "undefined variable '$x'"),
    ("InvalidDefinitionDescription", "# something\nARG V=1\nFROM a", 2, "`# V <description>`"),
]


@pytest.mark.parametrize(("rule", "text", "line", "words"), BAD, ids=[b[0] for b in BAD])
def test_what_breaks_a_check(rule: str, text: str, line: int, words: str) -> None:
    rules = {name: (where, detail) for name, where, detail in found(text)}
    assert rules.keys() == {rule}, rules
    assert rules[rule][0] == line and words in rules[rule][1]


def test_copies_of_ignored_files() -> None:
    text = "FROM a\nCOPY a.log b/a.log *.log ./x.txt /\nADD https://e/y.log /\n"
    text += "COPY --from=z a.log /\nFROM a AS z"
    assert found(text, ignored="**/*.log") == [
        ("CopyIgnoredFile", 2, 'Attempting to Copy file "a.log" that is excluded by .dockerignore'),
        ("CopyIgnoredFile", 2, 'Attempting to Copy file "b/a.log" that is excluded by .dockerignore'),
    ]
    assert found(text) == []


def test_every_rule_is_tried() -> None:
    assert {b[0] for b in BAD} | {"CopyIgnoredFile"} == {r.name for r in RULES}
    assert len(RULES) == 21


@pytest.mark.parametrize(
    "text",
    [
        'FROM a AS base\nRUN x\nCMD ["x"]\nHEALTHCHECK CMD x',
        'FROM a\nSHELL ["/bin/bash", "-c"]\nCMD x',
        "FROM a\nARG PUBLIC_KEY\nENV MONKEY=1 KEYBOARD=2",
        "FROM a\nWORKDIR /x\nWORKDIR y",
        "FROM a AS base\nWORKDIR /x\nFROM base\nWORKDIR y",
        "FROM --platform=$BUILDPLATFORM a\nEXPOSE 80/tcp 90",
        "FROM --platform=linux/arm64 a AS build-arm64",
        "ARG V=1\nFROM a:${V}",
        "ARG V\nFROM a:${V:-1}",
        "FROM known\nENV x=$HOME_OF_IT\nARG y\nCOPY $x $y $HTTP_PROXY /",
        "FROM known\nCOPY ${x:-y} /",
        "FROM unknown\nCOPY $WHO_KNOWS /",
        "# V is the version\nARG V=1\n# base is where it starts\nFROM a AS base",
        "# a remark\n\nARG V=1\nFROM a",
    ],
)
def test_what_breaks_none(text: str) -> None:
    assert found(text) == []


def test_the_directive() -> None:
    text = "FROM a AS Base\nCMD x\n"
    assert [f.rule for f in check(CheckContext(parse(text)))] == ["StageNameCasing", "JSONArgsRecommended"]
    skipped = parse("# check=skip=stagenamecasing;error=true\n" + text)
    assert [f.rule for f in check(CheckContext(skipped))] == ["JSONArgsRecommended"]
    assert CheckOptions.parse(skipped.check).error
    assert check(CheckContext(parse("# check=skip=all\n" + text))) == []
    described = "# x\nARG V=1\nFROM a"
    assert check(CheckContext(parse(described))) == []
    once = CheckOptions.parse("experimental=InvalidDefinitionDescription")
    assert [f.rule for f in check(CheckContext(parse(described)), once)] == ["InvalidDefinitionDescription"]
    for wrong in ("nothing", "skip", "error=maybe", "other=1"):
        with pytest.raises(InvalidArgument, match="invalid check option"):
            CheckOptions.parse(wrong)


def test_where_a_rule_is_explained() -> None:
    (finding,) = check(CheckContext(parse("FROM a\nCMD x")))
    assert finding.url.endswith("/rule/json-args-recommended/")
    assert replace(finding, rule="FromAsCasing").url.endswith("/rule/from-as-casing/")


TEXT = """\
# VERSION of the base
ARG VERSION=1
# build compiles
FROM a:$VERSION AS Build
ARG OPTION
RUN --mount=type=secret,id=token,required --mount=type=cache,target=/c --mount=type=ssh make
FROM b AS unused
ARG NOT_HERE
RUN --mount=type=secret,id=other x
FROM scratch
ARG OPTION=fast
COPY --from=build /x /x
RUN --mount=from=0,target=/m --mount=type=secret,id=token x
"""


def test_targets() -> None:
    found = describe.targets(parse(TEXT))
    assert [(t.name, t.default, t.description, t.base) for t in found] == [
        ("Build", False, "compiles", "a:$VERSION"),
        ("unused", False, "", "b"),
        ("2", True, "", "scratch"),
    ]


def test_outline_of_what_a_target_needs() -> None:
    found = describe.outline(parse(TEXT), build_args={"VERSION": "7"})
    assert found.target.name == "2"
    assert [(a.name, a.value, a.description) for a in found.arguments] == [
        ("VERSION", "7", "of the base"),
        ("OPTION", "fast", ""),
    ]
    assert [(s.name, s.required) for s in found.secrets] == [("token", True)]
    assert [(s.name, s.required) for s in found.ssh] == [("default", False)]
    assert [c.name for c in found.caches] == ["/c"]
    other = describe.outline(parse(TEXT), "UNUSED")
    assert [a.name for a in other.arguments] == ["VERSION", "NOT_HERE"]
    assert describe.outline(parse(TEXT), "0").target.name == "Build"
    with pytest.raises(InvalidArgument, match='target stage "no" could not be found'):
        describe.outline(parse(TEXT), "no")
