"""``wherry compose`` and Docker's plugin on the same projects and the same daemon, in turn.

    python bench/compose.py --host unix:///run/wherry/wherry.sock [--rounds 7] [--services 50]

The daemon has busybox. The plugin is taken from .cache/plugins/new (scripts/fetch-plugins). Medians of whole
commands, as a shell sees them, after one warm-up of each; who goes first alternates. Prints the lines of
docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from commands import environment, timed

ROOT = Path(__file__).resolve().parents[1]
WHERRY = [str(ROOT / ".venv" / "bin" / "wherry")]
PLUGIN = [str(ROOT / ".cache" / "plugins" / "new" / "docker-compose")]


def project(count: int) -> str:
    lines = ["services:"]
    for number in range(count):
        lines += [f"  s{number}:", "    image: busybox", "    init: true", "    command: [sleep, '100000']"]
    return "\n".join(lines) + "\n"


def long_file(lines: int) -> str:
    """A project of about so many lines, of the keys that people use most."""
    found = ["services:"]
    number = 0
    while len(found) < lines - 2:
        number += 1
        found += [
            f"  service{number}:",
            "    image: registry.example.com/team/app:${TAG:-1.2.3}",
            "    restart: unless-stopped",
            "    environment:",
            f"      NAME: service{number}",
            "      DATABASE_URL: postgres://db:5432/app",
            "      LOG_LEVEL: ${LOG_LEVEL:-info}",
            "    ports:",
            f'      - "{10000 + number}:8080"',
            "    volumes:",
            "      - data:/var/lib/app",
            "      - ./config:/etc/app:ro",
            "    healthcheck:",
            "      test: curl -f http://localhost:8080/health",
            "      interval: 30s",
            "    deploy:",
            "      resources:",
            "        limits: {memory: 256m}",
        ]
    return "\n".join([*found, "volumes:", "  data: {}"]) + "\n"


class Bench:
    def __init__(self, host: str, rounds: int, home: str) -> None:
        self.rounds = rounds
        self.env = environment(home, DOCKER_HOST=host)

    def seconds(self, argv: Sequence[str]) -> float:
        return timed(argv, self.env, timeout=600)

    def pair(
        self,
        what: str,
        ours: Sequence[str],
        theirs: Sequence[str],
        aim: str,
        between: Callable[[], None] | None = None,
    ) -> None:
        """Both in turn; a line of the table."""
        sides = {"ours": list(ours), "theirs": list(theirs)}
        found: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(self.rounds + 1):
            for side in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
                taken = self.seconds(sides[side])
                if number:
                    found[side].append(taken)
                if between is not None:
                    between()
        one, other = statistics.median(found["ours"]), statistics.median(found["theirs"])
        print(
            f"| {what} | {_span(found['ours'])} | {_span(found['theirs'])} | {one / other:.2f} | {aim} |",
            flush=True,
        )


def _span(found: Sequence[float]) -> str:
    return f"{statistics.median(found) * 1000:.0f} ms ({min(found) * 1000:.0f} to {max(found) * 1000:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--services", type=int, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(asked.host, asked.rounds, home)
        many, few, long = (
            Path(home, name, "compose.yaml") for name in ("benchmany", "benchfew", "benchlong")
        )
        for path, text in ((many, project(asked.services)), (few, project(20)), (long, long_file(2000))):
            path.parent.mkdir()
            path.write_text(text)

        def ours(path: Path, *words: str) -> list[str]:
            return [*WHERRY, "compose", "-f", str(path), *words]

        def theirs(path: Path, *words: str) -> list[str]:
            return [*PLUGIN, "-f", str(path), *words]

        print(f"load {os.getloadavg()[0]:.1f}, {asked.rounds} rounds")
        print("| work | wherry compose | Docker's plugin | ratio | aim |\n| --- | --- | --- | --- | --- |")
        lines = len(long.read_text().splitlines())
        bench.pair(
            f"`config` of {lines} lines", ours(long, "config", "-q"), theirs(long, "config", "-q"), "≤ 300 ms"
        )
        bench.seconds(ours(few, "up", "-d"))
        try:
            bench.pair("`ps` of 20 services", ours(few, "ps"), theirs(few, "ps"), "")
            bench.pair(
                "`compose ps` of 20 services, beside `wherry ps`", ours(few, "ps"), [*WHERRY, "ps"], "≤ 2 x"
            )
        finally:
            bench.seconds(ours(few, "down", "-t", "1"))
        bench.seconds(ours(many, "up", "-d"))
        try:
            bench.pair(
                f"`up -d` of {asked.services} services already up",
                ours(many, "up", "-d"),
                theirs(many, "up", "-d"),
                "≤ 1 s",
            )
        finally:
            bench.seconds(ours(many, "down", "-t", "1"))

        def down() -> None:
            bench.seconds(ours(many, "down", "-t", "1"))

        bench.rounds = min(asked.rounds, 3)
        bench.pair(
            f"`up -d` of {asked.services} services from nothing",
            ours(many, "up", "-d"),
            theirs(many, "up", "-d"),
            "",
            between=down,
        )


if __name__ == "__main__":
    main()
