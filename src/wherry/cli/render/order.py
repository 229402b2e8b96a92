"""The order that names are listed in."""

from __future__ import annotations


def natural(text: str) -> tuple[tuple[int, int | str, str], ...]:
    """A sort key that puts ``v2`` before ``v10``."""
    from itertools import groupby

    runs = ("".join(run) for _, run in groupby(text, str.isdecimal))
    return tuple((0, int(run), run) if run.isdecimal() else (1, run, run) for run in runs)
