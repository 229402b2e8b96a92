"""The build checks: what a Dockerfile says that it is allowed to say and had better not
(docs.docker.com/reference/build-checks). Each rule is one function over the parsed file.

``# check=skip=Rule,Rule;error=true`` leaves rules out (``skip=all`` every one) and turns findings into a
failure; ``experimental=Rule`` (or ``all``) takes in the rules that are not on by themselves.
"""

from __future__ import annotations

from wherry.build import rules_form, rules_values
from wherry.build.checktypes import Context, Finding, Options

RULES = (*rules_form.RULES, *rules_values.RULES)


def check(context: Context, options: Options | None = None) -> list[Finding]:
    """What every wanted rule finds, by line.

    :param options: the Dockerfile's own directive if None.
    :raises InvalidArgument: the directive is none.
    """
    wanted = Options.parse(context.dockerfile.check) if options is None else options
    findings = [
        Finding(rule.name, rule.description, detail, location)
        for rule in RULES
        if wanted.wants(rule)
        for location, detail in rule.run(context)
    ]
    return sorted(findings, key=lambda f: (f.location.first, f.rule))
