"""Copies between two hubs: all of it at first, changes soon after, whatever is cut off in between."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hublab import ADMIN, INDEX, MANIFEST, LabHub, hub, sha
from patience import until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("hub-replication")]
PASSWORD = ("--username", ADMIN[0], "--password-stdin")


@pytest.fixture(scope="module")
def ours() -> Iterator[LabHub]:
    with hub("--replicate-every", "1s") as made:
        yield made


@pytest.fixture(scope="module")
def other() -> Iterator[LabHub]:
    with hub() as made:
        yield made


def add(lab: LabHub, direction: str, pattern: str, to: LabHub, *more: str) -> str:
    said = lab.command(
        "replication", "add", direction, pattern, f"http://{to.host}", *PASSWORD, *more, stdin=ADMIN[1]
    )
    return said.split()[1]


def digest(lab: LabHub, repository: str, reference: str) -> str:
    """What a reference is there, with all of its blobs; empty: it is not."""
    got = lab.ask("GET", f"/v2/{repository}/manifests/{reference}")
    if got.status == 404:
        return ""
    for part in got.expect(200).json.get("layers", []):
        assert (
            sha(lab.ask("GET", f"/v2/{repository}/blobs/{part['digest']}").expect(200).body) == part["digest"]
        )
    return sha(got.body)


def said_of(lab: LabHub, repository: str, subject: str) -> list[str]:
    listed = lab.ask("GET", f"/v2/{repository}/referrers/{subject}").expect(200).json
    return [one["digest"] for one in listed["manifests"]]


def sign(lab: LabHub, repository: str, subject: str) -> str:
    """Something that refers to an image, without a tag."""
    size = int(lab.ask("HEAD", f"/v2/{repository}/manifests/{subject}").headers["Content-Length"])
    document = lab.document(repository, b"said of " + subject.encode())
    document["subject"] = {"mediaType": MANIFEST, "digest": subject, "size": size}
    return lab.manifest(repository, document)


def test_what_is_pushed_here_is_soon_there(ours: LabHub, other: LabHub, name: str) -> None:
    first = ours.image(f"{name}/app", "v1")
    skipped = ours.image(f"{name}/app", "nightly")
    rule = add(ours, "push", f"{name}/*", other, "--tags", "v*", "--prefix", "copy", "--deletes")
    there = f"copy/{name}/app"
    until(lambda: digest(other, there, "v1") == first, "the first copy")
    second = ours.image(f"{name}/app", "v2")
    until(lambda: digest(other, there, "v2") == second, "a change is copied")
    signature = sign(ours, f"{name}/app", second)
    until(lambda: said_of(other, there, second) == [signature], "what is said of it is copied")
    ours.ask("DELETE", f"/v2/{name}/app/manifests/v1").expect(202)
    until(lambda: not digest(other, there, "v1"), "a tag that went goes there")
    assert not digest(other, there, "nightly") and not digest(other, there, skipped)
    assert "1 tags, 0 new manifests, 0 new blobs" in ours.command("replication", "run", rule)
    ours.command("replication", "rm", rule)
    assert digest(other, there, "v2") == second


def test_what_is_there_is_kept_here(ours: LabHub, other: LabHub, name: str) -> None:
    member = other.image(f"{name}/app")
    index = {
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{"mediaType": MANIFEST, "digest": member, "size": 3}],
    }  # fmt: skip
    index["manifests"][0]["size"] = len(  # type: ignore[index]
        other.ask("GET", f"/v2/{name}/app/manifests/{member}").body
    )
    both = other.manifest(f"{name}/app", index, "all")
    rule = add(ours, "pull", f"{name}/app", other, "--every", "10s")
    until(lambda: digest(ours, f"{name}/app", "all") == both, "the first copy")
    assert digest(ours, f"{name}/app", member) == member
    moved = other.image(f"{name}/app", "all")
    until(lambda: digest(ours, f"{name}/app", "all") == moved, "a moved tag is followed", seconds=60)
    listed = ours.command("replication", "ls")
    assert f"{name}/app" in listed and ADMIN[1] not in listed
    ours.command("replication", "rm", rule)


def test_a_hub_that_is_away_gets_it_later(ours: LabHub, name: str) -> None:
    with hub() as late:
        rule = add(ours, "push", f"{name}/*", late)
        late.stop()
        image = ours.image(f"{name}/app", "v1")
        until(lambda: "does not answer" in ours.command("replication", "ls"), "it is seen to be away")
        late.start()
        ours.command("replication", "run", rule)
        assert digest(late, f"{name}/app", "v1") == image
        ours.command("replication", "rm", rule)


def test_both_are_killed_in_the_middle(name: str) -> None:
    """Whatever was under way is finished by the next run."""
    with hub("--replicate-every", "1s") as one, hub() as two:
        images = {f"v{n}": one.image(f"{name}/app", f"v{n}") for n in range(40)}
        add(one, "push", "*", two, "--every", "10s")
        until(lambda: digest(two, f"{name}/app", "v0"), "it has begun")
        one.kill()
        two.kill()
        two.start()
        one.start()
        until(
            lambda: all(digest(two, f"{name}/app", tag) == want for tag, want in images.items()),
            "all of it is there", seconds=240,
        )  # fmt: skip


def test_wrong_rules_are_refused(ours: LabHub, other: LabHub) -> None:
    for words, why in (
        (("add", "push", "*", "ftp://there"), "invalid address"),
        (("add", "pull", "*", f"http://{other.host}", "--deletes"), "--deletes can only be used with push"),
        (("add", "push", "*", f"http://{other.host}", "--every", "1s"), "--every must be at least 10s"),
        (("add", "push", "*", f"http://{other.host}", "--username", "me"), "must be used together"),
        (("add", "push", "*", f"http://{other.host}", "--prefix", "No"), "invalid repository name"),
        (("rm", "999"), "no such replication"),
    ):
        assert why in ours.command("replication", *words, status=1), words
    assert json.loads(ours.ask("GET", "/v2/").body) == {}
