"""SVG plots by hand, for ci/bench-report: bars, and lines on logarithmic axes, side by side in one figure."""

from __future__ import annotations

import math
from html import escape

COLORS = ["#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626"]
PANEL = 470  # pixels of width
STYLE = """\
<style>
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 14px; font-weight: 600 }
  .small { font-size: 11px; fill: #59636e }
  .back { fill: #ffffff }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .one { stroke: #59636e; stroke-width: 1; stroke-dasharray: 4 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .back { fill: #0d1117 }
    .grid { stroke: #3d444d }
    .one { stroke: #9198a1 }
  }
</style>"""


def number(value: float) -> str:
    """A coordinate, the same on every machine."""
    return f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{number(x)}" y="{number(y)}"{name} text-anchor="{anchor}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" class="{kind}"/>'


def bars(title: str, groups: list[tuple[str, list[tuple[str, float]]]], mark: float, note: str) -> tuple[list[str], float]:
    """Horizontal bars in groups of one color, with a dashed line at `mark` that `note` explains. Returns elements and height."""
    left, right, row, top = 172, 40, 19, 50
    most = max(mark, *(value for _, rows in groups for _, value in rows))
    width = PANEL - left - right
    out = [text(12, 22, title, "title")]
    y = top
    for index, (group, rows) in enumerate(groups):
        if group:
            out.append(text(12, y + 13, group, "small"))
            y += row
        for label, value in rows:
            length = width * value / most
            color = COLORS[index % len(COLORS)]
            out.append(text(left - 8, y + 13, label, anchor="end"))
            out.append(f'<rect x="{left}" y="{number(y + 2)}" width="{number(length)}" height="{row - 5}" rx="2" fill="{color}"/>')
            out.append(text(left + length + 5, y + 13, f"{value:.2f}"))
            y += row
        y += 6
    x = left + width * mark / most
    out += [line(x, top - 6, x, y, "one"), text(x, top - 12, note, "small", "middle")]
    return out, y + 12


Series = tuple[str, bool, list[tuple[float, float]]]


def ticks(low: float, high: float) -> list[float]:
    """Values of 1, 2 and 5 times a power of ten from at most `low` to at least `high`."""
    steps = [m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5)]
    first = max(index for index, step in enumerate(steps) if step <= low)
    last = min(index for index, step in enumerate(steps) if step >= high)
    return steps[first : last + 1]


def lines(title: str, series: list[Series], x_label: str) -> tuple[list[str], float]:
    """Lines on two logarithmic axes; a series is its name, whether it is dashed, and its points. Returns elements and height."""
    left, right, top, height = 60, 20, 44, 240
    width = PANEL - left - right
    xs = sorted({x for _, _, points in series for x, _ in points})
    values = [y for _, _, points in series for _, y in points]
    scale = ticks(min(values), max(values))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log(x) - math.log(xs[0])) / (math.log(xs[-1]) - math.log(xs[0]))
        up = (math.log(y) - math.log(scale[0])) / (math.log(scale[-1]) - math.log(scale[0]))
        return left + 8 + across * (width - 16), top + height - up * height

    out = [text(12, 22, title, "title")]
    for tick in scale:
        y = at(xs[0], tick)[1]
        out += [line(left, y, left + width, y, "grid"), text(left - 6, y + 4, f"{tick:,g}", "small", "end")]
    for x in xs:
        out.append(text(at(x, scale[0])[0], top + height + 16, f"{x:g}", "small", "middle"))
    out.append(text(left + width / 2, top + height + 34, x_label, "small", "middle"))

    names = list(dict.fromkeys(name for name, _, _ in series))
    for name, dashed, points in series:
        color = COLORS[names.index(name) % len(COLORS)]
        path = " ".join(",".join(map(number, at(x, y))) for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
        for x, y in points:
            cx, cy = at(x, y)
            out.append(f'<circle cx="{number(cx)}" cy="{number(cy)}" r="2.5" fill="{color}"/>')
    x, y = float(left), top + height + 56
    for index, name in enumerate(names):
        out.append(f'<rect x="{number(x)}" y="{y - 9}" width="10" height="10" rx="2" fill="{COLORS[index % len(COLORS)]}"/>')
        out.append(text(x + 15, y, name))
        x += 30 + 7 * len(name)
    return out, y + 14


def figure(label: str, panels: list[tuple[list[str], float]]) -> str:
    """Panels side by side."""
    height = max(high for _, high in panels)
    width = PANEL * len(panels)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{number(height)}"'
        f' viewBox="0 0 {width} {number(height)}" role="img" aria-label="{escape(label, quote=True)}">',
        STYLE,
        f'<rect class="back" width="{width}" height="{number(height)}" rx="6"/>',
    ]
    for index, (elements, _) in enumerate(panels):
        out += [f'<g transform="translate({PANEL * index} 0)">', *elements, "</g>"]
    return "\n".join([*out, "</svg>"]) + "\n"
