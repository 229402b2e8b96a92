"""Go's ``text/template`` as Docker's users write it in ``--format``.

    compile('{{range .Mounts}}{{.Source}} {{end}}').render(data)

``parse`` turns text into nodes, ``execute`` walks them over data, ``functions`` has the functions that a
template can call (Go's and Docker's), ``printf`` the one with its own format language, ``values`` Go's rules
for values. Data is decoded JSON, or :class:`~.execute.Record` for table rows. Error texts are Go's, because
people search for them.
"""

from __future__ import annotations

from wherry.cli.render.template.execute import Template, TemplateFailure, TemplateRecord
from wherry.cli.render.template.parse import TemplateError, parse
from wherry.cli.render.template.values import MISSING

__all__ = ["MISSING", "Template", "TemplateError", "TemplateFailure", "TemplateRecord", "compile"]


def compile(text: str, *, strict: bool = False) -> Template:
    """Parse a template.

    ``strict`` makes a missing key of an object an error, as ``inspect`` has it; without it the key prints as
    ``<no value>``.

    :raises TemplateError: the template is malformed; the message is Go's, ``template: :1: unclosed action``.
    """
    return Template(parse(text), strict=strict)
