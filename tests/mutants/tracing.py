"""Begins to note which lines run, in the process that it is called in (``covering.py``)."""

from __future__ import annotations

import os

import coverage


def start(context: str) -> coverage.Coverage:
    """From now on, under the name ``context``."""
    place, source = os.environ["WHERRY_COVERAGE"], os.environ["WHERRY_COVERAGE_SOURCE"]
    made = coverage.Coverage(
        data_file=f"{place}/data.{os.getpid()}", source=[source], config_file=False, messages=False
    )
    made.set_option("run:core", "ctrace")
    made.start()
    made.switch_context(context)
    return made
