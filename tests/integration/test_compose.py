"""``wherry compose`` against a daemon: what people do with a project, and what goes wrong meanwhile."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon
from patience import patiently, until
from projectlab import WHERRY, ProjectLab

pytestmark = pytest.mark.kernel


@pytest.fixture
def lab(daemon: LabDaemon, tmp_path: Path, name: str) -> Iterator[ProjectLab]:
    made = ProjectLab(daemon, tmp_path, name)
    yield made
    made.end()


SLEEP = "image: busybox, init: true, command: [sleep, '1000']"
TWO = f"services:\n  db: {{{SLEEP}}}\n  web: {{{SLEEP}, depends_on: [db]}}\n"


def test_up_again_changes_nothing(lab: ProjectLab) -> None:
    lab.file(TWO)
    lab.run("up", "-d")
    before = {name: one["ID"] for name, one in lab.containers().items()}
    lab.run("up", "-d")
    assert "Container" in lab.errors and "Running" in lab.errors and "Recreate" not in lab.errors
    assert {name: one["ID"] for name, one in lab.containers().items()} == before


def test_what_changed_is_made_anew_and_nothing_else(lab: ProjectLab) -> None:
    lab.file(TWO)
    lab.run("up", "-d")
    before = lab.containers()
    lab.file(TWO.replace("depends_on: [db]", "depends_on: [db], hostname: h"))
    lab.run("up", "-d")
    after = lab.containers()
    assert after["db-1"]["ID"] == before["db-1"]["ID"]
    assert after["web-1"]["ID"] != before["web-1"]["ID"]
    assert set(after) == {"db-1", "web-1"}


def test_anonymous_volumes_outlive_a_change(lab: ProjectLab) -> None:
    text = f"services:\n  a: {{{SLEEP}, volumes: [/keep]%s}}\n"
    lab.file(text % "")
    lab.run("up", "-d")
    lab.run("exec", "a", "sh", "-c", "echo kept > /keep/x")
    lab.file(text % ", hostname: h")
    lab.run("up", "-d")
    assert lab.run("exec", "a", "cat", "/keep/x") == "kept\n"
    lab.run("up", "-d", "--force-recreate", "-V")
    lab.run("exec", "a", "cat", "/keep/x", code=1)


def test_scale_up_and_down(lab: ProjectLab) -> None:
    lab.file(TWO)
    lab.run("up", "-d", "--scale", "web=3")
    assert set(lab.containers()) == {"db-1", "web-1", "web-2", "web-3"}
    lab.run("scale", "web=1")
    assert set(lab.containers()) == {"db-1", "web-1"}


def test_orphans_are_told_and_taken_where_asked(lab: ProjectLab) -> None:
    lab.file(TWO)
    lab.run("up", "-d")
    lab.file(f"services:\n  db: {{{SLEEP}}}\n")
    lab.run("up", "-d")
    assert f"Found orphan containers ([{lab.name}-web-1])" in lab.errors
    lab.run("up", "-d", "--remove-orphans")
    assert set(lab.containers()) == {"db-1"}


CHAIN = """
services:
  db:
    image: busybox
    init: true
    command: sh -c "touch /tmp/ok; exec sleep 1000"
    healthcheck: {test: test -f /tmp/ok, interval: 100ms, timeout: 5s, retries: 50}
  migrate:
    image: busybox
    command: sh -c "echo migrated; exit ${CODE:-0}"
    depends_on: {db: {condition: service_healthy}}
  web:
    image: busybox
    init: true
    command: [sleep, "1000"]
    depends_on: {migrate: {condition: service_completed_successfully}}
