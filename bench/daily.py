"""Rows about what is done all day: starts and execs by the API alone, stops, lists of many, health checks."""

from __future__ import annotations

import contextlib
import io
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from case import Case, Function, Once, least, ratio, value
from engines import Engine, Lab
from plainapi import Api

IMAGE = "busybox"
MANY = 200
CHECKED, CHECKS_FOR = 200, 10.0
_SLEEP = [IMAGE, "sleep", "100000"]
_NAME = "bench-daily"


def _ms(seconds: float) -> float:
    return seconds * 1000


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return _ms(time.perf_counter() - began)


@contextlib.contextmanager
def api_run(lab: Lab, side: str) -> Iterator[Once]:
    api = Api(lab.engines[side].socket)
    yield lambda: _timed(lambda: api.run_to_end(IMAGE, ["true"]))
    api.close()


@contextlib.contextmanager
def api_exec(lab: Lab, side: str) -> Iterator[Once]:
    with _running(lab.engines[side]) as engine:
        api = Api(engine.socket)
        yield lambda: _timed(lambda: api.execute(_NAME, ["true"]))
        api.close()


@contextlib.contextmanager
def _running(engine: Engine) -> Iterator[Engine]:
    engine.ask("run", "-d", "--name", _NAME, *_SLEEP)
    yield engine
    engine.ask("rm", "-f", _NAME)


@contextlib.contextmanager
def stop_start(lab: Lab, side: str) -> Iterator[Once]:
    with _running(lab.engines[side]) as engine:
        yield lambda: _ms(engine.timed("stop", "-t", "0", _NAME) + engine.timed("start", _NAME))


@contextlib.contextmanager
def run_remove(lab: Lab, side: str) -> Iterator[Once]:
    engine = lab.engines[side]
    yield lambda: _ms(engine.timed("run", "-d", "--name", _NAME, *_SLEEP) + engine.timed("rm", "-f", _NAME))


# ---- lists ---------------------------------------------------------------------------------------------


def _archive() -> bytes:
    """A file system of one small file, for an image."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = 1000
        tar.addfile(member, io.BytesIO(bytes(1000)))
    return out.getvalue()


def _with_many(command: Sequence[str]) -> Function:
    @contextlib.contextmanager
    def case(lab: Lab, side: str) -> Iterator[Once]:
        engine = lab.engines[side]
        path = lab.base / f"many-{side}.tar"
        path.write_bytes(_archive())
        images = [f"bench-many-{number}" for number in range(MANY)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: engine.ask("import", "-m", name, str(path), name), images))
            made = list(pool.map(lambda _: engine.ask("create", *_SLEEP), images))
        argv = [word.replace("FIRST", made[0]) for word in command]
        yield lambda: _ms(engine.timed(*argv))
        engine.remove_containers()
        engine.ask("rmi", *images, timeout=180)

    return case


# ---- health checks -------------------------------------------------------------------------------------


@contextlib.contextmanager
def health(lab: Lab, side: str) -> Iterator[Once]:
    """How many checks are carried out in a second where more are due: each leaves one byte behind.

    The containers run only while this side is measured: the checks of both would take the processors of each.
    """
    engine = lab.engines[side]
    counted = lab.base / f"health-{side}"
    counted.mkdir()
    flags = ["--network", "none", "-v", f"{counted}:/counted", "--health-interval", "1s"]

    def create(number: int) -> str:
        check = ["--health-cmd", f"printf . >> /counted/{number}"]
        return engine.ask("create", *flags, *check, *_SLEEP).strip()

    def done() -> int:
        return sum(entry.stat().st_size for entry in counted.iterdir())

    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(create, range(CHECKED)))

    def once() -> float:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda container: engine.ask("start", container), created))
        time.sleep(2)
        before, began = done(), time.perf_counter()
        time.sleep(CHECKS_FOR)
        rate = (done() - before) / (time.perf_counter() - began)
        engine.ask("kill", *created)
        return rate

    yield once
    engine.remove_containers()


CASES: Sequence[Case] = (
    Case("api-run", "create, start, wait and remove, by the API alone", api_run, aim=value(30), rounds=15),
    Case("api-exec", "an exec by the API alone: create, start, inspect", api_exec, aim=value(9), rounds=15),
    Case("restart", "`docker stop -t 0` and `docker start`", stop_start, aim=ratio(0.16), loaded=ratio(0.2)),
    Case("run-rm", "`docker run -d` and `docker rm -f`", run_remove, aim=ratio(0.16), loaded=ratio(0.2)),
    *(
        Case(
            name,
            f"`docker {' '.join(command).replace('FIRST', 'c')}` with {MANY} containers and {MANY} images",
            _with_many(command),
            aim=ratio(0.8),
            loaded=ratio(0.9),
        )
        for name, command in (
            ("inspect-many", ("inspect", "FIRST")),
            ("ps-many", ("ps", "-a")),
            ("images-many", ("images",)),
            ("df-many", ("system", "df")),
        )
    ),
    Case(
        "health",
        f"health checks carried out, with {CHECKED} due each second",
        health,
        unit="/s",
        aim=least(150),
        rounds=2,
        quick_rounds=1,
        warm_up=False,
        in_quick=False,
    ),
)
