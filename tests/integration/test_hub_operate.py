"""What an operator does to a hub, and what happens to it: deletions and their undoing, checks, backups,
kills, lost objects, full disks, a database that goes away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import hubstores
import pytest
from hublab import ADMIN, PROGRAM, LabHub, basic, hub, sha
from patience import patiently, until


@pytest.fixture
def lab() -> Iterator[LabHub]:
    with hub("--collect-every", "1s") as made:
        yield made


def objects(lab: LabHub) -> list[Path]:
    return [path for path in (Path(lab.stores[1]) / "objects").rglob("*") if path.is_file()]


def test_a_tag_goes_back_to_what_it_was(lab: LabHub, name: str) -> None:
    repository = f"undo/{name}"
    first, second = lab.image(repository, "v1"), lab.image(repository, "v1")
    lab.ask("DELETE", f"/v2/{repository}/manifests/{second}").expect(202)
    noted = [line.split()[5] for line in lab.command("events", "--repository", repository).splitlines()[1:]]
    assert noted == ["manifest.delete", "manifest.push", "manifest.push"]
    history = lab.command("tag", "history", f"{repository}:v1").splitlines()[1:]
    assert [line.split()[2:4][0] for line in history] == ["delete", "push", "push"]
    lab.command("tag", "revert", f"{repository}:v1", first)
    assert lab.ask("GET", f"/v2/{repository}/manifests/v1").headers["Docker-Content-Digest"] == first
    lab.command("tag", "revert", f"{repository}:v1", second)
    assert lab.ask("GET", f"/v2/{repository}/manifests/v1").headers["Docker-Content-Digest"] == second


def test_a_deleted_repository_comes_back(lab: LabHub, name: str) -> None:
    repository = f"undo/{name}"
    image = lab.image(repository, "v1", b"first")
    lab.command("repository", "rm", repository)
    lab.ask("GET", f"/v2/{repository}/manifests/v1").expect(404)
    lab.ask("GET", f"/v2/{repository}/blobs/{sha(b'layer of first')}").expect(404)
    lab.command("undelete", repository)
    assert lab.ask("GET", f"/v2/{repository}/manifests/v1").headers["Docker-Content-Digest"] == image
    lab.ask("GET", f"/v2/{repository}/blobs/{sha(b'layer of first')}").expect(200)
    lab.command("repository", "rm", repository)
    lab.image(repository, "v1")
    assert "another repository" in lab.command("undelete", repository, status=1)


def test_what_nothing_holds_goes_and_the_rest_stays(name: str) -> None:
    times = ("--grace", "0", "--keep-deleted", "0", "--keep-untagged", "0", "--trash", "0")
    with hub("--collect-every", "1s", *times) as lab:
        lab.add_account("eve", "a long password")
        repository = f"gc/{name}"
        # Without a grace the collector takes what a push has not named yet, so it is tried till it is
        # quicker.
        until(lambda: _pushed(lab, repository, "kept", b"kept"), "an image is pushed")
        until(lambda: _pushed(lab, repository, "gone", b"gone"), "another is pushed")
        lab.ask("DELETE", f"/v2/{repository}/manifests/gone").expect(202)
        until(lambda: len(objects(lab)) == 2, "the layer and configuration of one image are left")
        for data in (b"layer of kept",):
            assert lab.ask("GET", f"/v2/{repository}/blobs/{sha(data)}").expect(200).body == data
        lab.ask("GET", f"/v2/{repository}/blobs/{sha(b'layer of gone')}").expect(404)
        assert lab.command("fsck", "--digests").strip() == ""


def _pushed(lab: LabHub, repository: str, tag: str, seed: bytes) -> bool:
    try:
        lab.image(repository, tag, seed)
    except AssertionError:
        return False
    return True


def test_an_object_that_got_lost_comes_back_by_a_push(lab: LabHub, name: str) -> None:
    repository = f"lost/{name}"
    data = os.urandom(5000)
    digest = lab.blob(repository, data)
    (only,) = objects(lab)
    only.unlink()
    lab.ask("HEAD", f"/v2/{repository}/blobs/{digest}").expect(404)
    lab.blob(repository, data)
    assert lab.ask("GET", f"/v2/{repository}/blobs/{digest}").expect(200).body == data


def test_fsck_finds_what_is_wrong(lab: LabHub, name: str) -> None:
    repository = f"fsck/{name}"
    missing, damaged, cut = (lab.blob(repository, os.urandom(4000 + i)) for i in range(3))
    for path in objects(lab):
        data = path.read_bytes()
        if sha(data) == missing:
            path.unlink()
        elif sha(data) == damaged:
            path.write_bytes(bytes(len(data)))
        elif sha(data) == cut:
            path.write_bytes(data[:-1])
    stray = Path(lab.stores[1]) / "objects" / "ab" / ("ab" * 16)
    stray.write_bytes(b"stray")
    os.utime(stray, (1, 1))
    command = [*PROGRAM, "fsck", *lab.stores, "--digests"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patiently(60), check=False)
    assert done.returncode == 1, done.stderr
    found = {tuple(line.split(": ")[:2]) for line in done.stdout.splitlines()}
    assert found == {
        ("missing", missing), ("damaged", damaged), ("damaged", cut), ("unknown", stray.name),
    }  # fmt: skip
    lab.command("fsck", "--digests", "--repair")
    assert not stray.exists()
    for digest in (missing, damaged, cut):
        lab.ask("HEAD", f"/v2/{repository}/blobs/{digest}").expect(404)


def test_a_backup_is_a_hub(lab: LabHub, name: str, tmp_path: Path) -> None:
    repository = f"backup/{name}"
    image = lab.image(repository, "v1", b"saved")
    lab.begin(repository)
    target, root = tmp_path / "copy", tmp_path / "again"
    assert "2 objects" in lab.command("backup", str(target))
    lab.image(repository, "v2")
    assert "4 objects" in (said := lab.command("backup", str(target))) and "2 objects were new" in said
    restored = LabHub(lab.base, ["--root", str(root)])
    restored.command("restore", str(target))
    restored.start()
    try:
        got = restored.ask("GET", f"/v2/{repository}/manifests/v1").expect(200)
        assert got.headers["Docker-Content-Digest"] == image
        restored.ask("GET", f"/v2/{repository}/blobs/{sha(b'layer of saved')}").expect(200)
        assert restored.command("fsck", "--digests").strip() == ""
    finally:
        restored.stop()
    assert "already" in restored.command("restore", str(target), status=1)
    # A backup over a hub would take its rows and its open uploads away.
    for place in (root, Path(lab.stores[1])):
        assert "root of a hub" in lab.command("backup", str(place), status=1)
    lab.ask("GET", f"/v2/{repository}/manifests/v2").expect(200)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("webhook", "deliveries", "999"), "no such webhook: 999"),
        (("replication", "run", "999"), "no such replication: 999"),
        (("events", "--count", "0"), "at least 1"),
        (("fsck", "--rate", "1Q"), "invalid number of bytes '1Q'"),
        (("repository", "quota", "root0", "²"), "a number of bytes, or none"),
    ],
)
def test_wrong_input_is_refused(lab: LabHub, words: tuple[str, ...], said: str) -> None:
    assert said in lab.command(*words, status=1)


def test_an_unknown_role(lab: LabHub) -> None:
    assert "invalid role" in lab.command("serve", "--role", "webs", status=1)


def test_rules_for_tags(lab: LabHub, name: str) -> None:
    repository = f"rules/{name}"
    for tag in ("v1", "v2", "v3", "nightly-1", "nightly-2", "latest"):
        lab.image(repository, tag)
    lab.command("rule", "immutable", "rules/*", "--tags", "v*")
    lab.command("rule", "retain", repository, "--tags", "*", "--keep-last", "0")
    moved = lab.document(repository, b"moved")
    lab.manifest(repository, moved, "latest")
    body = json.dumps(moved).encode()
    refused = lab.ask("PUT", f"/v2/{repository}/manifests/v1", body).expect(403)
    assert refused.codes == ["DENIED"] and "immutable" in refused.json["errors"][0]["message"]
    lab.ask("DELETE", f"/v2/{repository}/manifests/v1").expect(403)
    same = lab.ask("GET", f"/v2/{repository}/manifests/v1").body
    lab.ask("PUT", f"/v2/{repository}/manifests/v1", same).expect(201)
    listed = [line.split()[1] for line in lab.command("rule", "try").splitlines()[1:]]
    assert listed == ["latest", "nightly-1", "nightly-2"]
    assert len(lab.ask("GET", f"/v2/{repository}/tags/list").json["tags"]) == 6
    lab.command("rule", "retain", repository, "--tags", "nightly-*", "--keep-last", "1")
    lab.command("rule", "apply")
    left = lab.ask("GET", f"/v2/{repository}/tags/list").json["tags"]
    assert left == ["nightly-2", "v1", "v2", "v3"]
    number = lab.command("rule", "ls").splitlines()[1].split()[0]
    lab.command("rule", "rm", number)
    lab.ask("DELETE", f"/v2/{repository}/manifests/v1").expect(202)


def test_pulls_are_limited(name: str) -> None:
    with hub("--pull-limit", "3/h", "--pull-limit-account", "5/h", "--public", "true") as lab:
        repository = f"limits/{name}"
        lab.image(repository, "v1")
        path = f"/v2/{repository}/manifests/v1"
        for user, count in ((None, 3), (ADMIN, 5)):
            for i in range(count):
                got = lab.ask("GET", path, user=user).expect(200)
                assert got.headers["RateLimit-Limit"] == f"{count};w=3600"
                assert got.headers["RateLimit-Remaining"] == f"{count - 1 - i};w=3600"
            assert lab.ask("HEAD", path, user=user).expect(200).headers["RateLimit-Remaining"].startswith("0")
            over = lab.ask("GET", path, user=user).expect(429)
            assert over.codes == ["TOOMANYREQUESTS"] and int(over.headers["Retry-After"]) > 60


def _half(lab: LabHub, place: str, data: bytes, whole: int) -> threading.Thread:
    """A PATCH that sends ``data`` and then stands still, on a thread that ends with the hub."""
    import http.client

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=patiently(60))
        try:
            connection.putrequest("PATCH", place)
            connection.putheader("Authorization", basic(*ADMIN))
            connection.putheader("Content-Length", str(whole))
            connection.endheaders(data)
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_an_upload_goes_on_after_a_kill(lab: LabHub, name: str) -> None:
    """What was recorded is there; what came after it is sent again."""
    repository, data = f"kill/{name}", os.urandom(3_000_000)
    place = lab.begin(repository)
    lab.ask("PATCH", place, data[:1_000_000]).expect(202)
    sending = _half(lab, place, data[1_000_000:2_500_000], 2_000_000)
    until(lambda: sum(path.stat().st_size for path in objects(lab)) > 1_000_000, "more has come")
    lab.kill()
    sending.join()
    lab.start()
    assert lab.ask("GET", place).expect(204).headers["Range"] == "0-999999"
    lab.ask("PATCH", place, data[1_000_000:], {"Content-Range": "1000000-2999999"}).expect(202)
    lab.ask("PUT", f"{place}?digest={sha(data)}", b"").expect(201)
    assert lab.ask("GET", f"/v2/{repository}/blobs/{sha(data)}").body == data


def test_an_upload_goes_on_after_its_client_went(lab: LabHub, name: str) -> None:
    import socket

    repository, data = f"gone/{name}", os.urandom(2_000_000)
    place = lab.begin(repository)
    with socket.create_connection(("127.0.0.1", lab.port)) as connection:
        head = (
            f"PATCH {place} HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(*ADMIN)}\r\nContent-Length: 2000000"
        )
        connection.sendall(f"{head}\r\n\r\n".encode() + data[:1_500_000])
        until(lambda: any(path.stat().st_size for path in objects(lab)), "some has come")
    until(lambda: lab.ask("GET", place).headers["Range"] != "0-0", "it is recorded")
    got = int(lab.ask("GET", place).headers["Range"].partition("-")[2]) + 1
    lab.ask("PATCH", place, data[got:], {"Content-Range": f"{got}-1999999"}).expect(202)
    lab.ask("PUT", f"{place}?digest={sha(data)}", b"").expect(201)


def test_a_full_disk(name: str, tmp_path: Path) -> None:
    """Uploads are refused while there is time; what is there can be read, and deleted."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(small)], check=True)
    try:
        lab = LabHub(tmp_path, ["--root", str(small)])
        lab.add_account(*ADMIN, "--admin")
        lab.start()
        try:
            repository, data = f"full/{name}", os.urandom(1000)
            digest = lab.blob(repository, data)
            (small / "filler").write_bytes(bytes(200 << 20))
            refused = lab.ask("POST", f"/v2/{repository}/blobs/uploads/", b"").expect(507)
            assert refused.headers["Retry-After"]
            assert lab.ask("GET", "/readyz", user=None).status == 503
            assert lab.ask("GET", f"/v2/{repository}/blobs/{digest}").expect(200).body == data
            lab.ask("DELETE", f"/v2/{repository}/blobs/{digest}").expect(202)
            (small / "filler").unlink()
            lab.blob(repository, data)
        finally:
            lab.stop()
    finally:
        subprocess.run(["umount", str(small)], check=True)