"""


def test_conditions_are_waited_for(lab: ProjectLab) -> None:
    lab.file(CHAIN)
    lab.run("up", "-d", "--wait")
    said = lab.errors
    assert said.index("db-1  Healthy") < said.index("migrate-1  Started") < said.index("web-1  Started")
    assert {name: one["State"] for name, one in lab.containers().items()} == {
        "db-1": "running",
        "migrate-1": "exited",
        "web-1": "running",
    }


def test_what_needs_a_failure_does_not_start(lab: ProjectLab) -> None:
    lab.file(CHAIN)
    (lab.where / ".env").write_text("CODE=3\n")
    lab.run("up", "-d", code=1)
    assert 'service "migrate" didn\'t complete successfully: exit 3' in lab.errors
    assert lab.containers()["web-1"]["State"] == "created"


def test_an_error_names_its_service_and_the_others_go_on(lab: ProjectLab) -> None:
    lab.file(f"services:\n  good: {{{SLEEP}}}\n  bad: {{image: busybox, command: [/not/there]}}\n")
    lab.run("up", "-d", code=1)
    assert "service bad:" in lab.errors
    assert lab.containers()["good-1"]["State"] == "running"


def test_attached_output_and_the_exit_code_of_a_service(lab: ProjectLab) -> None:
    lab.file(
        f"services:\n  side: {{{SLEEP}, stop_grace_period: 1s}}\n"
        "  job: {image: busybox, command: sh -c 'echo first; echo second >&2; exit 5', depends_on: [side]}\n"
    )
    out = lab.run("up", "--exit-code-from", "job", code=5)
    assert "job-1   | first\n" in out and "job-1 exited with code 5" in out
    assert lab.containers()["side-1"]["State"] == "exited"


@pytest.mark.patient(120)
def test_an_interrupt_stops_everything(lab: ProjectLab) -> None:
    lab.file(f"services:\n  a: {{{SLEEP}}}\n")
    process = lab.popen("up")
    try:
        until(lambda: lab.containers().get("a-1", {}).get("State") == "running", "a-1 runs")
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=patiently(30))
    finally:
        process.kill()
        process.communicate()
    assert "Gracefully Stopping" in err
    assert process.returncode == 130
    assert lab.containers()["a-1"]["State"] == "exited"


@pytest.mark.patient(180)
def test_an_up_that_was_killed_is_finished_by_the_next(lab: ProjectLab) -> None:
    services = "".join(f"  s{n}: {{{SLEEP}, depends_on: [s{n - 1}]}}\n" for n in range(1, 8))
    text = f"services:\n  s0: {{{SLEEP}}}\n{services}"
    lab.file(text)
    lab.run("up", "-d")
    lab.file(text.replace("init: true", "init: true, hostname: h"))
    for wanted in (1, 3, 6):
        process = lab.popen("up", "-d")
        seen = 0
        assert process.stderr is not None
        for line in process.stderr:
            seen += "Recreate" in line
            if seen > wanted:
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()
    lab.run("up", "-d")
    found = lab.containers()
    assert set(found) == {f"s{n}-1" for n in range(8)}, "nothing of the killed runs stays under another name"
    assert {one["State"] for one in found.values()} == {"running"}


def test_secrets_and_configs_with_owner_and_mode(lab: ProjectLab) -> None:
    (lab.where / "file.txt").write_text("from a file")
    lab.file(
        "services:\n  a:\n    image: busybox\n    init: true\n    command: [sleep, '1000']\n"
        "    secrets: [plain, {source: env, target: own, uid: '12', gid: '34', mode: 0440}]\n"
        "    configs: [{source: text, target: /etc/text}, "
        "{source: filed, target: /f, uid: '5', mode: 0400}]\n"
        "secrets: {plain: {file: ./file.txt}, env: {environment: TOKEN}}\n"
        "configs: {text: {content: 'hi ${TOKEN}'}, filed: {file: ./file.txt}}\n"
    )
    (lab.where / ".env").write_text("TOKEN=t0k\n")
    lab.run("up", "-d")
    script = "cd /run/secrets; cat plain own /etc/text /f; stat -c ' %u %g %a' own /f"
    assert lab.run("exec", "a", "sh", "-c", script) == "from a filet0khi t0kfrom a file 12 34 440\n 5 0 400\n"


def test_a_secret_is_put_beside_a_bind_whose_directory_is_not_there_yet(lab: ProjectLab) -> None:
    lab.file(
        f"services:\n  a: {{{SLEEP}, volumes: ['./made:/made'], secrets: [s]}}\n"
        "secrets: {s: {environment: HOME}}\n"
    )
    lab.run("up", "-d")
    assert (lab.where / "made").is_dir()
    assert lab.run("exec", "a", "cat", "/run/secrets/s") == str(lab.daemon.home)


def test_run_has_its_own_container(lab: ProjectLab) -> None:
    lab.file(TWO.replace("depends_on: [db]", "depends_on: [db], environment: {A: 1}, ports: ['0:80']"))
    assert lab.run("run", "--rm", "-e", "B=2", "web", "sh", "-c", "echo $A$B") == "12\n"
    lab.run("run", "--rm", "web", "sh", "-c", "exit 9", code=9)
    assert set(lab.containers()) == {"db-1"}, "what it needs runs, itself is gone"
    shown = lab.run("run", "-d", "--name", f"{lab.name}-once", "web", "sleep", "1000")
    assert shown == f"{lab.name}-once\n"
    assert lab.containers()["once"]["Service"] == "web"


def test_hooks(lab: ProjectLab) -> None:
    lab.file(
        f"services:\n  a: {{{SLEEP}, volumes: ['vol:/v'], post_start: [{{command: touch /v/begun}}], "
        "pre_stop: [{command: touch /v/ended}]}\n"
        f"  b: {{{SLEEP}, volumes: ['vol:/v']}}\nvolumes: {{vol: {{}}}}\n"
    )
    lab.run("up", "-d")
    lab.run("exec", "b", "test", "-e", "/v/begun")
    lab.run("stop", "-t", "1", "a")
    lab.run("exec", "b", "test", "-e", "/v/ended")


def test_a_shared_network_namespace(lab: ProjectLab) -> None:
    lab.file(f"services:\n  a: {{{SLEEP}, hostname: shared}}\n  b: {{{SLEEP}, network_mode: 'service:a'}}\n")
    lab.run("up", "-d")
    assert lab.run("exec", "b", "hostname") == "shared\n"
    before = lab.containers()["b-1"]["ID"]
    lab.run("up", "-d", "--force-recreate", "a")
    lab.run("up", "-d")
    assert lab.containers()["b-1"]["ID"] != before


def test_down_takes_networks_and_volumes(lab: ProjectLab) -> None:
    lab.file(
        f"services:\n  a: {{{SLEEP}, volumes: ['data:/d', /anon], networks: [n]}}\n"
        "volumes: {data: {}}\nnetworks: {n: {}}\n"
    )
    lab.run("up", "-d")
    lab.run("down", "-t", "1")
    assert lab.run("volumes", "-q") == f"{lab.name}_data\n"
    assert lab.daemon.api("GET", f"/networks/{lab.name}_n").status == 404
    lab.run("down", "-v")
    assert lab.run("volumes", "-q") == ""


def test_volumes_of_a_down_come_back(lab: ProjectLab) -> None:
    lab.file(
        f"services:\n  a: {{{SLEEP}, volumes: ['data:/d', 'more:/m']}}\nvolumes: {{data: {{}}, more: {{}}}}\n"
    )
    data = f"{lab.name}_data"
    lab.run("up", "-d")
    lab.run("exec", "a", "sh", "-c", "echo orders > /d/db")
    lab.run("down", "-v", "-t", "1")
    assert "moved 2 volumes to the trash for 7 days" in lab.errors and lab.run("volumes", "-q") == ""
    assert lab.daemon.api("GET", f"/volumes/{data}").status == 404
    listed = lab.run("trash", "ls").splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [[lab.name, data], [lab.name, f"{lab.name}_more"]]
    lab.run("up", "-d")
    assert lab.run("trash", "restore", code=1) == "" and f"a volume {data} already exists" in lab.errors
    lab.run("down", "-v", "-t", "1", "--no-trash")
    assert lab.run("trash", "restore", "data") == f"{data}\n"
    lab.run("up", "-d")
    assert lab.run("exec", "a", "cat", "/d/db") == "orders\n"
    assert lab.run("trash", "empty") == f"{lab.name}_more\n"
    assert lab.run("trash", "restore", "more", code=1) == "" and "no volume more" in lab.errors
    lab.run("down", "-v", "-t", "1", "--no-trash")


def test_a_volume_in_use_elsewhere_is_left_where_it_is(lab: ProjectLab) -> None:
    lab.file(f"services:\n  a: {{{SLEEP}, volumes: ['data:/d']}}\nvolumes: {{data: {{}}}}\n")
    lab.run("up", "-d")
    other = lab.daemon.docker("create", "-v", f"{lab.name}_data:/d", "busybox").ok()
    lab.run("down", "-v", "-t", "1")
    assert "Resource is still in use" in lab.errors
    assert lab.daemon.api("GET", f"/volumes/{lab.name}_data").status == 200
    lab.daemon.docker("rm", other).ok()


def test_networks_and_volumes_that_changed_are_made_anew_with_their_containers(lab: ProjectLab) -> None:
    text = (
        f"services:\n  a: {{{SLEEP}, networks: [n], volumes: ['data:/d']}}\n  b: {{{SLEEP}, networks: [n]}}\n"
        "networks: {n: {labels: {v: '1'}}}\nvolumes: {data: {labels: {v: '1'}}}\n"
    )
    lab.file(text)
    lab.run("up", "-d")
    lab.run("exec", "a", "touch", "/d/kept")
    lab.file(text.replace("{n: {labels: {v: '1'}}}", "{n: {labels: {v: '2'}}}"))
    lab.run("up", "-d")
    assert {one["State"] for one in lab.containers().values()} == {"running"}
    assert lab.daemon.api("GET", f"/networks/{lab.name}_n").json["Labels"]["v"] == "2"
    lab.run("exec", "a", "ping", "-c", "1", "b")
    lab.file(text.replace("'1'", "'2'"))
    lab.run("up", "-d")  # nobody can be asked, so the volume stays as it is
    lab.run("exec", "a", "test", "-e", "/d/kept")
    lab.run("up", "-d", "-y")
    lab.run("exec", "a", "test", "-e", "/d/kept", code=1)
    assert {one["State"] for one in lab.containers().values()} == {"running"}


def test_a_dry_run_does_nothing(lab: ProjectLab) -> None:
    lab.file(TWO)
    lab.run("--dry-run", "up", "-d")
    assert f"DRY-RUN MODE -  Container {lab.name}-web-1  Created" in lab.errors
    assert lab.containers() == {}


def test_build_and_up(lab: ProjectLab) -> None:
    (lab.where / "app").mkdir()
    (lab.where / "app" / "Dockerfile").write_text("FROM busybox\nARG WHO\nRUN echo hello $WHO > /hello\n")
    lab.file(
        "services:\n  a: {build: {context: app, args: {WHO: you}}, command: cat /hello}\n"
        '  b: {build: {dockerfile_inline: "FROM base\\nRUN echo more >> /hello\\n", '
        "additional_contexts: {base: 'service:a'}}, command: cat /hello}\n"
    )
    out = lab.run("up")
    assert "a-1  | hello you\n" in out and "b-1  | more\n" in out
    built = lab.daemon.api("GET", f"/images/{lab.name}-a/json").json["Config"]["Labels"]
    assert built["com.docker.compose.project"] == lab.name and built["com.docker.compose.service"] == "a"
    lab.run("down", "--rmi", "local")
    assert lab.daemon.api("GET", f"/images/{lab.name}-a/json").status == 404


MEET = (
    "RUN --mount=type=cache,id={id},target=/c touch /c/{me} && until [ -e /c/{other} ]; do sleep 0.05; done"
)


def test_builds_run_side_by_side_on_one_screen(lab: ProjectLab) -> None:
    """Each ends only when it has seen the other."""
    for me, other in (("a", "b"), ("b", "a")):
        step = MEET.format(id=lab.name, me=me, other=other)
        (lab.where / f"{me}.Dockerfile").write_text(f"FROM busybox\n{step}\n")
    lab.file("services:\n" + "".join(f"  {n}: {{build: {{dockerfile: {n}.Dockerfile}}}}\n" for n in "ab"))
    lab.run("build")
    for n in "ab":
        assert re.search(rf"^#\d+ \[{n} 2/2\] RUN --mount", lab.errors, re.MULTILINE), lab.errors
        assert f"Named {lab.name}-{n}:latest" in lab.errors
    numbers = re.findall(r"^#(\d+) \[(\w) ", lab.errors, re.MULTILINE)
    assert not {n for n, one in numbers if one == "a"} & {n for n, one in numbers if one == "b"}


def test_a_failed_build_leaves_the_others_alone(lab: ProjectLab) -> None:
    bad, good = "FROM busybox\\nRUN echo why; exit 7", "FROM busybox\\nRUN sleep 0.5; echo fine"
    lab.file(
        f'services:\n  bad: {{build: {{dockerfile_inline: "{bad}"}}}}\n'
        f'  good: {{build: {{dockerfile_inline: "{good}"}}}}\n'
        '  above: {build: {dockerfile_inline: "FROM b", additional_contexts: {b: "service:bad"}}}\n'
    )
    lab.run("build", code=1)
    assert "service bad: ERROR: " in lab.errors and "returned a non-zero code: 7" in lab.errors
    assert "------\n > [bad 2/2] RUN echo why; exit 7:\nwhy\n------" in lab.errors
    assert "above" not in lab.errors
    assert lab.daemon.api("GET", f"/images/{lab.name}-good/json").status == 200


def test_an_interrupt_ends_all_builds(lab: ProjectLab) -> None:
    build = 'build: {dockerfile_inline: "FROM busybox\\nRUN sleep 600"}'
    lab.file(f"services:\n  a: {{{build}}}\n  b: {{{build.replace('600', '601')}}}\n")
    process = lab.popen("build")
    until(lambda: _sleepers("600") and _sleepers("601"))
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    until(lambda: not _sleepers("600") and not _sleepers("601"))


def _sleepers(seconds: str) -> bool:
    wanted = f"sleep\0{seconds}\0".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == wanted:
                return True
        except OSError:
            continue
    return False


def test_logs_are_in_the_order_of_time(lab: ProjectLab) -> None:
    lab.file(
        "services:\n  a: {image: busybox, command: echo one}\n"
        "  b: {image: busybox, command: echo two, "
        "depends_on: {a: {condition: service_completed_successfully}}}\n"
    )
    lab.run("up")  # to the end of both
    assert lab.run("logs") == "a-1  | one\nb-1  | two\n"
    assert lab.run("logs", "--no-log-prefix", "b") == "two\n"


def test_commands_without_a_file(lab: ProjectLab) -> None:
    lab.file(TWO)
    lab.run("up", "-d")
    (lab.where / "compose.yaml").unlink()
    assert "web" in lab.run("-p", lab.name, "ps")
    lab.run("-p", lab.name, "stop", "-t", "1")
    lab.run("-p", lab.name, "down")
    assert lab.run("-p", lab.name, "ps", "-a", "-q") == ""
    lab.run("ps", code=1)
    assert "no configuration file provided: not found" in lab.errors
    os.environ.pop("COMPOSE_PROJECT_NAME", None)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("up", "--no-such"), 1, "unknown flag: --no-such"),
        (("up", "nope"), 1, "no such service: nope"),
        (("exec", "web"), 1, "requires at least 2 arguments"),
        (("ps", "--status", "odd"), 1, "unknown status odd"),
        (("--no-such", "up"), 1, "unknown flag: --no-such"),
        (("--progress", "odd", "ps"), 1, 'unsupported --progress value "odd"'),
        (("up", "-d", "--abort-on-container-exit"), 1, "cannot be combined"),
        (("bridge", "x"), 125, "is not implemented yet"),
        (("port", "web", "80"), 1, "no container for web"),
        (("nonsense",), 1, "unknown command: wherry compose nonsense"),
    ],
)
def test_wrong_input(arguments: tuple[str, ...], code: int, words: str, lab: ProjectLab) -> None:
    lab.file(TWO)
    lab.run(*arguments, code=code)
    assert words in lab.errors, lab.errors


def test_diff_shows_what_runs_against_what_the_file_says(lab: ProjectLab) -> None:
    text = f"services:\n  a: {{{SLEEP}, environment: {{A: 1}}, ports: ['0:80'], mem_limit: 64m}}\n"
    lab.file(text)
    lab.run("up", "-d")
    assert lab.run("diff") == ""
    lab.daemon.docker("update", "-m", "32m", "--memory-swap", "64m", f"{lab.name}-a-1").ok()
    lab.file(text.replace("A: 1", "A: 2") + f"  b: {{{SLEEP}}}\n")
    found = lab.run("diff", code=1).splitlines()
    assert found == [
        f"{lab.name}-a-1: Env A: 1 -> 2",
        f"{lab.name}-a-1: Memory: 33554432 -> 67108864",
        f"{lab.name}-b-1: container: missing -> there",
    ]


def test_explain_says_where_a_value_stands(lab: ProjectLab) -> None:
    (lab.where / "more.env").write_text("FROM=file\n")
    lab.file("services:\n  a:\n    image: busybox\n    env_file: more.env\n")
    lab.file("services:\n  a:\n    hostname: h\n", "compose.override.yaml")
    rows = {line.split()[0]: line.split()[1:] for line in lab.run("explain", "a").splitlines()}
    assert rows["image"] == ["busybox", f"{lab.where}/compose.yaml:3:12"]
    assert rows["hostname"] == ["h", f"{lab.where}/compose.override.yaml:3:15"]
    assert rows["environment.FROM"] == ["file", f"{lab.where}/more.env"]


@pytest.mark.patient(180)
def test_watch_syncs_runs_and_builds(lab: ProjectLab) -> None:
    (lab.where / "src").mkdir()
    (lab.where / "src" / "a.txt").write_text("1")
    (lab.where / "b.txt").write_text("one")
    (lab.where / "Dockerfile").write_text("FROM busybox\nCOPY b.txt /\n")
    lab.file(
        "services:\n  a:\n    build: .\n    init: true\n    command: [sleep, '1000']\n"
        "    develop:\n      watch:\n"
        "        - {path: ./src, target: /app, action: sync, initial_sync: true, ignore: ['*.log']}\n"
        "        - {path: ./b.txt, action: rebuild}\n"
    )

    def inside(*command: str) -> str:
        process = lab.popen("exec", "a", *command)
        return process.communicate(timeout=patiently(30))[0]

    process = lab.popen("watch")
    try:
        until(lambda: inside("cat", "/app/a.txt") == "1", "what was there is there", 60)
        (lab.where / "src" / "x.log").write_text("no")
        (lab.where / "src" / "new.txt").write_text("2")
        (lab.where / "src" / "a.txt").unlink()
        until(lambda: inside("ls", "/app") == "new.txt\n", "files come and go", 30)
        (lab.where / "b.txt").write_text("two")
        until(lambda: inside("cat", "/b.txt") == "two", "the image is built again", 60)
    finally:
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=patiently(30))
    assert process.returncode == 130 and "Watch disabled" in err, err


@pytest.mark.patient(180)
def test_up_watch_goes_on_with_the_container_that_takes_anothers_place(lab: ProjectLab) -> None:
    (lab.where / "b.txt").write_text("one")
    (lab.where / "Dockerfile").write_text("FROM busybox\nCOPY b.txt /\n")
    lab.file(
        "services:\n  a:\n    build: .\n    init: true\n"
        "    command: sh -c 'echo it is $$(cat /b.txt); exec sleep 1000'\n"
        "    develop: {watch: [{path: ./b.txt, action: rebuild}]}\n"
    )
    with (lab.where / "out").open("w") as out:
        process = subprocess.Popen(
            [WHERRY, "compose", "up", "--watch"],
            cwd=lab.where,
            env=lab.daemon.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def said(words: str) -> bool:
        return words in (lab.where / "out").read_text()

    try:
        until(lambda: said("it is one"), "it runs", 60)
        until(lambda: said("Watch enabled"), "it watches", 30)
        (lab.where / "b.txt").write_text("two")
        until(lambda: said("a-1  | it is two"), "the new container's output is shown", 60)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(patiently(30))
    assert process.returncode == 130


@pytest.mark.patient(180)
def test_a_second_interrupt_kills(lab: ProjectLab) -> None:
    lab.file(
        "services:\n  a:\n    image: busybox\n    stop_grace_period: 10m\n"
        '    command: [sh, -c, "trap : TERM; echo ready; while sleep 1; do :; done"]\n'
    )
    with (lab.where / "out").open("w") as out:
        process = subprocess.Popen(
            [WHERRY, "compose", "up"],
            cwd=lab.where,
            env=lab.daemon.environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def said(words: str) -> bool:
        return words in (lab.where / "out").read_text()

    try:
        until(lambda: said("ready"), "it runs", 60)
        process.send_signal(signal.SIGINT)
        until(lambda: said("a-1  Stopping"), "it stops", 60)
        process.send_signal(signal.SIGINT)
        process.wait(patiently(60))
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert said("Killed")
    assert lab.containers()["a-1"]["ExitCode"] == 137


@pytest.mark.patient(240)
def test_an_up_whose_daemon_was_killed_is_finished_by_the_next(
    mortal: LabDaemon, tmp_path: Path, name: str
) -> None:
    lab = ProjectLab(mortal, tmp_path, name)
    services = "".join(f"  s{n}: {{{SLEEP}, depends_on: [s{n - 1}]}}\n" for n in range(1, 8))
    lab.file(f"services:\n  s0: {{{SLEEP}}}\n{services}")
    process = lab.popen("up", "-d")
    assert process.stderr is not None
    for line in process.stderr:
        if "s2-1  Started" in line:
            break
    mortal.end(signal.SIGKILL)
    process.communicate(timeout=patiently(60))
    assert process.returncode == 1, "the client says that the daemon is gone"
    mortal.start()
    try:
        lab.run("up", "-d")
        assert {one["State"] for one in lab.containers().values()} == {"running"}
        assert len(lab.containers()) == 8
    finally:
        lab.run("down", "-t", "1")


def test_a_project_goes_back_to_what_it_was(lab: ProjectLab) -> None:
    """Configuration and images: a tag that has moved since, a service that has come since."""
    lab.daemon.docker("run", "--name", lab.name, "busybox", "sh", "-c", "echo one > /v").ok()
    lab.daemon.docker("commit", lab.name, f"{lab.name}:app").ok()
    app = f"image: {lab.name}:app, init: true, command: [sleep, '1000']"
    lab.file(f"services:\n  web: {{{app}, environment: {{WORD: 'a$$b'}}}}\n")
    lab.run("up", "-d")
    lab.run("up", "-d")  # nothing changes, so there is no entry
    lab.daemon.docker("run", "--name", f"{lab.name}-2", "busybox", "sh", "-c", "echo two > /v").ok()
    lab.daemon.docker("commit", f"{lab.name}-2", f"{lab.name}:app").ok()
    lab.file(f"services:\n  web: {{{app}, environment: {{WORD: c}}}}\n  more: {{{SLEEP}}}\n")
    lab.run("up", "-d", "-t", "1")
    assert lab.run("exec", "web", "sh", "-c", "cat /v; echo $WORD") == "two\nc\n"
    lines = [line.split() for line in lab.run("history").splitlines()[1:]]
    assert [line[0] for line in lines] == ["1", "2"] and lines[1][-2:] == ["+more", "~web"]
    lab.run("rollback", "1")
    assert set(lab.containers()) == {"web-1"}
    assert lab.run("exec", "web", "sh", "-c", "cat /v; echo $WORD") == "one\na$b\n"
    assert lab.run("history").splitlines()[-1].endswith("rollback to 1")
    lab.run("up", "-d", "-t", "1")
    assert lab.run("exec", "web", "sh", "-c", "cat /v; echo $WORD") == "two\nc\n"
    assert lab.run("rollback", "9", code=1) == "" and "has no entry 9" in lab.errors
    assert lab.run("rollback", "x", code=1) == "" and "invalid entry 'x'" in lab.errors
