"""What clients ask of the frontend, attribute by attribute, and what is refused."""

from __future__ import annotations

import pytest

from wherry.buildkit.attributes import AskedBuild, asked, exporters, with_exports
from wherry.buildkit.proto import control_pb2
from wherry.engine.builds.requests import Annotation
from wherry.errors import InvalidArgument, NotImplemented_

# As buildx 0.13.1 and 0.29.1 send them; see test_recorded for their very bytes.
PLAIN = {"filename": "Dockerfile"}
OLD = {
    "add-hosts": "h=1.2.3.4,gw=172.17.0.1",
    "attest:provenance": "mode=min,inline-only=true",
    "build-arg:A": "b=c",
    "context:base": "docker-image://busybox",
    "context:other": "local:other",
    "filename": "sub/Dockerfile",
    "force-network-mode": "none",
    "frontend.caps": "moby.buildkit.frontend.contexts+forward",
    "image-resolve-mode": "pull",
    "label:k": "v",
    "no-cache": "",
    "platform": "linux/amd64,linux/arm64",
    "shm-size": "33554432",
    "target": "last",
    "ulimit": "nofile=1:2,nproc=3",
}
NEW = {
    "cache-imports": '[{"Type":"registry","Attrs":{"ref":"docker.io/library/x:cache"}}]',
    "cmdline": "docker/dockerfile:1",
    "context:x": "oci-layout://store:latest@sha256:" + "0" * 64,
    "filename": "Dockerfile",
    "local-sessionid:context": "other",
    "local-sessionid:dockerfile": "other",
    "no-cache": "one,two",
    "sharedkey:localdir:context": "key",
    "vcs:source": "https://example.com/x.git",
}
STDIN = {
    "context": "http://buildkit-session/abc",
    "filename": "Dockerfile",
    "dockerfilekey": "dockerfile",
}


def test_nothing_in_particular() -> None:
    found = asked(PLAIN)
    assert (found.main, found.definition, found.upload) == ("context", "dockerfile", "")
    assert found.request.network == "default" and not found.request.no_cache and not found.call


def test_an_older_release() -> None:
    found = asked(OLD, ["network.host"])
    request = found.request
    assert request.dockerfile == "sub/Dockerfile" and request.target == "last"
    assert request.build_args == {"A": "b=c"} and request.labels == {"k": "v"}
    assert [str(one) for one in request.platforms] == ["linux/amd64", "linux/arm64"]
    assert request.no_cache and not request.no_cache_filter and request.pull
    assert request.contexts["base"].value == "busybox" and request.contexts["other"].kind == "local"
    assert found.locals == {"other": "other"}
    host = request.limits.host
    assert host.shm_size == 32 << 20 and host.extra_hosts == ["h:1.2.3.4", "gw:172.17.0.1"]
    assert [(u.name, u.soft, u.hard) for u in host.ulimits or ()] == [("nofile", 1, 2), ("nproc", 3, 3)]
    assert request.attestations == {"provenance": "mode=min,inline-only=true"}
    assert request.network == "none" and request.entitlements == {"network.host"}


def test_a_newer_release() -> None:
    found = asked(NEW)
    assert found.sessions == {"context": "other", "dockerfile": "other"}
    assert found.keys == {"localdir:context": "key"}
    assert not found.request.no_cache and found.request.no_cache_filter == {"one", "two"}
    assert found.request.cache_from == [{"type": "registry", "ref": "docker.io/library/x:cache"}]
    assert found.request.contexts["x"].value.startswith("oci-layout://store")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (STDIN, ("dockerfile", "abc", "")),
        ({"context": "http://buildkit-session/abc"}, ("", "abc", "")),
        ({"context": "https://example.com/x.git#ref"}, ("", "", "https://example.com/x.git#ref")),
        (
            {"context": "https://example.com/x.tar", "dockerfilekey": "d"},
            ("d", "", "https://example.com/x.tar"),
        ),
    ],
)
def test_where_dockerfile_and_context_are(attributes: dict[str, str], expected: tuple[str, str, str]) -> None:
    found: AskedBuild = asked(attributes)
    assert (found.definition, found.upload, found.request.remote) == expected


def test_results_of_other_builds() -> None:
    attributes = {"context:base": "input:0-base", "input-metadata:0-base": "{}"}
    found = asked(attributes, inputs={"0-base": "ref"})
    assert found.held == {found.request.contexts["base"].value: "ref"}
    with pytest.raises(InvalidArgument, match="no input 0-base"):
        asked(attributes, inputs={})
    assert asked(attributes).request.contexts["base"].kind == "image", "they may come later"


@pytest.mark.parametrize(
    ("attributes", "kind", "text"),
    [
        ({"bogus": "x"}, InvalidArgument, "'bogus'"),
        ({"frontend.caps": "moby.buildkit.frontend.other"}, InvalidArgument, "frontend.other"),
        ({"source": "example.com/x"}, NotImplemented_, "gateway.v0"),
        ({"shm-size": "many"}, InvalidArgument, "shm-size"),
        ({"ulimit": "nofile"}, InvalidArgument, "ulimit"),
        ({"force-network-mode": "bridge"}, InvalidArgument, "force-network-mode"),
        ({"image-resolve-mode": "x"}, InvalidArgument, "image-resolve-mode"),
        ({"context:x": "ftp://x"}, InvalidArgument, "unknown kind"),
        ({"attest:other": ""}, InvalidArgument, "other"),
        ({"cache-imports": "{"}, InvalidArgument, "cache-imports"),
        ({"cache-imports": '[{"Type":"gha"}]'}, NotImplemented_, "gha"),
        ({"platform": "linux/a/b/c/d"}, InvalidArgument, "platform"),
    ],
)
def test_what_is_refused_is_named(attributes: dict[str, str], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        asked(attributes)


def test_exporters() -> None:
    assert list(exporters([])) == []
    attributes = {
        "name": "x,y",
        "push": "true",
        "annotation.a": "1",
        "annotation-index.b": "2",
        "annotation-manifest-descriptor[linux/arm64].c.d": "3",
    }
    (output,) = exporters([("moby", attributes)])
    assert output.kind == "image" and output.names == ("x", "y") and output.push
    assert list(output.annotations) == [
        Annotation("manifest", "a", "1"),
        Annotation("index", "b", "2"),
        Annotation("manifest-descriptor", "c.d", "3", "linux/arm64"),
    ]
    with pytest.raises(InvalidArgument, match="annotation-other"):
        exporters([("moby", {"annotation-other.x": "1"})])
    with pytest.raises(InvalidArgument, match="bogus"):
        exporters([("moby", {"bogus": "1"})])


def test_what_a_solve_wants_of_the_result() -> None:
    """An older client says the first exporter in the deprecated fields alone."""
    solve = control_pb2.SolveRequest(ExporterDeprecated="local")
    solve.Cache.Exports.add(Type="inline")
    request = with_exports(asked({"build-arg:BUILDKIT_INLINE_CACHE": "1"}).request, solve)
    assert [one.kind for one in request.outputs] == ["local"]
    assert list(request.cache_to) == [{"type": "inline"}]
