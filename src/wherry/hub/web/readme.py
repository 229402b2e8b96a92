"""Markdown of users as HTML that can do nothing: no HTML of theirs, no images from elsewhere, no scripts."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

_TAGS = {
    "h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "ul", "ol", "li", "blockquote", "pre", "code", "em",
    "strong", "s", "a", "table", "thead", "tbody", "tr", "th", "td", "span",
}  # fmt: skip
_LANGUAGES = {
    f"language-{name}" for name in ("sh", "bash", "console", "yaml", "json", "python", "dockerfile")
}


def _image(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    """An image becomes a link: loading it would tell another site who reads the page."""
    token = tokens[index]
    source = nh3.clean_text(str(token.attrGet("src") or ""))
    words = nh3.clean_text(self.renderInlineAsText(token.children or [], options, env)) or "image"
    return f'<a href="{source}">{words}</a>'


def _below(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """Headings of the text go below those of the page."""
    token = tokens[index]
    token.tag = f"h{min(6, int(token.tag[1]) + 1)}"
    return self.renderToken(tokens, index, options, env)


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "typographer": False})
    parser.enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image)
    parser.add_render_rule("heading_open", _below)
    parser.add_render_rule("heading_close", _below)
    return parser


def _attribute(tag: str, name: str, value: str) -> str | None:
    if tag == "a" and name == "href":
        # A link without a scheme would lead to a page of the hub, or with // to any other.
        return (
            value if value.startswith("#") or urlsplit(value).scheme in ("https", "http", "mailto") else None
        )
    if tag == "code" and name == "class":
        return value if value in _LANGUAGES else None
    return value if name in ("align", "href", "rel") else None


@lru_cache(maxsize=256)
def html(text: str) -> str:
    """Safe HTML of a README; the last ones are kept, as it takes milliseconds."""
    return nh3.clean(
        _parser().render(text),
        tags=_TAGS,
        attributes={"a": {"href"}, "code": {"class"}, "th": {"align"}, "td": {"align"}},
        attribute_filter=_attribute,
        link_rel="ugc nofollow noopener noreferrer",
        url_schemes={"https", "http", "mailto"},
    )
