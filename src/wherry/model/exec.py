"""The Engine API's requests about execs."""

from __future__ import annotations

from wherry.model.base import Value


class ExecConfig(Value, frozen=True, kw_only=True):
    """API ``ContainerExec`` body."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: tuple[int, int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class ExecStart(Value, frozen=True, kw_only=True):
    """API ``ExecStart`` body."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None
