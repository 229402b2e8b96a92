from __future__ import annotations

import pytest

from wherry.engine.images.changes import parse_changes
from wherry.errors import InvalidArgument
from wherry.model.oci import Healthcheck, ImageRunConfig

SECOND = 10**9


def test_an_entrypoint_resets_the_base_command_but_not_a_given_one() -> None:
    base = ImageRunConfig(cmd=["old"])
    assert parse_changes(['ENTRYPOINT ["e"]'], base).cmd is None
    assert parse_changes(['CMD ["c"]', 'ENTRYPOINT ["e"]'], base).cmd == ["c"]


def test_the_shell_form_uses_the_shell() -> None:
    base = ImageRunConfig(shell=["/bin/ash", "-ec"])
    assert parse_changes(["CMD echo hi"]).cmd == ["/bin/sh", "-c", "echo hi"]
    assert parse_changes(["CMD echo hi"], base).cmd == ["/bin/ash", "-ec", "echo hi"]
    with pytest.raises(InvalidArgument, match="SHELL is not a valid change command"):
        parse_changes(['SHELL ["/bin/ash", "-ec"]', "CMD echo hi"])


def test_health_checks() -> None:
    check = parse_changes(["HEALTHCHECK --interval=1m30s --retries=4 --start-period=2s CMD true"]).healthcheck
    assert check == Healthcheck(
        test=["CMD-SHELL", "true"], interval=90 * SECOND, retries=4, start_period=2 * SECOND
    )
    assert parse_changes(['HEALTHCHECK CMD ["a", "b"]']).healthcheck == Healthcheck(test=["CMD", "a", "b"])
    assert parse_changes(["HEALTHCHECK NONE"]).healthcheck == Healthcheck(test=["NONE"])


def test_variables_are_those_of_the_configuration() -> None:
    base = ImageRunConfig(env=["A=1", "B=2"], working_dir="/w")
    changes = [
        "ENV B=$A C=${A}x",
        "ENV A=new D=$C",
        "LABEL l=\"$A $B\" m='$A'",
        "EXPOSE ${B}0",
        "WORKDIR sub/$D",
        "USER $B",
        "CMD echo $A",
    ]
    config = parse_changes(changes, base)
    assert config.env == ["A=new", "B=1", "C=1x", "D=1x"], "in their places"
    assert config.labels == {"l": "new 1", "m": "$A"}
    assert config.exposed_ports == {"10/tcp": {}} and config.user == "1"
    assert config.working_dir == "/w/sub/1x" and config.cmd == ["/bin/sh", "-c", "echo $A"]
    assert parse_changes(["ENV A=1 \\\n B=2"]).env == ["A=1", "B=2"]


def test_triggers_add_up() -> None:
    assert parse_changes(["ONBUILD RUN a", "ONBUILD ENV b=c"]).on_build == ["RUN a", "ENV b=c"]


@pytest.mark.parametrize(
    "change",
    [
        "HEALTHCHECK true",
        "HEALTHCHECK --interval=x CMD true",
        "HEALTHCHECK --interval=1us CMD true",
        "HEALTHCHECK --retries=-1 CMD true",
        "HEALTHCHECK --odd=1 CMD true",
        "HEALTHCHECK NONE at all",
        "HEALTHCHECK CMD",
        "ONBUILD ONBUILD RUN x",
        "ONBUILD FROM x",
        "SHELL /bin/sh",
        "RUN true",
        "CMD",
    ],
)
def test_what_is_malformed(change: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_changes([change])
