"""``/containers/{id}/exec`` and ``/exec``: further processes in a running container."""

from __future__ import annotations

from wherry.client.api import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.client.api import Api, Hijacked


def create(api: Api, container: str, body: dict[str, Any]) -> str:
    """Create an exec and return its ID."""
    return str(api.json("POST", f"/containers/{quote(container)}/exec", body=body)["Id"])


def start_detached(api: Api, exec_id: str, *, tty: bool = False) -> None:
    api.call("POST", f"/exec/{quote(exec_id)}/start", body={"Detach": True, "Tty": tty})


def start(
    api: Api, exec_id: str, *, tty: bool = False, console_size: tuple[int, int] | None = None
) -> Hijacked:
    """Start and attach. ``console_size`` is (height, width) in characters, for a terminal."""
    body: dict[str, Any] = {"Detach": False, "Tty": tty}
    if console_size and console_size != (0, 0):
        body["ConsoleSize"] = list(console_size)
    return api.hijack("POST", f"/exec/{quote(exec_id)}/start", body=body)


def resize(api: Api, exec_id: str, height: int, width: int) -> None:
    api.call("POST", f"/exec/{quote(exec_id)}/resize", query={"h": height, "w": width})


def listing(api: Api, container: str) -> list[dict[str, Any]]:
    """Execs that run, or that left processes running (wherry's own endpoint)."""
    return api.json("GET", f"/containers/{quote(container)}/execs") or []


def stop(api: Api, exec_id: str, timeout: int | None = None) -> None:
    """Send TERM to all its processes, and KILL after ``timeout`` seconds (None: the daemon's default, 10)."""
    api.call("POST", f"/exec/{quote(exec_id)}/stop", query={"t": timeout})


def kill(api: Api, exec_id: str, signal: str = "") -> None:
    api.call("POST", f"/exec/{quote(exec_id)}/kill", query={"signal": signal or None})


def inspect(api: Api, exec_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = api.json("GET", f"/exec/{quote(exec_id)}/json")
    return answer
