"""When a container is started again, and after how long."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from wherry.engine.containers import restartpolicy
from wherry.model.container import ContainerState, HostConfig, RestartPolicy

SECOND = 10**9


def host(name: str, tries: int = 0) -> HostConfig:
    return replace(HostConfig(), restart_policy=RestartPolicy(name=name, maximum_retry_count=tries))


def exited(code: int, *, ran: float = 1, restarts: int = 0, by_hand: bool = False) -> ContainerState:
    return replace(
        ContainerState(),
        status="exited",
        exit_code=code,
        started_at=5 * SECOND,
        finished_at=5 * SECOND + int(ran * SECOND),
        restart_count=restarts,
        manually_stopped=by_hand,
    )


@pytest.mark.parametrize(
    ("name", "code", "again"),
    [
        ("", 0, False),
        ("no", 0, False),
        ("no", 1, False),
        ("always", 0, True),
        ("always", 1, True),
        ("unless-stopped", 0, True),
        ("unless-stopped", 1, True),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("on-failure", 137, True),
    ],
)
def test_after_an_exit_and_with_the_daemon(name: str, code: int, again: bool) -> None:
    assert (restartpolicy.delay(host(name), exited(code)) is not None) is again
    assert restartpolicy.starts_with_daemon(host(name), exited(code)) is again


@pytest.mark.parametrize("name", ["", "no", "always", "unless-stopped", "on-failure"])
@pytest.mark.parametrize("code", [0, 1])
def test_what_was_stopped_by_hand_starts_with_the_daemon_if_always(name: str, code: int) -> None:
    state = exited(code, by_hand=True)
    assert restartpolicy.starts_with_daemon(host(name), state) is (name == "always")
    assert restartpolicy.starts_with_daemon(host(name), replace(state, comes_back=True))


def test_tries_are_counted() -> None:
    policy = host("on-failure", 2)
    found = [restartpolicy.delay(policy, exited(1, restarts=n)) is not None for n in range(4)]
    assert found == [True, True, False, False]
    assert restartpolicy.delay(host("on-failure"), exited(1, restarts=1000)) is not None
    assert not restartpolicy.starts_with_daemon(policy, exited(1, restarts=2))


def test_the_delay_doubles_to_a_minute_and_starts_over_after_a_long_run() -> None:
    found = [restartpolicy.delay(host("always"), exited(0, restarts=n)) for n in range(11)]
    assert found == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0]
    assert restartpolicy.delay(host("always"), exited(0, restarts=10**9)) == 60.0
    assert restartpolicy.delay(host("always"), exited(0, ran=9.9, restarts=3)) == 0.8
    assert restartpolicy.delay(host("always"), exited(0, ran=10, restarts=3)) == 0.1


def test_the_backoff_doubles_up_to_a_minute() -> None:
    assert [restartpolicy.backoff(n) for n in (0, 1, 2, 9, 10, 1000)] == [0.1, 0.2, 0.4, 51.2, 60.0, 60.0]
