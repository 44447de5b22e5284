"""Lines of numbers as a picture inside a page: SVG with letters that a phone can show.

The pictures of ``figures/`` are made for paper; these are as wide as a phone, follow the reader's
choice of light or dark, and have their legend below, where no data can be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from discovery.report.markup import say

_WIDTH, _HEIGHT = 360.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 42.0, 12.0, 24.0, 38.0
_LARGEST = 1e12
"""Numbers beyond are not drawn: nobody could read the rest."""
_COLOURS = 6
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_LETTER = 6.2
"""Width of a digit."""


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    label: str
    x: Sequence[float]
    """Ascending."""
    y: Sequence[float]
    """What is not finite is not drawn."""
    low: Sequence[float] = ()
    """Lower ends of intervals, if there are any."""
    high: Sequence[float] = ()
    marked: bool = False
    """Every point has a marker."""


def lines(
    drawn: Sequence[Line],
    *,
    x: str,
    y: str,
    alt: str,
    log: bool = False,
    ticks: Sequence[float] = (),
    shade: tuple[float, float] | None = None,
    shaded: str = "",
) -> str:
    """A chart.

    Args:
      drawn: its lines, in the order of the legend.
      x: what is told along.
      y: what is told, with its unit.
      alt: what is seen, for who cannot see it.
      log: a logarithmic x; all x are above 0.
      ticks: x to be named, as far as there is room; by default round numbers.
      shade: part of x behind the lines.
      shaded: what that part is.

    Returns:
      HTML; nothing where there is nothing to draw.
    """
    known = [_finite(line, log) for line in drawn]
    points = [point for line in known for point in line]
    if not points:
        return ""
    across = _Scale([p[0] for p in points], (_LEFT, _WIDTH - _RIGHT), log, 0.03)
    up = _Scale([v for p in points for v in p[1:]], (_HEIGHT - _BOTTOM, _TOP), False, 0.06)
    parts = [_shade(across, shade)] if shade else []
    parts += [_y_axis(up), _x_axis(across, ticks), _words(x, y)]
    parts += [_band(points, across, up, n) for n, points in enumerate(known)]
    parts += [
        _line(points, across, up, n, line.marked)
        for n, (line, points) in enumerate(zip(drawn, known, strict=True))
    ]
    legend = [_entry(line, n) for n, (line, p) in enumerate(zip(drawn, known, strict=True)) if p]
    if shade and shaded:
        swatch = '<svg viewBox="0 0 34 12"><rect class="shade" width="34" height="12"/></svg>'
        legend.append(f"<li>{swatch}{say(shaded)}</li>")
    return (
        f'<figure class="chart"><svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
        f'aria-label="{say(alt)}">{"".join(parts)}</svg><ul>{"".join(legend)}</ul></figure>\n'
    )


_Point = tuple[float, float, float, float]
"""x, y, and the ends of y's interval (y itself where there is none)."""


def _finite(line: Line, log: bool) -> list[_Point]:
    """The points that can be drawn."""
    low, high = line.low or line.y, line.high or line.y
    found = []
    for x, y, a, b in zip(line.x, line.y, low, high, strict=True):
        if not (_fits(x) and _fits(y)) or (log and x <= 0):
            continue
        found.append((x, y, a if _fits(a) else y, b if _fits(b) else y))
    return found


def _fits(value: float) -> bool:
    return math.isfinite(value) and abs(value) < _LARGEST


class _Scale:
    """From numbers to places."""

    def __init__(
        self, values: Sequence[float], ends: tuple[float, float], log: bool, margin: float
    ) -> None:
        self.log, self.ends = log, ends
        self.low, self.high = min(values), max(values)
        low, high = self._of(self.low), self._of(self.high)
        room = margin * (high - low) or 0.5 * max(abs(high), 1.0)
        self._from, self._to = low - room, high + room

    def _of(self, value: float) -> float:
        return math.log(value) if self.log else value

    def __call__(self, value: float) -> float:
        share = (self._of(value) - self._from) / (self._to - self._from)
        return self.ends[0] + min(max(share, 0.0), 1.0) * (self.ends[1] - self.ends[0])

    def round_ones(self, wanted: int) -> list[float]:
        """Round numbers inside, about so many, of a scale that is not logarithmic."""
        rough = (self._to - self._from) / wanted
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
        first, last = math.ceil(self._from / step), math.floor(self._to / step)
        return [k * step for k in range(first, last + 1)]