needs_postgres = pytest.mark.skipif(not hubstores.HAVE_POSTGRES, reason="no PostgreSQL here, or not root")


@pytest.mark.slow
@needs_postgres
@pytest.mark.patient(200)
def test_another_replica_goes_on(name: str) -> None:
    """On PostgreSQL and S3: chunks by one replica, more by another, the end by a third process."""
    with hubstores.postgres() as database, hubstores.s3() as store:
        urls = database.database(), store.bucket()
        with hubstores.replicas(2, *urls, store.env) as (one, two):
            repository, data = f"replica/{name}", os.urandom(17_000_000)
            place = one.begin(repository)
            one.ask("PATCH", place, data[:9_000_000]).expect(202)
            assert two.ask("GET", place).expect(204).headers["Range"] == "0-8999999"
            sending = _half(one, place, data[9_000_000:13_000_000], 8_000_000)
            one.kill()
            sending.join()
            two.ask("PATCH", place, data[9_000_000:16_000_000], {"Content-Range": "9000000-15999999"}).expect(
                202
            )
            two.ask("PUT", f"{place}?digest={sha(data)}", data[16_000_000:]).expect(201)
            one.start()
            assert one.ask("GET", f"/v2/{repository}/blobs/{sha(data)}").expect(200).body == data
            part = one.ask("GET", f"/v2/{repository}/blobs/{sha(data)}", headers={"Range": "bytes=9000000-"})
            assert part.expect(206).body == data[9_000_000:]
            token = {"Authorization": one.token(f"repository:{repository}:pull")}
            two.ask("GET", f"/v2/{repository}/tags/list", user=None, headers=token).expect(200)


