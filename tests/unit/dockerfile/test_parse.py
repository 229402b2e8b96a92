"""Reading Dockerfiles: what each instruction becomes, and what each mistake says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.dockerfile.errors import DockerfileError
from wherry.dockerfile.expand import Seen, expand, expand_from
from wherry.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Onbuild,
    Run,
    Shell,
    User,
    Volume,
    Workdir,
)
from wherry.dockerfile.parse import parse, parse_trigger
from wherry.solver.graph import Location


def one(text: str) -> Instruction:
    """The instruction of a stage with nothing else."""
    (found,) = parse(f"FROM scratch\n{text}").stages[0].instructions
    return found


def reason(text: str) -> str:
    with pytest.raises(DockerfileError) as error:
        parse(text)
    return error.value.reason


def test_stages_names_and_global_arguments() -> None:
    found = parse(
        "ARG tag=1 other\nFROM base:$tag AS Build\nRUN a\nFROM --platform=$TARGETPLATFORM build\nRUN b\n"
    )
    assert [a.pairs for a in found.global_args] == [(("tag", "1"), ("other", None))]
    first, second = found.stages
    assert (first.name, first.written_name, first.base, first.index) == ("build", "Build", "base:$tag", 0)
    assert (second.name, second.base, second.platform) == ("", "build", "$TARGETPLATFORM")
    assert expand_from(first, {"tag": "2"}) == ("base:2", "")
    assert expand_from(second, {"TARGETPLATFORM": "linux/arm64"}) == ("build", "linux/arm64")
    assert first.instructions[0].location == Location(3, 3)


def test_continuations_comments_and_blank_lines() -> None:
    found = parse("FROM scratch\nRUN a \\\n# comment\n  b \\  \n\n  && c\n# end\n")
    run = found.stages[0].instructions[0]
    assert isinstance(run, Run)
    assert run.words == ("a   b   && c",)
    assert run.location == Location(2, 6)
    assert found.empty_continuations == (Location(2, 6),)
    two = parse("FROM scratch\nRUN echo \\\\\nRUN b").stages[0].instructions
    assert [i.text for i in two] == ["RUN echo \\\\", "RUN b"]


def test_windows_line_ends_and_a_byte_order_mark() -> None:
    found = parse("\ufeffFROM scratch\r\nRUN a \\\r\n b\r\nCOPY <<E /x\r\nline\r\nE\r\n".encode())
    run, copy = found.stages[0].instructions
    assert isinstance(run, Run) and run.words == ("a  b",)
    assert isinstance(copy, Copy) and copy.heredocs[0].content == "line\r\n"


def test_directives() -> None:
    found = parse(
        "# syntax = docker/dockerfile:1.7-labs\n# escape=`\n# check=skip=all\nFROM a\nRUN b `\n c\\"
    )
    assert (found.syntax, found.escape, found.check) == ("docker/dockerfile:1.7-labs", "`", "skip=all")
    assert found.stages[0].instructions[0].text == "RUN b  c\\"
    # Directives end with the first line that is none.
    assert parse("# hello\n# escape=`\nFROM a").escape == "\\"
    assert "only one escape" in reason("# escape=`\n# escape=`\nFROM a")
    assert "invalid escape token" in reason("# escape=x\nFROM a")
    for name in ("someone/frontend:1", "docker.io/someone/frontend", "localhost:5000/docker/dockerfile"):
        assert f"frontend {name} is not supported" in reason(f"# syntax={name}\nFROM a")
    for name in ("docker.io/docker/dockerfile", "docker/dockerfile:1@sha256:" + "0" * 64):
        assert parse(f"# syntax={name}\nFROM a").syntax == name


def test_shell_and_exec_forms() -> None:
    assert one('RUN ["a", "b c"]') == Run(
        location=Location(2, 2), text='RUN ["a", "b c"]', words=("a", "b c"), shell=False
    )
    run = one("run  [ not json ]")
    assert isinstance(run, Run)
    assert (run.words, run.shell, run.text) == (("[ not json ]",), True, "RUN [ not json ]")
    assert one("CMD []") == Cmd(location=Location(2, 2), text="CMD []", words=(), shell=False)
    entry = one("ENTRYPOINT exec top -b")
    assert isinstance(entry, Entrypoint) and entry.words == ("exec top -b",)
    assert "comprised of strings only" in reason("FROM a\nCMD [1]")


def test_key_value_pairs() -> None:
    env = one("ENV a=1 b=\"x y\" c=p\\ q d='$z'")
    assert isinstance(env, Env)
    assert env.pairs == (("a", "1"), ("b", '"x y"'), ("c", "p\\ q"), ("d", "'$z'"))
    done = expand(env, {"z": "no"})
    assert isinstance(done, Env)
    assert done.pairs == (("a", "1"), ("b", "x y"), ("c", "p q"), ("d", "$z"))
    old = one("ENV key a value  with blanks")
    assert isinstance(old, Env)
    assert (old.pairs, old.legacy) == ((("key", "a value  with blanks"),), True)
    label = one('LABEL "com.example.a"="b"')
    assert isinstance(label, Label)
    done = expand(label, {})
    assert isinstance(done, Label) and done.pairs == (("com.example.a", "b"),)
    assert "must have two arguments" in reason("FROM a\nENV x")
    assert "can't find = in" in reason("FROM a\nENV x=1 y")
    assert "names can not be blank" in reason("FROM a\nENV =1")
    arg = one("ARG a b=2")
    assert isinstance(arg, Arg) and arg.pairs == (("a", None), ("b", "2"))


def test_copy_and_add() -> None:
    flags = '--from=build --chown=a:b --chmod=u+x --link --exclude=*.o --exclude="b c"'
    copy = one(f"COPY {flags} a $b /dst/")
    assert isinstance(copy, Copy)
    assert (copy.from_, copy.chown, copy.chmod, copy.link, copy.parents) == (
        "build",
        "a:b",
        "u+x",
        True,
        False,
    )
    assert (copy.exclude, copy.sources, copy.destination) == (("*.o", "b c"), ("a", "$b"), "/dst/")
    done = expand(copy, {"b": "x y"})
    assert isinstance(done, Copy) and done.sources == ("a", "x y")
    spaces = one('COPY ["a b", "/c d"]')
    assert isinstance(spaces, Copy) and (spaces.sources, spaces.destination) == (("a b",), "/c d")
    add = one("ADD --checksum=sha256:$x --keep-git-dir=true --unpack=false https://example/a /a")
    assert isinstance(add, Add)
    assert (add.checksum, add.keep_git_dir, add.unpack) == ("sha256:$x", True, False)
    plain = one("ADD a b")
    assert isinstance(plain, Add) and plain.unpack is None
    assert "Destination could not be determined" in reason("FROM a\nCOPY x")
    assert reason("FROM a\nCOPY --form=x a b") == "unknown flag: --form (did you mean from?)"
    assert "expecting boolean value for flag link" in reason("FROM a\nCOPY --link=1 a b")
    assert "duplicate flag specified: from" in reason("FROM a\nCOPY --from=a --from=b a b")
    assert "missing a value on flag: from" in reason("FROM a\nCOPY --from a b")


def test_heredocs() -> None:
    text = "COPY <<A <<-'B' plain /dst/\nx $y\\n\nA\n\tz $y\n\tB\n"
    copy = one(text)
    assert isinstance(copy, Copy)
    assert [(h.name, h.content, h.expand) for h in copy.heredocs] == [
        ("A", "x $y\\n\n", True),
        ("B", "z $y\n", False),
    ]
    assert (copy.sources, copy.destination, copy.location) == (("plain",), "/dst/", Location(2, 6))
    done = expand(copy, {"y": "'1'"})
    assert isinstance(done, Copy)
    assert [h.content for h in done.heredocs] == ["x '1'n\n", "z $y\n"]
    run = one("RUN <<EOF python3 && cat 3<<E2 /dev/fd/3\nprint(1)\nEOF\ntwo\nE2\n")
    assert isinstance(run, Run)
    assert [(h.name, h.descriptor) for h in run.heredocs] == [("EOF", 0), ("E2", 3)]
    assert "unterminated heredoc" in reason("FROM a\nRUN <<E\nx\n")
    assert "heredoc as a destination" in reason("FROM a\nCOPY <<A <<B\nx\nA\ny\nB\n")
    # No here-document where the words say so, nor in other instructions.
    for line in ('RUN ["a", "<<E"]', "RUN a '<<E'", "RUN a<<<b", "CMD <<E", "RUN 1<2"):
        assert getattr(one(line), "heredocs", ()) == ()


def test_run_flags() -> None:
    run = one(
        "RUN --mount=type=cache,id=x,target=/c,sharing=locked,mode=0700 --mount=dst=/b,rw,from=s,src=/a "
        "--mount=type=secret,id=tok,env=TOKEN,required --mount=type=tmpfs,target=/t,size=1m "
        "--mount=type=ssh --network=none --security=insecure make"
    )
    assert isinstance(run, Run)
    cache, bind, secret, tmpfs, ssh = run.mounts
    assert (cache.type, cache.id, cache.sharing, cache.mode, cache.readonly) == (
        "cache",
        "x",
        "locked",
        "0700",
        False,
    )
    assert (bind.type, bind.target, bind.from_, bind.source, bind.readonly) == (
        "bind",
        "/b",
        "s",
        "/a",
        False,
    )
    assert (secret.env, secret.required, tmpfs.size, ssh.type) == ("TOKEN", True, "1m", "ssh")
    assert (run.network, run.security, run.words) == ("none", "insecure", ("make",))
    readonly = one("RUN --mount=target=/b x")
    assert isinstance(readonly, Run) and readonly.mounts[0].readonly
    for text, words in {
        "type=volume,target=/x": 'unsupported mount type "volume"',
        "type=tmpfs,target=/x,id=1": "unexpected key 'id' for mount type 'tmpfs'",
        "type=cache": "target is required",
        "type=bind,target": "must be a key=value pair",
        "type=cache,target=/x,sharing=some": "unsupported sharing value",
        "type=secret": "one of id, source, target required",
        "type=bind,target=/x,ro=maybe": "invalid value for readonly",
    }.items():
        assert words in reason(f"FROM a\nRUN --mount={text} x")
    assert "unsupported network mode" in reason("FROM a\nRUN --network=bridge x")
    assert 'security "no" is not valid' in reason("FROM a\nRUN --security=no x")


def test_the_others() -> None:
    health = one("HEALTHCHECK --interval=5s --retries=2 CMD curl -f x")
    assert isinstance(health, Healthcheck)
    assert (health.interval, health.retries, health.words, health.shell) == ("5s", "2", ("curl -f x",), True)
    none = one("HEALTHCHECK none")
    assert isinstance(none, Healthcheck) and none.none
    assert one('VOLUME ["/a", "/b c"]') == Volume(
        location=Location(2, 2), text='VOLUME ["/a", "/b c"]', paths=("/a", "/b c")
    )
    assert isinstance(one('SHELL ["/bin/bash", "-c"]'), Shell)
    workdir, user = one("WORKDIR a b"), one("USER me")
    assert isinstance(workdir, Workdir) and workdir.path == "a b"
    assert isinstance(user, User) and user.user == "me"
    expose = one("EXPOSE 80/tcp $p")
    assert isinstance(expose, Expose)
    done = expand(expose, {"p": "90 91-93/udp"})
    assert isinstance(done, Expose) and done.ports == ("80/tcp", "90", "91-93/udp")
    for text, words in {
        "HEALTHCHECK": "requires at least one argument",
        "HEALTHCHECK NONE x": "takes no arguments",
        "HEALTHCHECK x": 'Unknown type "X"',
        "HEALTHCHECK CMD": "Missing command",
        "SHELL sh -c": "JSON form",
        "SHELL []": "at least one argument",
        "VOLUME": "at least one argument",
        'VOLUME ["a", " "]': "empty string",
        "RUN": "RUN requires at least one argument",
        "WORKDIR": "WORKDIR requires exactly one argument",
        "USER --x me": "unknown flag: --x",
        "EXPOSE": "at least one argument",
        "ARG": "at least one argument",
    }.items():
        assert words in reason(f"FROM a\n{text}")


def test_onbuild() -> None:
    found = one("ONBUILD COPY --link . /src")
    assert isinstance(found, Onbuild) and found.trigger == "COPY --link . /src"
    assert isinstance(parse_trigger(found.trigger), Copy)
    heredoc = one("ONBUILD RUN <<E\necho $x\nE\n")
    assert isinstance(heredoc, Onbuild)
    again = parse_trigger(heredoc.trigger)
    assert isinstance(again, Run) and again.heredocs[0].content == "echo $x\n"
    for text, words in {
        "ONBUILD ONBUILD RUN x": "Chaining ONBUILD",
        "ONBUILD FROM x": "FROM isn't allowed as an ONBUILD trigger",
        "ONBUILD MAINTAINER x": "MAINTAINER isn't allowed",
        "ONBUILD NOPE": "unknown instruction: NOPE",
        "ONBUILD COPY x": "Destination could not be determined",
    }.items():
        assert words in reason(f"FROM a\n{text}")
    for trigger in ("FROM x", "RUN a\nRUN b", "", "NOPE"):
        with pytest.raises(DockerfileError, match="invalid ONBUILD trigger"):
            parse_trigger(trigger)


def test_mistakes_show_the_lines() -> None:
    with pytest.raises(DockerfileError) as error:
        parse("FROM scratch\n\nRUNN a \\\n  b\x1b[31m\nRUN c\n", name="sub/Dockerfile")
    assert error.value.message.splitlines() == [
        "dockerfile parse error on line 3: unknown instruction: RUNN (did you mean RUN?)",
        "sub/Dockerfile:3",
        "--------------------",
        "   1 |     FROM scratch",
        "   2 |",
        "   3 | >>> RUNN a \\",
        "   4 | >>>   b\N{REPLACEMENT CHARACTER}[31m",
        "   5 |     RUN c",
        "--------------------",
    ]
    assert "no build stage in current context" in reason("RUN x\nFROM a")
    assert "file with no instructions" in reason("# only a comment\n")
    assert "file with no instructions" in reason("")
    assert "one or three arguments" in reason("FROM a b")
    assert "invalid name for build stage" in reason("FROM a AS 1x")
    assert "not a text file" in reason("FROM a\n\0")
    with pytest.raises(DockerfileError, match="larger than"):
        parse(b"#" * (5 << 20))


def test_expansion_names_what_is_not_set_and_where() -> None:
    seen = Seen()
    expand(one("COPY --chown=$u $a ${b:-x} /"), {"u": "1"}, seen=seen)
    assert seen.unset == {"a"}
    with pytest.raises(DockerfileError) as error:
        expand(one("WORKDIR ${a:?missing}"), {})
    assert error.value.location == Location(2, 2) and "a: missing" in error.value.reason
    stage = parse("FROM $x").stages[0]
    with pytest.raises(DockerfileError, match="should not be blank"):
        expand_from(stage, {})


_TEXT = "FROM RUN COPY ENV --from= --mount=type=cache, <<E E # a b= [ ] \" ' ONBUILD $x ` HEALTHCHECK CMD"
_WORDS = st.sampled_from([*_TEXT.split(" "), "\n", "\\\n", "\t"])


@given(st.lists(_WORDS, max_size=30).map(" ".join))
def test_any_text_is_a_dockerfile_or_a_named_mistake(text: str) -> None:
    try:
        parse("FROM a\n" + text)
    except DockerfileError as e:
        assert e.reason
