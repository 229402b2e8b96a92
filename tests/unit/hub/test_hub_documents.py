"""What pages make of documents of users: configurations, lists of packages, READMEs, plots. Nothing of them
raises."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.errors import InvalidArgument
from wherry.hub.core import categories, images, sbom
from wherry.hub.registry.counting import client_of
from wherry.hub.web import files, plots, readme

ASSETS = Path(files.__file__).parent / "assets"
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["config", "history", "Labels", "Env", "created_by", "packages", "components", "licenses",
            "license",
             "name", "predicate", "Data", "externalRefs", "Healthcheck", "Test", "ExposedPorts", "created"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(DOCUMENTS)
def test_no_document_is_too_strange(document: object) -> None:
    data = json.dumps(document).encode()
    config = images.parse(data)
    assert all(lines for _, lines in config.facts())
    assert sbom.parse(data) == sorted(set(sbom.parse(data)))


@pytest.mark.parametrize("data", [b"", b"[" * 100_000, b"\xff\xfe", b'{"config": 1e999}', b"null"])
def test_what_is_not_json_is_empty(data: bytes) -> None:
    assert images.parse(data).platform == "" and sbom.parse(data) == []


def test_layers_have_their_instructions() -> None:
    config = images.parse(
        json.dumps(
            {
                "history": [
                    {"created_by": "/bin/sh -c #(nop) ADD file:1 in /"},
                    {"created_by": "/bin/sh -c #(nop)  ENV A=1", "empty_layer": True},
                    {"created_by": "/bin/sh -c make"},
                    {"created_by": "COPY . . # buildkit"},
                ]
            }
        ).encode()
    )
    layers = images.layers([{"digest": f"d{n}", "size": n} for n in range(4)], config)
    assert [(one.instruction, one.digest) for one in layers] == [
        ("ADD file:1 in /", "d0"), ("ENV A=1", ""), ("RUN make", "d1"), ("COPY . .", "d2"), ("", "d3"),
    ]  # fmt: skip


def test_both_kinds_of_lists_of_packages() -> None:
    spdx = {
        "packages": [
            {"name": "zlib", "versionInfo": "1", "licenseDeclared": "Zlib",
             "externalRefs": [{"referenceLocator": "pkg:deb/debian/zlib@1"}]},
            {"name": "image", "primaryPackagePurpose": "CONTAINER"},
        ]
    }  # fmt: skip
    cyclone = {
        "components": [
            {"type": "library", "name": "flask", "version": "3", "purl": "pkg:pypi/flask@3",
             "licenses": [{"license": {"id": "BSD-3-Clause"}}, {"expression": "MIT OR X"}]},
            {"type": "file", "name": "/etc/passwd"},
        ]
    }  # fmt: skip
    assert sbom.parse(json.dumps({"predicate": spdx}).encode()) == [sbom.Package("zlib", "1", "deb", "Zlib")]
    assert sbom.parse(json.dumps(cyclone).encode()) == [
        sbom.Package("flask", "3", "pypi", "BSD-3-Clause, MIT OR X")
    ]


def test_differences_are_in_order() -> None:
    found = images.differences({"a": "1", "b": "1", "d": "1"}, {"b": "2", "c": "1", "d": "1"})
    assert [(one.name, one.before, one.after) for one in found] == [
        ("a", "1", ""),
        ("b", "1", "2"),
        ("c", "", "1"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))",
        "[a](JaVaScRiPt:alert(1))", "[a](data:text/html;base64,PHN2Zz4=)", "[a](//evil.example)",
        "[a](/account/logout/)", "![a](https://evil.example/x.png)", "<a href='x' onclick='y'>z</a>",
        "[a](vbscript:x)", "<style>*{display:none}</style>", "<iframe src=x>", "[a]: javascript:x\n\n[a]",
        "`<b onmouseover=x>`", "<https://evil.example/\" onclick=x>", "```<script>\nx\n```",
    ],
)  # fmt: skip
def test_readmes_do_nothing(text: str) -> None:
    made = readme.html(text)
    for tag in re.findall(r"<[^>]*>", made):
        assert re.fullmatch(r"</?(p|a|code|pre|em|h[1-6]|strong)( [^>]*)?>", tag), made
        assert not re.search(r" on\w+=| style=| src=", tag), made
    for link in re.findall(r'href="([^"]*)"', made):
        assert link.startswith(("https://", "http://", "mailto:", "#")), made


@given(st.text(max_size=200))
def test_any_readme_has_only_known_tags(text: str) -> None:
    assert not re.search(r"<(script|img|iframe|style|svg|form|input|object)", readme.html(text))


def test_plots_escape_words() -> None:
    made = str(plots.bars([("<b>", 3), ('"', 0)], '<script>"'))
    assert "<b>" not in made and "<script>" not in made and "style=" not in made
    assert 'width="50.0"' in str(plots.meter(1, 2, "half"))
    assert "full" in str(plots.meter(95, 100, "quota", limit=True)) and "full" not in str(
        plots.meter(9, 9, "all")
    )
    assert [plots.short(n) for n in (0, 999, 1000, 1_250_000)] == ["0", "999", "1k", "1.2M"]


def test_vendored_files_are_those_recorded() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", (ASSETS / "VENDORED.md").read_text(), re.MULTILINE
    )
    assert [name for name, _ in rows] == ["htmx.min.js"]
    for name, digest in rows:
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest
    assert (ASSETS / "htmx.LICENSE.txt").exists()


def test_no_page_has_inline_code() -> None:
    """The policy would refuse it; and nothing comes from elsewhere."""
    for path in (Path(files.__file__).parent / "templates").rglob("*.html"):
        text = path.read_text()
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son(click|load|submit|change)=", text
        ), path
        assert not re.search(r"(src|href)=\"(https?:)?//", text), path


def test_categories() -> None:
    assert categories.packed(["web", "web", "tools"]) == " web tools " and categories.packed([]) == ""
    for wrong in (["nothing"], ["base", "build", "data", "web"]):
        with pytest.raises(InvalidArgument):
            categories.packed(wrong)
    assert categories.is_official("library/x") and categories.is_official("x")
    assert not categories.is_official("team/library")


def test_classes_of_clients() -> None:
    agents = {
        "docker/28.5.2 go/go1.24 UpstreamClient(Docker-Client/28.5.2 (linux))": "docker",
        "containers/5.30 (github.com/containers/image)": "podman", "wherry/0.1": "wherry", "": "other",
        "containerd/1.7": "containerd", "skopeo/1.9": "skopeo",
    }  # fmt: skip
    assert {agent: client_of(agent) for agent in agents} == agents
