"""Bodies as Go's decoder takes and refuses them; the texts are those of Go 1.25's encoding/json."""

# ruff: noqa: E501
from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.api.routes.containers import CreateBody
from wherry.api.routes.networks import NetworkCreate
from wherry.errors import InvalidArgument
from wherry.model.container import ContainerUpdate, HostConfig
from wherry.model.exec import ExecConfig
from wherry.wire import gojson, goscan
from wherry.wire.auth import AuthConfig
from wherry.wire.numbers import atoi, uint32


def create(body: bytes) -> CreateBody:
    return gojson.decode(body, CreateBody)


def refusal(body: bytes, kind: Any = CreateBody) -> str:
    with pytest.raises(InvalidArgument) as caught:
        gojson.decode(body, kind)
    return caught.value.message


def test_names_in_any_case_at_every_depth() -> None:
    body = create(
        b'{"image":"i","HOSTCONFIG":{"memory":5,"portbindings":{"80/tcp":[{"hostport":"1"}]},'
        b'"mounts":[{"TYPE":"bind","bindoptions":{"createmountpoint":true}}]},'
        b'"networkingConfig":{"endpointsconfig":{"Net":{"ipamconfig":{"ipv4address":"10.0.0.2"}}}}}'
    )
    assert body.image == "i"
    host = body.host_config
    assert (
        host is not None and host.memory == 5 and host.mounts is not None and host.port_bindings is not None
    )
    assert host.port_bindings["80/tcp"][0].host_port == "1"
    assert host.mounts[0].bind_options.create_mountpoint
    networks = body.networking_config.endpoints_config
    assert networks["Net"].ipam_config.ipv4_address == "10.0.0.2", "keys of maps stay as they are"
    assert gojson.decode(b'{"detachKeys":"a"}', ExecConfig).detach_keys == "a"
    assert gojson.decode(b'{"Username":"u","IdentityToken":"t"}', AuthConfig).identitytoken == "t"
    assert (
        gojson.decode(b'{"ipam":{"config":[{"iprange":"r"}]}}', NetworkCreate).ipam.config[0].ip_range == "r"
    )


def test_the_last_of_several_counts_and_objects_are_joined() -> None:
    assert create(b'{"Image":"a","image":"b"}').image == "b"
    assert create(b'{"image":"b","Image":"a"}').image == "a"
    host = create(b'{"HostConfig":{"Memory":1},"hostconfig":{"CpuShares":2}}').host_config
    assert (host.memory, host.cpu_shares) == (1, 2)


def test_null() -> None:
    body = create(
        b'{"HostConfig":null,"Env":["a",null],"Labels":{"a":null},"ExposedPorts":{"80":null},"Tty":null}'
    )
    assert (body.host_config, body.env, body.labels, body.tty) == (None, ["a", ""], {"a": ""}, False)
    assert body.exposed_ports == {"80": {}}
    assert create(b"null").image == ""
    assert create(b'{"HostConfig":{"PortBindings":{"80":null}}}').host_config.port_bindings == {"80": None}


def test_strings_that_may_be_lists() -> None:
    assert create(b'{"Cmd":"one"}').cmd == "one"
    assert create(b'{"Cmd":["one","two"]}').cmd == ["one", "two"]
    assert create(b'{"Cmd":[]}').cmd == []


def test_arrays_of_a_fixed_length() -> None:
    assert create(b'{"HostConfig":{"ConsoleSize":[5]}}').host_config.console_size == (5, 0)
    assert create(b'{"HostConfig":{"ConsoleSize":[5,6,7]}}').host_config.console_size == (5, 6)