def _number(value: float) -> str:
    size = abs(value)
    if size >= 10_000:
        return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")
    return f"{value:.4g}"


def _y_axis(up: _Scale) -> str:
    parts = []
    for value in up.round_ones(5):
        place = up(value)
        parts.append(f'<path class="grid" d="M{_LEFT:g} {place:.1f}H{_WIDTH - _RIGHT:g}"/>')
        parts.append(
            f'<text x="{_LEFT - 5:g}" y="{place + 3.5:.1f}" text-anchor="end">'
            f"{_number(value)}</text>"
        )
    return "".join(parts)


def _x_axis(across: _Scale, ticks: Sequence[float]) -> str:
    bottom = _HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT:g} {bottom:g}H{_WIDTH - _RIGHT:g}"/>']
    named = sorted(tick for tick in set(ticks) if across.low <= tick <= across.high)
    free, last = -math.inf, named[-1] if named else math.nan
    for value in named or across.round_ones(5):
        place, text = across(value), f"{value:,.0f}" if ticks else _number(value)
        parts.append(f'<path class="axis" d="M{place:.1f} {bottom:g}v4"/>')
        half = _LETTER * len(text) / 2
        # The last one is always named: what would touch it is not.
        near_last = value != last and place + half > across(last) - _LETTER * (len(text) / 2 + 1)
        if place - half < free or near_last:
            continue
        free = place + half + _LETTER
        parts.append(
            f'<text x="{place:.1f}" y="{bottom + 15:g}" text-anchor="middle">{text}</text>'
        )
    return "".join(parts)


def _words(x: str, y: str) -> str:
    return (
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:g}" y="{_HEIGHT - 6:g}" text-anchor="middle">'
        f'{say(x)}</text><text x="4" y="12">{say(y)}</text>'
    )


def _shade(across: _Scale, part: tuple[float, float]) -> str:
    left, right = (across(value) for value in part)
    width = max(right - left, 3.0)
    return (
        f'<rect class="shade" x="{left:.1f}" y="{_TOP:g}" width="{width:.1f}" '
        f'height="{_HEIGHT - _BOTTOM - _TOP:g}"/>'
    )


def _band(points: Sequence[_Point], across: _Scale, up: _Scale, number: int) -> str:
    if all(low == high for _, _, low, high in points):
        return ""
    around = [(x, high) for x, _, _, high in points]
    around += [(x, low) for x, _, low, _ in reversed(points)]
    path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in around)
    return f'<path d="M{path}Z" fill="{_colour(number)}" fill-opacity=".16"/>'


def _line(points: Sequence[_Point], across: _Scale, up: _Scale, number: int, marked: bool) -> str:
    places = [(across(x), up(y)) for x, y, _, _ in points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    drawn = f'<path d="M{path}" {_stroke(number)}/>' if len(places) > 1 else ""
    if marked or len(places) == 1:
        drawn += "".join(_marker(x, y, number) for x, y in places)
    return drawn


def _entry(line: Line, number: int) -> str:
    mark = _marker(17.0, 6.0, number) if line.marked or len(line.x) == 1 else ""
    sample = f'<path d="M0 6H34" {_stroke(number)}/>{mark}'
    return f'<li><svg viewBox="0 0 34 12" aria-hidden="true">{sample}</svg>{say(line.label)}</li>'


def _colour(number: int) -> str:
    return f"var(--c{number % _COLOURS})"


def _stroke(number: int) -> str:
    dash = _DASHES[(number // _COLOURS + number) % len(_DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="{_colour(number)}" stroke-width="1.8"{dashed}'


def _marker(x: float, y: float, number: int) -> str:
    """A shape of its own for each line of one colour."""
    shapes = (
        "m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0z",
        "m-3 -3h6v6h-6z",
        "m0 -3.8l3.6 6.4h-7.2z",
        "m0 -4l3.6 4l-3.6 4l-3.6 -4z",
        "m0 3.8l3.6 -6.4h-7.2z",
    )
    shape = shapes[number % len(shapes)]
    return f'<path d="M{x:.1f} {y:.1f}{shape}" fill="{_colour(number)}"/>'
