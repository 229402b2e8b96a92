"""What a restart policy decides after an exit and at the daemon's start. Times in seconds, as Docker's."""

from __future__ import annotations

from wherry.model.container import ContainerState, HostConfig

_FIRST, _LONGEST, _RESET = 0.1, 60.0, 10.0
"""The delay doubles at each restart. It is reset after a run of ten seconds."""


def delay(host: HostConfig, state: ContainerState) -> float | None:
    """Seconds until the next start of a container that exited with ``state``; ``None``: no restart."""
    if not _goes_on(host, state):
        return None
    ran = (state.finished_at - state.started_at) / 1e9
    return backoff(0 if ran >= _RESET else state.restart_count)


def backoff(restarts: int) -> float:
    """Seconds before the start that follows ``restarts`` others in a row."""
    return float(min(_FIRST * 2.0 ** min(restarts, 16), _LONGEST))


def _goes_on(host: HostConfig, state: ContainerState) -> bool:
    policy = host.restart_policy
    if policy.name == "on-failure":
        tries = policy.maximum_retry_count
        return state.exit_code != 0 and not (tries and state.restart_count >= tries)
    return policy.name in ("always", "unless-stopped")


def starts_with_daemon(host: HostConfig, state: ContainerState) -> bool:
    """Whether a container that does not run is started when the daemon starts."""
    if state.comes_back or host.restart_policy.name == "always":
        return True
    return not state.manually_stopped and _goes_on(host, state)
