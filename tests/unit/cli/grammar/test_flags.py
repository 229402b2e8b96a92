"""Flags as people type them, and what is said when they cannot be."""

from __future__ import annotations

import pytest

from wherry.cli.grammar import values
from wherry.cli.grammar.flags import Flag, FlagError, HelpWanted, Options, parse

FLAGS = (
    Flag("all", "a", values.BOOL, "All"),
    Flag("tty", "t", values.BOOL, "Terminal"),
    Flag("proxy", "", values.BOOL, "Proxy", default=True),
    Flag("name", "n", values.STRING, "Name", default="x"),
    Flag("env", "e", values.LIST, "Environment"),
    Flag("memory", "m", values.BYTES, "Memory"),
    Flag("last", "", values.INT, "Last", default=-1),
    Flag("filter", "f", values.FILTER, "Filter"),
    Flag("label", "l", values.LABELS, "Label"),
    Flag("platform", "", values.STRINGS, "Platform"),
)


def parsed(*argv: str, interspersed: bool = True) -> tuple[Options, list[str]]:
    return parse(FLAGS, argv, interspersed=interspersed)


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["--name", "y"], "y"),
        (["--name=y"], "y"),
        (["--name="], ""),
        (["-n", "y"], "y"),
        (["-ny"], "y"),
        (["-n=y"], "y"),
        (["-atn", "y"], "y"),
        (["-atny"], "y"),
        (["--name", "--all"], "--all"),
        (["-n", "1", "-n", "2"], "2"),
        ([], "x"),
    ],
)
def test_every_way_to_give_a_value(argv: list[str], name: str) -> None:
    options, rest = parsed(*argv)
    assert (options.text("name"), rest) == (name, [])


def test_booleans() -> None:
    assert parsed("-at")[0].on("tty")
    assert not parsed("--proxy=false")[0].on("proxy")
    assert not parsed("-a=0")[0].on("all")
    assert parsed("--all", "true")[1] == ["true"]


def test_what_was_given_is_known() -> None:
    options, _ = parsed("--last=-1")
    assert options.given("last") and not options.given("name")
    assert "name" in options and "nope" not in options


def test_repeated_flags_collect() -> None:
    options, _ = parsed("-e", "A=1", "--env=B", "-f", "Label=a=b", "-f", "label=c", "--filter", "status=x")
    assert options.many("env") == ["A=1", "B"]
    assert options.filters() == {"label": ["a=b", "c"], "status": ["x"]}
    assert parsed("-l", "a=1", "-l", "a=2", "-l", "b")[0].pairs("label") == {"a": "2", "b": ""}
    assert parsed("--platform", "a,b", "--platform", "c")[0].many("platform") == ["a", "b", "c"]


def test_where_flags_end() -> None:
    assert parsed("a", "-t", "b", "--", "-a", "c")[1] == ["a", "b", "-a", "c"]
    options, rest = parsed("-t", "a", "-a", "--", "b", interspersed=False)
    assert (rest, options.on("tty"), options.on("all")) == (["a", "-a", "--", "b"], True, False)
    assert parsed("-")[1] == ["-"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["--nam", "x"], "unknown flag: --nam\n\nDid you mean this?\n\t--name"),
        (["-tx"], "unknown shorthand flag: 'x' in -x"),
        (["--name"], "flag needs an argument: --name"),
        (["-an"], "flag needs an argument: 'n' in -n"),
        (["--=x"], "bad flag syntax: --=x"),
        (
            ["--all=maybe"],
            'invalid argument "maybe" for "-a, --all" flag: strconv.ParseBool: parsing "maybe": '
            "invalid syntax",
        ),
        (["-m", "zz"], 'invalid argument "zz" for "-m, --memory" flag: invalid size: \'zz\''),
        (
            ["--last", "1.5"],
            'invalid argument "1.5" for "--last" flag: strconv.ParseInt: parsing "1.5": invalid syntax',
        ),
        (
            ["-f", "x"],
            'invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)',
        ),
        (["-l", "=x"], 'invalid argument "=x" for "-l, --label" flag: invalid label \'=x\': empty name'),
    ],
)
def test_mistakes(argv: list[str], message: str) -> None:
    with pytest.raises(FlagError) as caught:
        parsed(*argv)
    assert caught.value.message == message


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["a", "--help"], ["-th"]])
def test_help(argv: list[str]) -> None:
    with pytest.raises(HelpWanted):
        parsed(*argv)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("64m", 64 << 20),
        ("1.5GiB", 3 << 29),
        ("512", 512),
        ("10kb", 10240),
        ("1 KB", 1024),
        ("2T", 2 << 40),
        ("0", 0),
    ],
)
def test_memory(text: str, count: int) -> None:
    assert values.memory(text) == count


@pytest.mark.parametrize("text", ["", "m", "-1", "5x", "1..2g", "ib", "1e3q"])
def test_memory_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="invalid s"):
        values.memory(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1h30m", 5400 * 10**9), ("1.5s", 1_500_000_000), ("-10ms", -10_000_000), ("0", 0), ("1us2ns", 1002)],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert values.duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        ("", 'time: invalid duration ""'),
        (".s", 'time: invalid duration ".s"'),
        ("1.2.3s", 'time: invalid duration "1.2.3s"'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
    ],
)
def test_durations_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        values.duration(text)
    assert str(caught.value) == message


def test_processors() -> None:
    assert values.nano_cpus("1.5") == 1_500_000_000
    assert values.nano_cpus("1/4") == 250_000_000
    with pytest.raises(ValueError, match="failed to parse a as a rational number"):
        values.nano_cpus("a")
    with pytest.raises(ValueError, match="value is too precise"):
        values.nano_cpus("0.0000000001")
