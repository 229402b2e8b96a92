"""The build checks: parts of a Dockerfile that are valid but not advisable
(docs.docker.com/reference/build-checks). Each rule is one function over the parsed file.

``# check=skip=Rule,Rule;error=true`` skips rules (``skip=all`` skips all) and turns findings into an error;
``experimental=Rule`` (or ``all``) enables rules that are off by default.
"""

from __future__ import annotations

from wherry.dockerfile import rules_form, rules_values
from wherry.dockerfile.checktypes import CheckContext, CheckFinding, CheckOptions

RULES = (*rules_form.RULES, *rules_values.RULES)


def check(context: CheckContext, options: CheckOptions | None = None) -> list[CheckFinding]:
    """The findings of all enabled rules, sorted by line.

    :param options: None: those of the Dockerfile's directive.
    :raises InvalidArgument: the directive is malformed.
    """
    wanted = CheckOptions.parse(context.dockerfile.check) if options is None else options
    findings = [
        CheckFinding(rule.name, rule.description, detail, location)
        for rule in RULES
        if wanted.wants(rule)
        for location, detail in rule.run(context)
    ]
    return sorted(findings, key=lambda f: (f.location.first, f.rule))