@pytest.mark.slow
@needs_postgres
@pytest.mark.patient(200)
def test_the_database_goes_away_and_comes_back(name: str) -> None:
    with hubstores.postgres() as database, hubstores.replicas(1, database.database(), "", {}) as (lab,):
        repository = f"away/{name}"
        image = lab.image(repository, "v1")
        database.stop(signal.SIGQUIT)
        refused = lab.ask("GET", f"/v2/{repository}/manifests/v1")
        assert refused.status == 503 and refused.headers["Retry-After"]
        assert lab.ask("GET", "/readyz", user=None).status == 503
        assert lab.ask("GET", "/healthz", user=None).status == 200
        database.start()
        until(lambda: lab.ask("GET", "/readyz", user=None).status == 200, "it is ready again")
        got = lab.ask("GET", f"/v2/{repository}/manifests/v1").expect(200)
        assert got.headers["Docker-Content-Digest"] == image
        lab.image(repository, "v2")


def test_a_front_proxy_sends_objects(name: str) -> None:
    with hub("--accel-prefix", "/objects") as lab:
        digest = lab.blob(f"front/{name}", b"by nginx")
        answer = lab.ask("GET", f"/v2/front/{name}/blobs/{digest}").expect(200)
        place = answer.headers["X-Accel-Redirect"].removeprefix("/objects/")
        assert (Path(lab.stores[1]) / "objects" / place).read_bytes() == b"by nginx"
        assert answer.body == b"" and answer.headers["Docker-Content-Digest"] == digest


