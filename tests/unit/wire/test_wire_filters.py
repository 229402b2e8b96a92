from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument
from wherry.model.events import Event
from wherry.wire import filters, system

ALLOWED = {"label", "name", "dangling"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, {}),
        ("", {}),
        ("{}", {}),
        ('{"name":["a","b"]}', {"name": ["a", "b"]}),
        ('{"name":{"a":true,"b":false}}', {"name": ["a"]}),
        ('{"name":[]}', {}),
        ('{"name":null}', {}),
    ],
)
def test_both_spellings(text: str | None, expected: dict[str, list[str]]) -> None:
    assert filters.parse(text, ALLOWED) == expected


@pytest.mark.parametrize("text", ["{", "[]", '{"name":"a"}', '{"name":[1]}', '{"other":["x"]}'])
def test_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter"):
        filters.parse(text, ALLOWED)


def test_truth_values() -> None:
    assert filters.boolean({}, "dangling") is None
    assert filters.boolean({"dangling": ["1", "true"]}, "dangling") is True
    assert filters.boolean({"dangling": ["False"]}, "dangling") is False
    for bad in (["x"], ["1", "0"]):
        with pytest.raises(InvalidArgument):
            filters.boolean({"dangling": bad}, "dangling")


def test_labels() -> None:
    labels = {"a": "1", "b": ""}
    assert filters.label_filters_match({"label": ["a", "a=1", "b="]}, labels)
    assert not filters.label_filters_match({"label": ["a=2"]}, labels)
    assert not filters.label_filters_match({"label!": ["b"]}, labels)
    assert filters.label_filters_match({"label!": ["a=2", "c"]}, labels)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({}, True),
        ({"type": ["container"]}, True),
        ({"type": ["image", "container"]}, True),
        ({"type": ["image"]}, False),
        ({"event": ["exec_start"]}, True),
        ({"event": ["exec_start: sh"]}, True),
        ({"event": ["start"]}, False),
        ({"container": ["box"]}, True),
        ({"container": ["abcd"]}, True),
        ({"container": ["abc"]}, True),
        ({"container": ["bo"]}, True),
        ({"container": ["ox"]}, False),
        ({"image": ["busybox"]}, True),
        ({"image": ["debian"]}, False),
        ({"volume": ["box"]}, False),
        ({"label": ["k"]}, True),
        ({"label": ["k=v"]}, True),
        ({"label": ["k=w"]}, False),
        ({"scope": ["swarm"]}, False),
    ],
)
def test_events(wanted: dict[str, list[str]], matches: bool) -> None:
    attributes = {"name": "box", "image": "busybox:latest", "k": "v"}
    event = Event("container", "exec_start: sh", "abcdef", 1, attributes)
    assert system.event_matches(event, wanted) is matches
