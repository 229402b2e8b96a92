"""Several threads decode what none has decoded before, in a process of their own: msgspec alone ends it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from patience import patiently

from wherry.model import typed

RACE = """
import sys, threading, types
import msgspec
from wherry.model import typed

sys.setswitchinterval(1e-6)
DEPTH, WIDTH, THREADS = 10, 30, 4

for turn in range(60):
    module = types.ModuleType(f"turn{turn}")
    sys.modules[module.__name__] = module
    source = "from __future__ import annotations\\nimport msgspec\\n"
    for n in range(DEPTH):
        source += f"class A{n}(msgspec.Struct):\\n"
        for field in range(WIDTH):
            kind = f"dict[str, list[A{n - 1}]] | None = None" if n else "int = 0"
            source += f"    f{field}: {kind}\\n"
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    kinds = [getattr(module, f"A{n}") for n in range(DEPTH)]
    barrier = threading.Barrier(THREADS)

    def decode():
        barrier.wait()
        for kind in reversed(kinds[3:]):
            found = typed.from_json('{"f1": {"a": [{"f2": {"b": [{}]}}]}}', kind)
            assert found.f1["a"][0].f2["b"][0].f3 is None

    threads = [threading.Thread(target=decode) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("whole")
"""


def test_types_are_learnt_by_one_thread_at_a_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RACE], capture_output=True, text=True, check=False, timeout=patiently(60)
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


def test_decoding() -> None:
    assert typed.from_json(b'{"a": ["b"]}', dict[str, list[str]]) == {"a": ["b"]}
    assert typed.from_builtins({"a": 1}, dict[str, int]) == {"a": 1}
    assert typed.decoder(list[int]).decode("[1]") == [1]
    with pytest.raises(ValueError, match="Expected `int`"):
        typed.from_json('["x"]', list[int])