def test_roles_apart(name: str) -> None:
    """One process answers and another collects, on the same database."""
    times = ["--grace", "0", "--trash", "0", "--keep-deleted", "0"]
    with hub("--role", "registry", *times) as lab:
        lab.blob(f"roles/{name}", b"nobody names it")
        worker = subprocess.Popen(
            [*PROGRAM, "serve", *lab.stores, "--role", "worker", "--collect-every", "1s", *times],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until(lambda: not objects(lab), "it is collected", seconds=60)
        finally:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(patiently(60)) == 0


@pytest.mark.slow
@pytest.mark.patient(200)
def test_clients_are_sent_to_the_object_store(name: str, tmp_path: Path) -> None:
    import urllib.request

    with hubstores.s3() as store:
        stores = ["--root", str(tmp_path / "root"), "--objects", store.bucket()]
        lab = LabHub(tmp_path, stores, ["--redirect", "10m"], store.env)
        lab.add_account(*ADMIN, "--admin")
        lab.start()
        try:
            large, small = os.urandom(2 << 20), os.urandom(1000)
            digest = lab.blob(f"far/{name}", large)
            answer = lab.ask("GET", f"/v2/far/{name}/blobs/{digest}").expect(307)
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(answer.headers["Location"], timeout=patiently(20)) as got:
                assert got.read() == large
            lab.ask("GET", f"/v2/far/{name}/blobs/{lab.blob(f'far/{name}', small)}").expect(200)
            assert "Signature" not in lab.log
        finally:
            lab.stop()


@pytest.mark.slow
@pytest.mark.patient(200)
def test_the_object_store_goes_away(name: str, tmp_path: Path) -> None:
    """It is said so, and nothing is taken for lost."""
    import sqlite3
    from contextlib import closing

    with hubstores.s3() as store:
        root = tmp_path / "root"
        lab = LabHub(tmp_path, ["--root", str(root), "--objects", store.bucket()], [], store.env)
        lab.add_account(*ADMIN, "--admin")
        lab.start()
        try:
            digest = lab.blob(f"away/{name}", os.urandom(1000))
            store.stop()
            refused = lab.ask("GET", f"/v2/away/{name}/blobs/{digest}").expect(503)
            assert refused.codes == ["UNAVAILABLE"] and refused.headers["Retry-After"]
            place = lab.begin(f"away/{name}")
            lab.ask("PUT", f"{place}?digest={sha(b'x')}", b"x").expect(503)
        finally:
            lab.stop()
        with closing(sqlite3.connect(root / "hub.db")) as db:
            assert db.execute("SELECT count(*) FROM blob WHERE lost").fetchone() == (0,)


def test_without_its_packages_it_says_so() -> None:
    code = "import sys; sys.modules['argon2'] = None; from wherry.hub.cli.main import entry; entry()"
    words = ("account", "add", "x", "--password-stdin")
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        input="a long password",
        capture_output=True,
        text=True,
        timeout=patiently(60),
        check=False,
    )
    assert done.returncode == 1 and "pip install 'wherry[hub]'" in done.stderr


