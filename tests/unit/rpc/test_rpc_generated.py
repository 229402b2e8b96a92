"""What is generated of our .proto files is what they say, and what the wire wants."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from wherry.buildkit.proto import control_pb2, fsutil_pb2, gateway_pb2
from wherry.buildkit.proto.control_rpc import Control
from wherry.buildkit.proto.filesync_rpc import FileSend, FileSync
from wherry.rpc.methods import BothStream, ServerStream, Unary

PROJECT = Path(__file__).parents[3]
SOURCE = PROJECT / "src"


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="needs grpcio-tools")
def test_generated_modules_are_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, PROJECT / "scripts" / "protos", "--to", tmp_path], check=True)
    made = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.py*")}
    kept = {
        str(path.relative_to(SOURCE)): path.read_text()
        for room in ("rpc", "buildkit")
        for path in (SOURCE / "wherry" / room).rglob("*.py*")
        if path.stem.endswith(("_pb2", "_rpc")) and path.suffix in (".py", ".pyi")
    }
    assert made.keys() == kept.keys()
    stale = [name for name in made if made[name] != kept[name]]
    assert not stale, f"run scripts/protos: {stale}"


def test_methods_are_of_the_right_kind() -> None:
    assert isinstance(Control.Solve, Unary)
    assert isinstance(Control.Status, ServerStream)
    assert isinstance(Control.Session, BothStream)
    assert Control.Session.path == "/moby.buildkit.v1.Control/Session"
    assert FileSync.DiffCopy.path == "/moby.filesync.v1.FileSync/DiffCopy"
    assert FileSend.DiffCopy.path == "/moby.filesync.v1.FileSend/DiffCopy"


def test_bytes_of_messages() -> None:
    """Written by hand from the field numbers: tag is number * 8 + wire type."""
    end_of_walk = fsutil_pb2.Packet(type=fsutil_pb2.Packet.PACKET_STAT)
    assert end_of_walk.SerializeToString() == b""
    stat = fsutil_pb2.Packet.FromString(b"\x12\x0a\x0a\x01a\x10\xa4\x03\x28\x05\x30\x07")
    assert (stat.stat.path, stat.stat.mode, stat.stat.size, stat.stat.modTime) == ("a", 0o644, 5, 7)
    solve = control_pb2.SolveRequest.FromString(b"\x0a\x01r\x2a\x01s\x6a\x06\x0a\x04moby\x58\x01")
    assert (solve.Ref, solve.Session, solve.Exporters[0].Type, solve.Internal) == ("r", "s", "moby", True)
    result = gateway_pb2.Result(ref=gateway_pb2.Ref(id="x"), metadata={"k": b"v"})
    assert result.SerializeToString() == b"\x1a\x03\x0a\x01x\x52\x06\x0a\x01k\x12\x01v"


def test_fields_of_newer_clients_are_skipped() -> None:
    request = control_pb2.SolveRequest(Ref="r").SerializeToString() + b"\xd2\x0f\x03abc" + b"\xd8\x0f\x01"
    assert control_pb2.SolveRequest.FromString(request).Ref == "r"


def test_an_idle_daemon_does_not_pay() -> None:
    """What tells HTTP/2 from HTTP/1.1 imports neither h2 nor protobuf."""
    code = "import sys, wherry.rpc.detect, wherry.buildkit; "
    code += "print([m for m in sys.modules if m.startswith(('h2', 'google', 'hpack'))])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
