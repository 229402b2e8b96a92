"""The clients' tests take their daemon from the integration tests' labs."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "integration"))


@pytest.fixture
def name() -> str:
    return f"t{secrets.token_hex(4)}"
