"""What waits for what when a daemon starts."""

from __future__ import annotations

import pytest

from wherry.engine.upkeep import dependencies
from wherry.engine.upkeep.dependencies import COMPLETED, HEALTHY, STARTED, Need
from wherry.model import digest
from wherry.model.container import Container, ContainerConfig, ContainerState, Health, HostConfig
from wherry.state.containers import ContainerRow


def row(name: str, created: int, depends_on: str = "", project: str = "shop", **host: object) -> ContainerRow:
    """A container of the service that its name begins with (``db-1`` of ``db``)."""
    labels = {
        "com.docker.compose.project": project,
        "com.docker.compose.service": name.partition("-")[0],
        "com.docker.compose.depends_on": depends_on,
    }
    record = Container(
        id=name,
        created=created,
        image_ref="busybox",
        image_id=digest.parse("sha256:" + "0" * 64),
        chain_id=None,
        platform="linux/amd64",
        path="true",
        args=[],
        networks={},
        mounts=[],
        storage_driver="overlay",
        config=ContainerConfig(labels=labels if project else None),
        host_config=HostConfig(**host),  # type: ignore[arg-type]
    )
    return ContainerRow(name, record, ContainerState())


def test_needs_are_read_from_the_labels() -> None:
    rows = [
        row("web-1", 1, "db:service_healthy:true,seed:service_completed_successfully:false"),
        row("db-1", 2),
        row("db-2", 3),
        row("seed-1", 4, "db:service_started:false"),
        row("db-other", 5, project="elsewhere"),
        row("odd-1", 6, "db,web:sometimes:true,:::,nowhere:service_started:true"),
        row("alone", 7, "db:service_started:true", project=""),
    ]
    assert dependencies.needs(rows) == {
        "web-1": [Need("db-1", HEALTHY), Need("db-2", HEALTHY), Need("seed-1", COMPLETED)],
        "seed-1": [Need("db-1", STARTED), Need("db-2", STARTED)],
    }


def test_a_circle_is_cut() -> None:
    rows = [
        row("a-1", 1, "b:service_started:true"),
        row("b-1", 2, "c:service_healthy:true"),
        row("c-1", 3, "a:service_started:true,c:service_started:true"),
    ]
    waits = dependencies.needs(rows)
    assert waits == {"a-1": [Need("b-1", STARTED)], "b-1": [Need("c-1", HEALTHY)]}
    assert [one.id for one in dependencies.order(rows, waits)] == ["c-1", "b-1", "a-1"]


def test_the_order_has_links_namespaces_and_services() -> None:
    rows = [
        row("joins", 1, network_mode="container:plain"),
        row("web-1", 2, "db:service_started:true"),
        row("plain", 3),
        row("db-1", 4),
    ]
    found = [one.id for one in dependencies.order(rows, dependencies.needs(rows))]
    assert found == ["plain", "joins", "db-1", "web-1"]


@pytest.mark.parametrize(
    ("condition", "state", "runs", "over"),
    [
        pytest.param(STARTED, ContainerState(status="running"), True, True, id="it runs"),
        pytest.param(
            STARTED, ContainerState(status="exited", exit_code=1), False, True, id="it would not run"
        ),
        pytest.param(HEALTHY, ContainerState(status="running"), True, True, id="no check"),
        pytest.param(
            HEALTHY, ContainerState(status="running", health=Health()), True, False, id="not yet healthy"
        ),
        pytest.param(
            HEALTHY,
            ContainerState(status="running", health=Health(status="unhealthy")),
            True,
            False,
            id="ill",
        ),
        pytest.param(
            HEALTHY,
            ContainerState(status="running", health=Health(status="healthy")),
            True,
            True,
            id="healthy",
        ),
        pytest.param(
            HEALTHY, ContainerState(status="exited", health=Health()), False, True, id="never to be healthy"
        ),
        pytest.param(HEALTHY, ContainerState(status="restarting"), False, False, id="between two runs"),
        pytest.param(COMPLETED, ContainerState(status="running"), True, False, id="at work"),
        pytest.param(COMPLETED, ContainerState(status="exited"), False, True, id="done"),
        pytest.param(
            COMPLETED, ContainerState(status="exited", exit_code=2), False, True, id="failed for good"
        ),
        pytest.param(COMPLETED, ContainerState(status="restarting"), False, False, id="tries again"),
    ],
)
def test_when_waiting_is_over(condition: str, state: ContainerState, runs: bool, over: bool) -> None:
    assert dependencies.is_over(condition, state, runs=runs) is over
