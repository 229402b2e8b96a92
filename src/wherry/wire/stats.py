"""``GET /containers/{id}/stats``: samples as the Engine API shows them.

The bytes are put together by hand, for speed: this runs for every container every second. Most of a sample
(``memory.stat``) is text from the kernel that becomes JSON by replacing blanks and line ends.
"""

from __future__ import annotations

import msgspec

from wherry.model.stats import NETWORK_FIELDS, Cpu, Sample
from wherry.wire.times import ZERO, rfc3339

_BLKIO_REST = (
    '"io_queue_recursive":null,"io_service_time_recursive":null,"io_wait_time_recursive":null,'
    '"io_merged_recursive":null,"io_time_recursive":null,"sectors_recursive":null'
)
_BLKIO_NONE = f'{{"io_service_bytes_recursive":null,"io_serviced_recursive":null,{_BLKIO_REST}}}'
_CPU_NONE = (
    '{"cpu_usage":{"total_usage":0,"usage_in_kernelmode":0,"usage_in_usermode":0},'
    '"throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}}'
)


def encode(sample: Sample) -> bytes:
    """One JSON document with a line end."""
    memory = sample.memory_detail.strip().decode().replace(" ", '":').replace("\n", ',"')
    memory = f'"stats":{{"{memory}}},' if memory else ""
    return (
        f'{{"name":{_text("/" + sample.name)},"id":"{sample.id}","os_type":"linux",'
        f'"read":"{rfc3339(sample.read)}","preread":"{rfc3339(sample.read_before)}",'
        f'"cpu_stats":{_cpu(sample.cpu)},"precpu_stats":{_cpu(sample.before)},'
        f'"memory_stats":{{{memory}{_memory(sample)}}},'
        f'"pids_stats":{_pids(sample)},"blkio_stats":{_blkio(sample)},'
        f'{_networks(sample)}"num_procs":0,"storage_stats":{{}}}}\n'
    ).encode()


def encode_stopped(container_id: str, name: str) -> bytes:
    """The answer for a container that does not run: all members are present and zero, as in Docker."""
    return (
        f'{{"name":{_text("/" + name)},"id":"{container_id}","os_type":"linux","read":"{ZERO}",'
        f'"preread":"{ZERO}","cpu_stats":{_CPU_NONE},"precpu_stats":{_CPU_NONE},"memory_stats":{{}},'
        f'"pids_stats":{{}},"blkio_stats":{_BLKIO_NONE},"num_procs":0,"storage_stats":{{}}}}\n'
    ).encode()


def _text(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _cpu(cpu: Cpu) -> str:
    if not cpu.online:
        return _CPU_NONE
    periods, throttled, nanoseconds = cpu.throttled
    percpu = f'"percpu_usage":[{",".join(map(str, cpu.percpu))}],' if cpu.percpu else ""
    return (
        f'{{"cpu_usage":{{"total_usage":{cpu.total},{percpu}"usage_in_kernelmode":{cpu.system},'
        f'"usage_in_usermode":{cpu.user}}},"system_cpu_usage":{cpu.host},"online_cpus":{cpu.online},'
        f'"throttling_data":{{"periods":{periods},"throttled_periods":{throttled},'
        f'"throttled_time":{nanoseconds}}}}}'
    )


def _memory(sample: Sample) -> str:
    members = (
        ("usage", sample.memory),
        ("max_usage", sample.memory_max),
        ("failcnt", sample.memory_failures),
        ("limit", sample.memory_limit),
    )
    return ",".join(f'"{name}":{value}' for name, value in members if value is not None)


def _pids(sample: Sample) -> str:
    if sample.pids is None:
        return "{}"
    return f'{{"current":{sample.pids},"limit":{sample.pids_limit or 0}}}'


def _blkio(sample: Sample) -> str:
    if not sample.io_bytes and not sample.io_operations:
        return _BLKIO_NONE.replace("null", "[]", 1)
    return (
        f'{{"io_service_bytes_recursive":{_entries(sample.io_bytes)},'
        f'"io_serviced_recursive":{_entries(sample.io_operations)},{_BLKIO_REST}}}'
    )


def _entries(found: tuple[tuple[int, int, str, int], ...] | None) -> str:
    if found is None:
        return "null"
    return (
        "["
        + ",".join(
            f'{{"major":{major},"minor":{minor},"op":"{operation}","value":{value}}}'
            for major, minor, operation, value in found
        )
        + "]"
    )


def _networks(sample: Sample) -> str:
    if not sample.networks:
        return ""
    shown = (
        _text(name)
        + ":{"
        + ",".join(f'"{field}":{value}' for field, value in zip(NETWORK_FIELDS, counters, strict=True))
        + "}"
        for name, counters in sample.networks
    )
    return '"networks":{' + ",".join(shown) + "},"
