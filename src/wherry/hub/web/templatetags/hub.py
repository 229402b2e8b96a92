"""Words and numbers for templates. Everything that is marked safe is made here, of escaped parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from wherry.hub.core import categories
from wherry.hub.store.sql import now
from wherry.hub.web import files, plots, readme

register = template.Library()
_STEPS = ((60, "second"), (3600, "minute"), (86400, "hour"), (86400 * 30, "day"), (86400 * 365, "month"))


@register.filter
def ago(seconds: int | None) -> SafeString | str:
    """``3 hours ago``, with the full time for those who point at it."""
    if seconds is None:
        return "never"
    moment = datetime.fromtimestamp(seconds, UTC)
    age, words = now() - seconds, ""
    unit = 1
    for limit, name in _STEPS:
        if abs(age) < limit:
            count = abs(age) // unit
            words = f"{count} {name}{'' if count == 1 else 's'}"
            break
        unit = limit
    else:
        count = abs(age) // (86400 * 365)
        words = f"{count} year{'' if count == 1 else 's'}"
    words = "just now" if 0 <= age < 5 else f"{words} ago" if age >= 0 else f"in {words}"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.isoformat(), moment.strftime("%d %B %Y, %H:%M UTC"), words,
    )  # fmt: skip


@register.filter
def size(count: int | None) -> str:
    """Bytes: ``12.3 MB``."""
    value = float(count or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.95:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


@register.filter
def brief(digest: str | None) -> str:
    """The first twelve digits of a digest."""
    return (digest or "").partition(":")[2][:12]


@register.filter
def count(value: float | None) -> str:
    return plots.short(float(value or 0))


@register.filter
def markdown(text: str) -> SafeString:
    return mark_safe(readme.html(text))


@register.filter
def category(word: str) -> str:
    return categories.CATEGORIES.get(word, word)


@register.filter
def web_link(text: str) -> str:
    """A label or a profile's link, if a browser may follow it; otherwise empty."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return ""
    return text if parts.scheme in ("http", "https") and parts.hostname and len(text) < 500 else ""


@register.filter
def get(mapping: Mapping[Any, Any], key: Any) -> Any:
    return mapping.get(key, "")


@register.filter
def namespace(repository: str) -> str:
    return repository.partition("/")[0] if "/" in repository else ""


@register.simple_tag
def meter(part: float, whole: float | None, title: str = "", limit: bool = False) -> SafeString:
    return plots.meter(part, whole or 0, title, limit=limit)


@register.simple_tag
def icon(name: str) -> SafeString:
    """An icon of ``assets/icons.svg``; it says nothing to screen readers."""
    return format_html(
        '<svg class="icon" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        files.by_name()["icons.svg"].path, name,
    )  # fmt: skip


@register.simple_tag
def integrity(name: str) -> str:
    return files.integrity(name)


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: object) -> str:
    """The query of this page with some values changed: ``?q=web&page=2``."""
    found = context["request"].GET.copy()
    for name, value in changes.items():
        if value in ("", None, False):
            found.pop(name, None)
        else:
            found[name] = str(value)
    text = found.urlencode()
    return f"?{text}" if text else "?"


@register.filter
def cut_namespace(repository: str) -> str:
    return repository.partition("/")[2] or repository


@register.filter
def short_platform(platform: str) -> str:
    """``linux`` goes without saying."""
    return platform.removeprefix("linux/")


_DEEDS = {
    "manifest.push": "pushed", "manifest.delete": "deleted an image",
    "manifest.undelete": "restored an image",
    "tag.delete": "deleted", "tag.revert": "reverted", "tag.copy": "tagged", "tag.expire": "set the end of",
    "repository.create": "created the repository", "repository.describe": "changed the description",
    "repository.readme": "changed the README", "repository.publish": "made it public",
    "repository.hide": "made it private", "repository.rename": "renamed it",
    "repository.archive": "archived it",
    "repository.unarchive": "opened it again", "repository.delete": "deleted the repository",
    "repository.undelete": "restored the repository", "repository.grant": "changed who has access",
    "rule.add": "added a rule", "rule.remove": "removed a rule", "webhook.add": "added a webhook",
    "webhook.remove": "removed a webhook", "webhook.test": "tested a webhook",
}  # fmt: skip


@register.filter
def deed(action: str) -> str:
    return _DEEDS.get(action, action.replace(".", ": "))


@register.filter
def tone(action: str) -> str:
    """The colour of a dot: what takes away, what restores, what changes."""
    word = action.rpartition(".")[2]
    if word in ("delete", "remove", "retention", "expiry", "hide"):
        return "bad"
    return "good" if word in ("revert", "undelete", "create", "publish") else ""


@register.filter
def marks(detail: str) -> list[str]:
    """The tags, or the digest, that an event concerns."""
    try:
        found = json.loads(detail) if detail else {}
    except ValueError:
        return []
    tags = found.get("tags") or [found[key] for key in ("reference", "digest") if found.get(key)][:1]
    return [brief(str(one)) if ":" in str(one) else str(one) for one in tags[:10]]


@register.filter
def label(config: Any, name: str) -> str:
    return str(config.label(name))


@register.filter
def signed_size(count: int) -> str:
    return f"-{size(-count)}" if count < 0 else size(count)


@register.filter
def days(seconds: int) -> int:
    return seconds // 86400


@register.filter
def article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"
