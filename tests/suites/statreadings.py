"""What ``GET /containers/ID/stats`` answers, as tests of clients give it."""

from __future__ import annotations

from typing import Any


def reading(name: str, *, cpu: int = 0, memory: int = 1 << 20, **more: Any) -> dict[str, Any]:
    return {
        "id": name[0] * 64,
        "name": f"/{name}",
        "cpu_stats": {"cpu_usage": {"total_usage": cpu}, "system_cpu_usage": 2000, "online_cpus": 2},
        "precpu_stats": {"cpu_usage": {"total_usage": 0}, "system_cpu_usage": 1000, "online_cpus": 2},
        "memory_stats": {"usage": memory, "limit": 1 << 30, "stats": {"total_inactive_file": 4096}},
        "pids_stats": {"current": 3},
        "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2000}, "eth1": {"rx_bytes": 1, "tx_bytes": 1}},
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"op": "Read", "value": 5},
                {"op": "write", "value": 6},
                {"op": "Sync"},
            ]
        },
        **more,
    }
