"""Go's ``text/template`` as Docker's users write it in ``--format``.

    compile('{{range .Mounts}}{{.Source}} {{end}}').render(data)

``parse`` turns text into nodes, ``execute`` walks them over data, ``functions`` are the words a template may
call (Go's own and Docker's). Data is what JSON decodes to, plus :class:`~.execute.Record` for table rows.
Error texts are Go's, because people search for them.
"""

from __future__ import annotations

from wherry.cli.render.template.execute import MISSING, Record, Template, TemplateFailure
from wherry.cli.render.template.parse import TemplateError, parse

__all__ = ["MISSING", "Record", "Template", "TemplateError", "TemplateFailure", "compile"]


def compile(text: str, *, strict: bool = False) -> Template:
    """Parse a template.

    ``strict`` makes a missing key of an object an error, as ``inspect`` has it; without it the key prints as
    ``<no value>``.

    :raises TemplateError: the text is no template; the message is Go's, ``template: :1: unclosed action``.
    """
    return Template(parse(text), strict=strict)