def test_bytes_that_are_no_text() -> None:
    assert create(b'{"Image":"\xff"}').image == "\ufffd"
    assert create(b'{"Image":"\\ud800x"}').image == "\ufffdx"
    assert create(b'{"Labels":{"\\ud800":"\xc3"}}').labels == {"\ufffd": "\ufffd"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"HostConfig":{"Memory":"x"}}', "string into {F} HostConfig.HostConfig.Resources.Memory of type int64"),
        ('{"HostConfig":{"Memory":1.5}}', "number 1.5 into {F} HostConfig.HostConfig.Resources.Memory of type int64"),
        ('{"HostConfig":{"Memory":1e3}}', "number 1e3 into {F} HostConfig.HostConfig.Resources.Memory of type int64"),
        (
            '{"HostConfig":{"Memory":9223372036854775808}}',
            "number 9223372036854775808 into {F} HostConfig.HostConfig.Resources.Memory of type int64",
        ),
        (
            '{"HostConfig":{"BlkioWeight":70000}}',
            "number 70000 into {F} HostConfig.HostConfig.Resources.BlkioWeight of type uint16",
        ),
        ('{"HostConfig":{"ShmSize":true}}', "bool into {F} HostConfig.HostConfig.ShmSize of type int64"),
        ('{"HostConfig":[]}', "array into {F} CreateRequest.HostConfig of type container.HostConfig"),
        (
            '{"HostConfig":{"RestartPolicy":"always"}}',
            "string into {F} HostConfig.HostConfig.RestartPolicy of type container.RestartPolicy",
        ),
        ('{"HostConfig":{"NetworkMode":1}}', "number into {F} HostConfig.HostConfig.NetworkMode of type container.NetworkMode"),
        (
            '{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":80}]}}}',
            "number into {F} PortBinding.HostConfig.PortBindings.HostPort of type string",
        ),
        ('{"Cmd":5}', "number into {F} CreateRequest.Config.Cmd of type string"),
        ('{"Cmd":["a",5]}', "array into {F} CreateRequest.Config.Cmd of type string"),
        ('{"Env":"A=b"}', "string into {F} CreateRequest.Config.Env of type []string"),
        ('{"Env":[1]}', "number into {F} CreateRequest.Config.Env of type string"),
        ('{"Labels":["a"]}', "array into {F} CreateRequest.Config.Labels of type map[string]string"),
        ('{"Tty":"yes"}', "string into {F} CreateRequest.Config.Tty of type bool"),
        ('{"StopTimeout":"1"}', "string into {F} CreateRequest.Config.StopTimeout of type int"),
        ('{"Healthcheck":{"Interval":"5s"}}', "string into {F} HealthConfig.Config.Healthcheck.Interval of type time.Duration"),
        ("[1]", "array into Go value of type container.CreateRequest"),
        ('"x"', "string into Go value of type container.CreateRequest"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind(body: str, words: str) -> None:
    wanted = words.replace("{F} ", "Go struct field ")
    assert refusal(body.encode()) == f"invalid JSON: json: cannot unmarshal {wanted}"
    spaced = json.dumps(json.loads(body), indent=1).encode() if "e3" not in body else body.encode()
    assert refusal(spaced) == f"invalid JSON: json: cannot unmarshal {wanted}"


def test_the_first_mismatch_is_named() -> None:
    assert "Memory" in refusal(b'{"Memory":"x","CpuShares":"y"}', ContainerUpdate)
    assert "CpuShares" in refusal(b'{"CpuShares":"y","Memory":"x"}', ContainerUpdate)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "got EOF while reading request body"),
        (b" \n", "got EOF while reading request body"),
        (b'{"a"', "unexpected EOF"),
        (b'{"a":', "unexpected EOF"),
        (b'{"Image":"x', "unexpected EOF"),
        (b"nul", "unexpected EOF"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'{"a":"\n"}', r"invalid character '\n' in string literal"),
        (b'{"a":"\x01"}', r"invalid character '\x01' in string literal"),
        (b'{"a":"\\q"}', "invalid character 'q' in string escape code"),
        (b'{"a":"\\u12g4"}', r"invalid character 'g' in \u hexadecimal character escape"),
        (b'{"a":nule}', "invalid character 'e' in literal null (expecting 'l')"),
        (b'{"a":-x}', "invalid character 'x' in numeric literal"),
        (b'{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
        (b'{"a":1e}', "invalid character '}' in exponent of numeric literal"),
        (b'{"a":01}', "invalid character '1' after object key:value pair"),
        (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        (b"\xc3\xa9", "invalid character 'Ã' looking for beginning of value"),
        (b"[" * 10_001, "exceeded max depth"),
    ],
)
def test_bytes_that_are_no_json(body: bytes, words: str) -> None:
    assert refusal(body) == f"invalid JSON: {words}"


def test_what_follows_the_value() -> None:
    assert refusal(b'{"Image":"x"}{') == "unexpected content after JSON"
    assert refusal(b"{} x") == "unexpected content after JSON"
    assert create(b'{"Image":"x"} \n').image == "x"
    assert create(b'{"Image":"x"}}').image == "x", "Go looks only for another value"


def test_texts_of_a_query() -> None:
    kind = dict[str, str]
    assert gojson.unmarshal('{"a":"b"}', kind, "error reading labels") == {"a": "b"}
    for text, words in [
        ("{", "unexpected end of JSON input"),
        ("{}x", "invalid character 'x' after top-level value"),
        ('{"a":1}', "json: cannot unmarshal number into Go value of type string"),
    ]:
        with pytest.raises(InvalidArgument) as caught:
            gojson.unmarshal(text, kind, "error reading labels")
        assert caught.value.message == f"error reading labels: {words}"


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["Memory", "hostConfig", "Env", "Mounts", "Type", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(_values)
@settings(max_examples=300, deadline=None)
def test_any_json_is_decoded_or_refused(value: Any) -> None:
    text = json.dumps(value).encode()
    assert goscan.end_of_value(text) == len(text)
    for kind in (CreateBody, HostConfig, NetworkCreate):
        try:
            gojson.decode(text, kind)
        except InvalidArgument as e:
            assert e.message.startswith("invalid JSON: json: cannot unmarshal ")


@given(st.binary(max_size=60) | st.text('{}[]",:\\ntfu019.eE+- ', max_size=30).map(str.encode))
@settings(max_examples=400, deadline=None)
def test_noise_is_refused_in_words(data: bytes) -> None:
    try:
        found = gojson.decode(data, CreateBody)
    except InvalidArgument as e:
        assert e.message
    else:
        assert isinstance(found, CreateBody)


def test_numbers_of_a_query() -> None:
    assert (atoi("-5"), atoi("+5")) == (-5, 5)
    for text in ("", "1_0", " 5", "٣", "5s", "0x1"):
        with pytest.raises(InvalidArgument, match="invalid syntax"):
            atoi(text)
    with pytest.raises(InvalidArgument) as caught:
        atoi("9" * 20)
    assert caught.value.message == f'strconv.Atoi: parsing "{"9" * 20}": value out of range'
    assert uint32("4294967295", "resize height") == 4294967295
    for text, words in [("", "invalid syntax"), ("+1", "invalid syntax"), ("a", "invalid syntax"),
                        ("-1", "value out of range"), ("4294967296", "value out of range")]:  # fmt: skip
        with pytest.raises(InvalidArgument) as caught:
            uint32(text, "resize height")
        assert caught.value.message == f'invalid resize height "{text}": {words}'
