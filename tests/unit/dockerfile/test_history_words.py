"""An image's history in the words of Docker's two builders; every line is one that Docker Engine 28.5
wrote."""

from __future__ import annotations

import pytest

from wherry.dockerfile import configs, historywords
from wherry.dockerfile.expand import expand
from wherry.dockerfile.parse import parse
from wherry.model.oci import ImageRunConfig

NOP = "/bin/sh -c #(nop) "
LINES = [
    ("ENV E=x F=$E", "ENV E=x F=1", NOP + " ENV E=x F=1"),
    ('LABEL l="a b"', "LABEL l=a b", NOP + " LABEL l=a b"),
    ("COPY f g /d/", "COPY f g /d/ # buildkit", NOP + "COPY f g in /d/ "),
    ("ADD f /e", "ADD f /e # buildkit", NOP + "ADD f in /e "),
    (
        "COPY --link --chown=1:1 --from=x f /x",
        "COPY --chown=1:1 f /x # buildkit",
        NOP + "COPY --chown=1:1 f in /x ",
    ),
    ('ENTRYPOINT ["a"]', 'ENTRYPOINT ["a"]', NOP + ' ENTRYPOINT ["a"]'),
    ('CMD ["b", "c"]', 'CMD ["b" "c"]', NOP + ' CMD ["b" "c"]'),
    ('CMD echo "hi"', 'CMD ["/bin/sh" "-c" "echo \\"hi\\""]', NOP + ' CMD ["/bin/sh" "-c" "echo \\"hi\\""]'),
    ("USER 1", "USER 1", NOP + " USER 1"),
    ("EXPOSE 81 80/tcp", "EXPOSE [80/tcp 81/tcp]", NOP + " EXPOSE 81 80/tcp"),
    ("VOLUME /v", "VOLUME [/v]", NOP + " VOLUME [/v]"),
    ("STOPSIGNAL SIGINT", "STOPSIGNAL SIGINT", NOP + " STOPSIGNAL SIGINT"),
    (
        "HEALTHCHECK --interval=5s CMD true",
        'HEALTHCHECK &{["CMD-SHELL" "true"] "5s" "0s" "0s" "0s" \'\\x00\'}',
        NOP + " HEALTHCHECK &{[CMD-SHELL true] 5s 0s 0s 0s 0}",
    ),
    (
        "HEALTHCHECK NONE",
        'HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" \'\\x00\'}',
        NOP + " HEALTHCHECK &{[NONE] 0s 0s 0s 0s 0}",
    ),
    ('SHELL ["/bin/sh", "-c"]', "SHELL [/bin/sh -c]", NOP + " SHELL [/bin/sh -c]"),
    ("ONBUILD RUN true", "", NOP + " ONBUILD RUN true"),
    ("MAINTAINER me", "MAINTAINER me", NOP + " MAINTAINER me"),
]


@pytest.mark.parametrize(("line", "buildkit", "legacy"), LINES, ids=[line for line, *_ in LINES])
def test_words(line: str, buildkit: str, legacy: str) -> None:
    instruction = parse(f"FROM scratch\n{line}\n".encode()).stages[0].instructions[0]
    expanded = expand(instruction, {"E": "1"})
    config = configs.apply(ImageRunConfig(), expanded, commanded=False) or ImageRunConfig()
    assert historywords.buildkit(expanded, config) == buildkit
    assert historywords.legacy(expanded, config) == legacy


def test_durations() -> None:
    check = parse(
        b"FROM scratch\nHEALTHCHECK --timeout=90s --start-period=500ms --interval=1h --retries=3 CMD x\n"
    )
    instruction = check.stages[0].instructions[0]
    config = configs.apply(ImageRunConfig(), instruction, commanded=False)
    assert config is not None
    shown = historywords.buildkit(instruction, config)
    assert shown == 'HEALTHCHECK &{["CMD-SHELL" "x"] "1h0m0s" "1m30s" "500ms" "0s" \'\\x03\'}'


def test_a_run() -> None:
    assert historywords.run("|1 A=1 /bin/sh -c true") == "RUN |1 A=1 /bin/sh -c true # buildkit"
