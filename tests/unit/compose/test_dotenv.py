from __future__ import annotations

from pathlib import Path

import pytest

from wherry.compose.dotenv import read
from wherry.compose.places import FileError

OUTER = {"HOME": "/root", "INHERITED": "yes"}


def parsed(where: Path, text: str, *, raw: bool = False) -> dict[str, str | None]:
    path = where / "env"
    path.write_text(text)
    return read(str(path), OUTER.get, raw=raw)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("A=1", {"A": "1"}),
        ("A = 1 ", {"A": "1"}),
        ("A: 1", {"A": "1"}),
        ("export A=1", {"A": "1"}),
        ("\n# c\n\nA=1 # c\n", {"A": "1"}),
        ("A=a#b", {"A": "a#b"}),
        ("A=", {"A": ""}),
        ("A='$HOME # x'", {"A": "$HOME # x"}),
        ('A="$HOME\\n\\t\\"q\\""', {"A": '/root\n\t"q"'}),
        ('A="x\ny"', {"A": "x\ny"}),
        ('A="\\$HOME"', {"A": "$HOME"}),
        ("A=$HOME/x", {"A": "/root/x"}),
        ("A=1\nB=${A}2", {"A": "1", "B": "12"}),
        ("A=${NONE:-d}", {"A": "d"}),
        ("INHERITED", {"INHERITED": "yes"}),
        ("NOT_THERE", {}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1", {"A": "1"}),
        ("A=1\nA=2", {"A": "2"}),
        ("HOME=x\nB=$HOME", {"HOME": "x", "B": "/root"}),
    ],
)
def test_lines(tmp_path: Path, text: str, want: dict[str, str | None]) -> None:
    assert parsed(tmp_path, text) == want


def test_raw_values_stay_as_they_are(tmp_path: Path) -> None:
    assert parsed(tmp_path, "A='$x' # y\n# c\nB=\n", raw=True) == {"A": "'$x' # y", "B": ""}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A='x", ":1:3: unterminated quoted value"),
        ("OK=1\nA B=1", ':2:3: unexpected character "B" in variable name "A"'),
        ("=1", 'unexpected character "=" in variable name'),
        ("A=${", "brace"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FileError) as caught:
        parsed(tmp_path, text)
    assert words in caught.value.message, caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read(str(tmp_path / "none"), OUTER.get)