@pytest.mark.slow
def test_wrong_configurations_say_what_is_wrong(tmp_path: Path) -> None:
    def serve(*words: str, config: str = "") -> str:
        (tmp_path / "hub.toml").write_text(config)
        done = subprocess.run(
            [*PROGRAM, "serve", "--root", str(tmp_path), *words], capture_output=True, text=True,
            timeout=patiently(60), check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "plain HTTP" in serve("--listen", "0.0.0.0:0")
    assert "invalid address" in serve("--listen", "here")
    assert "unknown setting" in serve(config='colour = "red"')
    assert "cannot read" in serve(config="x =")
    assert "go together" in serve("--tls-cert", "x")
    assert "cannot use" in serve("--tls-cert", "/nope", "--tls-key", "/nope")
    assert "invalid duration" in serve("--grace", "soon")
    assert "invalid role" in serve("--role", "cook")
    assert "postgresql://" in serve("--database", "mysql://x")
    assert "cannot reach the database" in serve("--database", "postgresql://u@127.0.0.1:1/x")
    assert "use a newer wherry-hub" in _newer(tmp_path, serve)


def _newer(root: Path, serve: object) -> str:
    import sqlite3
    from contextlib import closing

    shutil.rmtree(root / "objects", ignore_errors=True)
    for path in root.glob("hub.db*"):
        path.unlink()
    with closing(sqlite3.connect(root / "hub.db")) as made:
        made.execute("CREATE TABLE migration (number BIGINT PRIMARY KEY, applied BIGINT NOT NULL)")
        made.execute("INSERT INTO migration VALUES (9999, 0)")
        made.commit()
    assert callable(serve)
    said = serve()
    assert isinstance(said, str)
    return said
