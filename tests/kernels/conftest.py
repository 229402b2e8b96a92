"""A machine takes its time to come up."""

from __future__ import annotations

from alarm import alarm

no_hang = alarm(300)
