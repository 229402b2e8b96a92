"""Plots as SVG, made by the server: they need no script and follow the colours of the page. Numbers and words
of users are escaped; the table beside each plot has the same numbers for those who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from django.utils.safestring import SafeString, mark_safe

_WIDTH, _HEIGHT = 720, 200


def _nice(most: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    step = 1.0
    while step * 10 <= most:
        step *= 10
    return next((step * factor for factor in (1, 2, 5) if step * factor >= most), step * 10)


def bars(points: Sequence[tuple[str, int]], title: str, unit: str = "") -> SafeString:
    """Vertical bars of (label, value), from the left to the right; every few have their label below."""
    top = _nice(max((value for _, value in points), default=1) or 1)
    left, bottom, upper = 52, 28, 10
    room = (_WIDTH - left) / max(1, len(points))
    height = _HEIGHT - bottom - upper
    every = max(1, -(-len(points) // 8))
    parts = []
    for line in range(3):
        y = upper + height * line / 2
        value = top * (2 - line) / 2
        parts.append(f'<line class="grid" x1="{left}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="axis" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>'
        )
    for place, (label, value) in enumerate(points):
        tall = height * value / top
        x = left + place * room
        thick = max(1.5, room * 0.72)
        if value:
            parts.append(
                f'<rect class="fill" x="{x + (room - thick) / 2:.1f}" y="{upper + height - tall:.1f}"'
                f' width="{thick:.1f}" height="{tall:.1f}" rx="{min(3, thick / 3):.1f}">'
                f"<title>{escape(label)}: {value:,}{escape(unit)}</title></rect>"
            )
        if place % every == 0:
            parts.append(
                f'<text class="axis" x="{x + room / 2:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">'
                f"{escape(label)}</text>"
            )
    return _svg(_WIDTH, _HEIGHT, title, parts, "plot")


def sparkline(values: Sequence[int], title: str) -> SafeString:
    """A small line without axes."""
    width, height = 240, 48
    most = max(values, default=0) or 1
    step = width / max(1, len(values) - 1)
    points = [f"{i * step:.1f},{height - 3 - (height - 8) * v / most:.1f}" for i, v in enumerate(values)]
    area = f"0,{height} {' '.join(points)} {width},{height}"
    return _svg(
        width, height, title,
        [f'<polygon class="area" points="{area}"/>', f'<polyline class="line" points="{" ".join(points)}"/>'],
        "spark",
    )  # fmt: skip


def meter(part: float, whole: float, title: str, *, limit: bool = False) -> SafeString:
    """A horizontal bar: how much of the whole. Near a ``limit`` it warns."""
    share = min(1.0, max(0.0, part / whole)) if whole else 0.0
    width = 0.0 if not share else max(1.0, share * 100)
    kind = "fill full" if limit and share > 0.9 else "fill"
    parts = [
        '<rect class="rail" width="100" height="6" rx="3"/>',
        f'<rect class="{kind}" width="{width:.1f}" height="6" rx="3"/>',
    ]
    return _svg(100, 6, title, parts, "meter", stretch=True)


def _svg(
    width: int, height: int, title: str, parts: Sequence[str], kind: str, stretch: bool = False
) -> SafeString:
    aspect = ' preserveAspectRatio="none"' if stretch else ""
    # Everything above that comes from outside is escaped.
    return mark_safe(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}"{aspect} role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def short(value: float) -> str:
    """1234567 as 1.2M."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f}".rstrip("0").rstrip(".") + letter
    return f"{value:g}"
