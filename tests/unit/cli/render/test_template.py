"""Go templates as people write them in --format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.cli.render import template
from wherry.cli.render.table import Row

DATA = {
    "Name": "/web",
    "Count": 3,
    "Ratio": 1.5,
    "On": True,
    "Off": False,
    "Nothing": None,
    "Empty": [],
    "List": ["b", "a"],
    "Config": {"Labels": {"a.b": "c", "z": "<y>"}, "Env": ["A=1", "B=2"]},
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "53/udp": None},
    "State": {"Status": "running"},
}


def render(text: str, data: object = DATA, *, strict: bool = False) -> str:
    return template.compile(text, strict=strict).render(data)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "/web"),
        ("{{.State.Status}}", "running"),
        ("{{ .Count }} {{.Ratio}} {{.On}}", "3 1.5 true"),
        ("{{.Missing}}", "<no value>"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.List}} {{.Config.Labels}}", "[b a] map[a.b:c z:<y>]"),
        ("{{json .Config.Labels}}", '{"a.b":"c","z":"<y>"}'),
        ('{{index .Config.Labels "a.b"}}|{{index .Config.Labels "no"}}|', "c||"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{range .List}}<{{.}}>{{end}}", "<b><a>"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range $i, $e := .List}}{{$i}}={{$e}} {{end}}", "0=b 1=a "),
        ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}},{{end}}", "a.b:c,z:<y>,"),
        ("{{range $e := .List}}{{$e}}{{$.Name}}{{end}}", "b/weba/web"),
        ('{{range .List}}{{if eq . "b"}}{{continue}}{{end}}{{.}}{{end}}', "a"),
        ("{{range .List}}{{.}}{{break}}{{end}}", "b"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{if .On}}y{{else}}n{{end}}{{if .Off}}y{{else}}n{{end}}", "yn"),
        ("{{if .Off}}1{{else if .On}}2{{else}}3{{end}}", "2"),
        ("{{if and .On (not .Off)}}both{{end}}", "both"),
        ("{{with .State}}{{.Status}}{{end}}{{with .Off}}x{{else}}y{{end}}", "runningy"),
        ("{{with $x := .State}}{{$x.Status}}{{end}}", "running"),
        ("{{with .Off}}a{{else with .State}}{{.Status}}{{end}}", "running"),
        ("{{$x := 1}}{{if .On}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ('{{printf "%s-%d" .Name 3 | len}}', "6"),
        ("{{.Name | upper | lower}}", "/web"),
        (
            '{{printf "%-6s|%5d|%05d|%q|%v|%t|%.2f|%x" .Name 3 42 "a" .List true 1.5 255}}',
            '/web  |    3|00042|"a"|[b a]|true|1.50|ff',
        ),
        ('{{printf "%d %s %!" "a"}}', "%!d(string=a) %!s(MISSING) %!(NOVERB)"),
        ('{{printf "%d" 1 2}}', "1%!(EXTRA int=2)"),
        ('{{join .List ","}} {{split "a-b" "-"}} {{title "ab cd"}}', "b,a [a b] Ab Cd"),
        ('{{pad "x" 1 2}}|{{truncate "abcdef" 3}}|{{len "é"}}', " x  |abc|2"),
        ('{{println "a" 1}}{{print 1 2 "a" "b" 3}}', "a 1\n1 2a b3".replace("a b", "ab")),
        (
            '{{eq .Count 3}} {{eq .Count 1 2 3}} {{ne .Count 3}} {{lt 1 2}} {{ge 1 2}} {{gt "b" "a"}}',
            "true true false true false true",
        ),
        ("{{or .Off .Name}} {{and .On .Name}} {{or .Off 0}}", "/web /web 0"),
        ('{{slice "abcdef" 1 3}} {{len .List}} {{index .List 1}}', "bc 2 a"),
        ("a {{- .Count -}} b", "a3b"),
        ("{{/* note */}}x{{- /* y */ -}} z", "xz"),
        ("{{`raw \\n`}} {{\"tab\\t\\u00e9\\x41\"}} {{'a'}}", "raw \\n tab\té" + "A 97"),
        ("{{(.State).Status}}", "running"),
        ('{{html "<a>"}} {{urlquery "a b&"}} {{js "<\'="}}', "&lt;a&gt; a+b%26 \\u003C\\'\\u003D"),
        ("{{true}} {{nil | print}} {{0x1f}} {{1_000}}", "true <nil> 31 1000"),
    ],
)
def test_renders(text: str, expected: str) -> None:
    assert render(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.Foo", "template: :1: unclosed action"),
        ("{{", "template: :1: unclosed action"),
        ("{{.Foo}", "template: :1: bad character U+007D '}'"),
        ("{{foo}}", 'template: :1: function "foo" not defined'),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{range .X}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ('{{"a', "template: :1: unterminated quoted string"),
        ("a\n{{$x}}", 'template: :2: undefined variable "$x"'),
        ("{{(.A}}", "template: :1: unclosed left paren"),
        ("{{.A)}}", "template: :1: unexpected right paren"),
        ("{{/* x", "template: :1: unclosed comment"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ('{{template "x"}}', "template: :1: {{template}} is not supported in a format"),
        ("{{if .A}}{{else}}{{else}}{{end}}", "template: :1: expected end; found {{else}}"),
        ("{{" + "(" * 300, "template: :1: max expression depth exceeded"),
    ],
)
def test_what_is_no_template(text: str, message: str) -> None:
    with pytest.raises(template.TemplateError) as caught:
        template.compile(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.Name.Foo}}", ':1:7: executing "" at <.Name.Foo>: can\'t evaluate field Foo in type string'),
        (
            "{{index .List 5}}",
            ':1:2: executing "" at <index .List 5>: error calling index: index out of range: 5',
        ),
        (
            "{{.Nothing.Foo}}",
            ':1:10: executing "" at <.Nothing.Foo>: nil pointer evaluating interface {}.Foo',
        ),
        (
            '{{lt 1 "a"}}',
            ':1:2: executing "" at <lt 1 "a">: error calling lt: incompatible types for comparison',
        ),
        ("{{len 3}}", ':1:2: executing "" at <len 3>: error calling len: len of type int'),
        ("{{upper}}", ':1:2: executing "" at <upper>: wrong number of args for upper: want 1 got 0'),
        ("{{range .Ratio}}{{end}}", ':1:8: executing "" at <.Ratio>: range can\'t iterate over 1.5'),
        ("{{3 | .Name}}", ':1:6: executing "" at <.Name>: Name is not a method but has arguments'),
    ],
)
def test_what_cannot_be_carried_out(text: str, message: str) -> None:
    with pytest.raises(template.TemplateFailure) as caught:
        render(text)
    assert str(caught.value) == "template: " + message


def test_strict_knows_structures_from_free_keys() -> None:
    data = {"State": {"Status": "x"}, "Config": {"Labels": {}, "Cmd": None}, "HostConfig": {"Binds": None}}
    with pytest.raises(template.TemplateFailure, match='map has no entry for key "Foo"'):
        render("{{.State.Foo}}", data, strict=True)
    assert render("{{.Config.Labels.foo}}", data, strict=True) == "<no value>"
    assert render("{{if .State.Health}}y{{else}}n{{end}} {{.State.Health}}", data, strict=True) == "n <nil>"
    assert render("{{.HostConfig.Binds}} {{json .HostConfig.Binds}}", data, strict=True) == "[] null"


class Thing(Row):
    TYPE = "formatter.Thing"
    FIELDS = ("ID", "Labels")

    def get_id(self) -> str:
        return "<1>"

    def get_labels(self) -> str:
        return "a=b"

    def get_label(self, name: str) -> str:
        return f"label {name}"


def test_rows_have_fields_methods_and_json() -> None:
    assert render('{{.ID}} {{.Label "x"}} {{.Label "x" | upper}}', Thing()) == "<1> label x LABEL X"
    assert render("{{json .}}", Thing()) == '{"ID":"\\u003c1\\u003e","Labels":"a=b"}'
    with pytest.raises(
        template.TemplateFailure, match=r"can't evaluate field Foo in type \*formatter\.Thing"
    ):
        render("{{.Foo}}", Thing())


@given(st.text(alphabet="{}.$|()\"'`- \nabAB:=,/*0123456789ifrangewithendelse", max_size=40))
def test_any_text_renders_or_fails_cleanly(text: str) -> None:
    try:
        found = render(text)
    except (template.TemplateError, template.TemplateFailure) as e:
        found = str(e)
        assert found, "an error says something"
    assert isinstance(found, str)
