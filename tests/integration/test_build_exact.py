"""Corners of builds and images in which Docker's clients would notice a difference."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

from buildlab import archive, build, built, cat, error, post, stream, web, write
from daemonlab import LabDaemon

CORNERS = """\
FROM busybox
RUN mkdir -p /real/sub /sub /target && echo old > /target/file && ln -s /target/file /link \\
  && ln -s /nowhere/deep /dangling && ln -s /sub /real/abs
COPY new /link
COPY new /dangling/
COPY --chmod=0700 dir /made
COPY --chmod=0700 dir /made-too/
ADD below.tar /real/
ARG V=arg
RUN test -L /link && cat /target/file /nowhere/deep/new /real/sub/x && stat -c %a /made /made-too /made/inner
"""


def test_destinations(daemon: LabDaemon, tmp_path: Path) -> None:
    below = io.BytesIO()
    with tarfile.open(fileobj=below, mode="w") as tar:
        info = tarfile.TarInfo("abs/x")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"x\n"))
    files = {"Dockerfile": CORNERS, "new": "new\n", "dir/inner/f": "", "below.tar": below.getvalue()}
    context = write(tmp_path, files)
    (context / "dir").chmod(0o755)
    done = build(daemon, context, "--no-cache")
    out = done.out + done.errors
    shown = [line.rpartition(" ")[2] for line in out.splitlines() if line.startswith("#")]
    assert "x" in shown, out
    at = shown.index("x")
    assert shown[at - 2 : at + 4] == ["new", "new", "x", "700", "755", "700"], out


def test_triggers_take_from_stages(daemon: LabDaemon, tmp_path: Path) -> None:
    base = (
        "FROM busybox\nONBUILD COPY --from=tools /made /taken\n"
        "ONBUILD RUN --mount=from=tools,target=/m cat /m/made\n"
    )
    built(daemon, write(tmp_path / "base", {"Dockerfile": base}), "-t", "with-triggers")
    text = "FROM busybox AS tools\nRUN echo made > /made\nFROM with-triggers\n"
    image = built(daemon, write(tmp_path / "app", {"Dockerfile": text}))
    assert cat(daemon, image, "/taken") == "made"


def test_a_cache_mount_is_another_with_another_seed_or_owner(daemon: LabDaemon, tmp_path: Path) -> None:
    def counted(options: str, seed: str = "s") -> str:
        text = (
            f"FROM busybox AS seed\nRUN mkdir /s && echo {seed} > /s/seed\nFROM busybox\nARG N\n"
            f"RUN --mount=type=cache,id=counted,target=/c{options} echo x >> /c/n && "
            "echo $(wc -l < /c/n) $(cat /c/seed 2>/dev/null) $(stat -c %u:%a /c) > /out\n"
        )
        write(tmp_path, {"Dockerfile": text})
        return cat(daemon, built(daemon, tmp_path, "--build-arg", f"N={os.urandom(4).hex()}"), "/out")

    assert counted("") == "1 0:755" and counted("") == "2 0:755"
    assert counted(",uid=7,mode=0711") == "1 7:711" and counted(",mode=0711,uid=7") == "2 7:711"
    assert counted(",from=seed,source=/s") == "1 s 0:755" and counted(",from=seed,source=/s") == "2 s 0:755"
    assert counted(",from=seed,source=/s", "other") == "1 other 0:755"
    assert counted("") == "3 0:755"


def test_hard_links_and_modes_of_a_context(daemon: LabDaemon, tmp_path: Path) -> None:
    text = "FROM busybox\nCOPY . /c\nRUN stat -c '%h %a %n' /c/a /c/b /c/d /c/d/kept > /out\n"
    context = write(tmp_path, {"Dockerfile": text, ".dockerignore": "d\n!d/kept\n", "a": "1", "d/kept": ""})
    os.link(context / "a", context / "b")
    (context / "d").chmod(0o710)
    out = cat(daemon, built(daemon, context), "/out").splitlines()
    assert out == ["2 644 /c/a", "2 644 /c/b", "2 710 /c/d", "1 644 /c/d/kept"]


def test_what_the_legacy_api_says(daemon: LabDaemon) -> None:
    text = "FROM busybox\nEXPOSE 8080:80\nRUN cat << EOF > /x\nhello\nEOF\n"
    answer = post(daemon, archive({"Dockerfile": text}), buildargs={"UNUSED": None, "OTHER": "1"})
    said = stream(answer)
    assert "[Warning] One or more build-args [OTHER UNUSED] were not consumed" in said, said
    assert "Successfully built" in said
    wrong = post(daemon, archive({"Dockerfile": "FROM busybox\nRUN true\nSTOPSIGNAL FOO\n"}))
    assert "invalid signal: FOO" in error(wrong) and "Dockerfile:3" in error(wrong)
    assert "invalid stage index 7" in error(
        post(daemon, archive({"Dockerfile": "FROM busybox\nCOPY --from=7 / /\n"}))
    )
    broken = post(daemon, archive({"Dockerfile": b"FROM busybox\nLABEL a=\xff\n"}))
    assert "not valid UTF-8" in error(broken) and "Dockerfile:2" in error(broken)
    carried = post(daemon, archive({"Dockerfile": b"FROM busybox\nCOPY <<E /\xe9\n\xff\nE\nCOPY \xe8 /\n"}))
    assert 'file not found in build context or excluded by .dockerignore: "/\ufffd": not found' in error(
        carried
    )


def test_an_images_id_is_no_name_to_start_from(daemon: LabDaemon, tmp_path: Path) -> None:
    identifier = built(daemon, write(tmp_path, {"Dockerfile": "FROM busybox\nLABEL a=b\n"})).strip()
    short = identifier.removeprefix("sha256:")[:6]
    write(tmp_path, {"Dockerfile": f"FROM {short}\n"})
    failed = build(daemon, tmp_path)
    assert failed.code != 0 and f"cannot pull {short}:latest" in failed.errors
    daemon.docker("image", "prune", "-f").ok()  # what a pull that came to nothing keeps for the next one


def test_a_whole_repository_is_saved(daemon: LabDaemon, tmp_path: Path) -> None:
    for tag in ("one", "two"):
        daemon.docker("tag", "busybox", f"several:{tag}").ok()
    daemon.docker("save", "-o", str(tmp_path / "all.tar"), "several").ok()
    with tarfile.open(tmp_path / "all.tar") as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        tags = [tag for image in json.load(member) for tag in image["RepoTags"]]
    assert sorted(tags) == ["several:one", "several:two"]


def test_an_import_from_elsewhere(daemon: LabDaemon, tmp_path: Path) -> None:
    write(tmp_path, {"root.tar": archive({"in/side": "there"})})
    subprocess.run(["gzip", "-k", str(tmp_path / "root.tar")], check=True)
    with web(tmp_path) as address:
        out = daemon.docker(
            "import", "-c", "ENV A=1", "-c", "WORKDIR $A", f"{address}/root.tar.gz", "fetched:1"
        )
        assert "sha256:" in out.ok() and "Downloading from" in out.out
        config = daemon.api("GET", "/images/fetched:1/json").json["Config"]
        assert config["Env"] == ["A=1"] and config["WorkingDir"] == "/1"
        missing = daemon.docker("import", f"{address}/nothing.tar")
        assert missing.code != 0 and "404" in missing.errors


def test_statements_about_an_image(daemon: LabDaemon, tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": "FROM busybox\nLABEL attested=1\n"})
    built(daemon, tmp_path, "-t", "attested", "--provenance", "mode=max", "--sbom", "true")
    kinds = {one["PredicateType"] for one in daemon.api("GET", "/images/attested/attestations").json}
    assert kinds == {"https://slsa.dev/provenance/v1", "https://spdx.dev/Document"}
    (one,) = daemon.api(
        "GET", "/images/attested/attestations?statement=1&type=https://spdx.dev/Document"
    ).json
    assert one["Statement"]["predicateType"] == "https://spdx.dev/Document"
    assert one["Descriptor"]["mediaType"] == "application/vnd.in-toto+json"
    assert daemon.api("GET", "/images/busybox/attestations").json == []
    other = '{"os":"linux","architecture":"s390x"}'
    assert daemon.api("GET", f"/images/attested/attestations?platform={other}").status == 404
