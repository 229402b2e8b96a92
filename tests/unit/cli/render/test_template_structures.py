"""Templates of ``inspect`` know the structures of Docker's client."""

from __future__ import annotations

import json

import pytest

from wherry.cli.render import template
from wherry.cli.render.template.structures import Struct

CONTAINER = {
    "Id": "c",
    "Mounts": [{"Type": "bind", "Source": "/s"}],
    "Config": {"Labels": {"a": "b"}, "Env": None},
    "HostConfig": {"Memory": 5, "PidsLimit": None},
    "NetworkSettings": {"Networks": {"n": {"IPAddress": "10.0.0.2"}}},
    "State": {"Status": "running"},
    "Later": {"New": 1},
}
NETWORK = {"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]}}


def rendered(kind: str, data: dict[str, object], text: str) -> str:
    return template.compile(text, strict=True).render(Struct(kind, data))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{range .Mounts}}[{{.Name}}{{.Driver}}{{.RW}}]{{end}}", "[false]"),
        ("{{.GraphDriver.Name}}|{{.ID}}", "|c"),
        ("{{.Config.Env}} {{json .Config.Env}} {{.Config.Labels.a}} {{.Config.WorkingDir}}", "[] null b "),
        ("{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{len .HostConfig.Binds}}", "0 <nil> 0"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{.GlobalIPv6Address}}{{end}}", "10.0.0.2"),
        ("{{if .State.Health}}x{{end}}{{.State.OOMKilled}}", "false"),
        ("{{.Later.New}}", "1"),
    ],
)
def test_what_a_structure_has_is_there(text: str, shown: str) -> None:
    assert rendered("ContainerInspectResponse", CONTAINER, text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{.Mounts}}", "[{bind  /s    false }]"),
        ("{{.State}}", "{running false false false false false 0 0    <nil>}"),
        ("{{.HostConfig.RestartPolicy}}", "{ 0}"),
        ("{{.NetworkSettings.Ports}}", "map[80/tcp:[{127.0.0.1 8080}]]"),
        ("{{.NetworkSettings.Networks.n}}", "{<nil> [] []  map[] 0    10.0.0.2 0   0 []}"),
        ("{{.GraphDriver}}", "{map[] }"),
        ("{{.Config.Labels}}", "map[a:b]"),
        ("{{json .Mounts}}", '[{"Type":"bind","Source":"/s"}]'),
    ],
)
def test_structures_as_go_prints_them(text: str, shown: str) -> None:
    ports = {"Ports": {"80/tcp": [{"HostPort": "8080", "HostIp": "127.0.0.1"}]}}
    data = {**CONTAINER, "NetworkSettings": {"Networks": {"n": {"IPAddress": "10.0.0.2"}}, **ports}}
    assert rendered("ContainerInspectResponse", data, text) == shown
    network = rendered("NetworkInspect", NETWORK, "{{.IPAM}}")
    assert network == "{ map[] [{10.0.0.0/24   map[]}]}"


def test_structures_of_other_kinds() -> None:
    assert rendered("NetworkInspect", NETWORK, "{{range .IPAM.Config}}{{.IPRange}}{{.Subnet}}{{end}}") == (
        "10.0.0.0/24"
    )
    image = {"Descriptor": {"mediaType": "m"}}
    assert rendered("ImageInspect", image, "{{.Descriptor.MediaType}} {{.OsVersion}}") == "m "
    assert json.loads(rendered("Volume", {"Name": "v"}, "{{json .}}")) == {"Name": "v"}, (
        "and nothing is added"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{.Nothing}}", 'map has no entry for key "Nothing"'),
        ("{{.State.Mounts}}", 'map has no entry for key "Mounts"'),
        ("{{.Config.Nothing}}", 'map has no entry for key "Nothing"'),
        ("{{.state}}", 'map has no entry for key "state"'),
        ("{{.id}}", 'map has no entry for key "id"'),
        ("{{.State.Health.Status}}", "nil pointer"),
        ("{{.NetworkSettings.IPAddress}}", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"),
    ],
)
def test_what_no_structure_has(text: str, reason: str) -> None:
    with pytest.raises(template.TemplateFailure) as raised:
        rendered("ContainerInspectResponse", CONTAINER, text)
    assert reason in str(raised.value)


def test_fields_that_images_lost() -> None:
    with pytest.raises(template.TemplateFailure, match=r"see \.Config"):
        rendered("ImageInspect", {}, "{{.ContainerConfig}}")
