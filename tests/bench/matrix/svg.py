"""A line chart and a bar chart as SVG text, with nothing but the standard library."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 50
COLOURS = ("#0b62a4", "#c1440e", "#2e7d32", "#7b3f9d", "#b8860b", "#00838f", "#6d4c41", "#ad1457", "#546e7a", "#9e9d24")


@dataclass(frozen=True, slots=True)
class Axis:
    """From the least to the greatest value, on so many pixels; logarithmic when asked for."""

    least: float
    most: float
    from_px: float
    until_px: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return where a value is."""
        share = (self._scaled(value) - self._scaled(self.least)) / (self._scaled(self.most) - self._scaled(self.least))
        return round(self.from_px + share * (self.until_px - self.from_px), 1)

    def ticks(self) -> list[float]:
        """Return round values on the way."""
        if self.log:
            powers = range(math.floor(math.log2(self.least)), math.ceil(math.log2(self.most)) + 1)
            every = max(1, len(powers) // 6)
            return [2.0**power for power in powers if power % every == 0 and self.least <= 2.0**power <= self.most]
        raw = (self.most - self.least) / 5
        step = 10 ** math.floor(math.log10(raw))
        step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= raw)
        return [each * step for each in range(math.ceil(self.least / step), math.floor(self.most / step) + 1)]

    def _scaled(self, value: float) -> float:
        return math.log2(value) if self.log else value


def line_chart(
    title: str,
    lines: Mapping[str, Points],
    *,
    across: str,
    up: str,
    log: bool = False,
    dashed: Sequence[str] = (),
    shaded: tuple[float, float] | None = None,
) -> str:
    """Return a chart; `dashed` are lines for reference, `shaded` marks a stretch of the horizontal axis."""
    points = [point for line in lines.values() for point in line]
    horizontal = [x for x, _ in points]
    greatest = max(y for _, y in points) * 1.05
    x_axis = Axis(min(horizontal), max(horizontal), LEFT, WIDTH - RIGHT, log)
    y_axis = Axis(min(y for _, y in points) if log else 0.0, greatest, HEIGHT - BOTTOM, TOP, log)
    parts = []
    if shaded:
        from_px, until_px = x_axis.at(shaded[0]), x_axis.at(shaded[1])
        parts.append(
            f'<rect x="{from_px}" y="{TOP}" width="{until_px - from_px:.1f}" height="{HEIGHT - BOTTOM - TOP}" '
            'fill="#f3d9d9"/>'
        )
    parts += _grid(x_axis, y_axis, across, up)
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x_axis.at(x)},{y_axis.at(y)}" for x, y in line)
        dashes = ' stroke-dasharray="6 4"' if name in dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        parts += _legend(number, name, colour)
    return _page(title, parts, HEIGHT)


def bar_chart(title: str, bars: Mapping[str, float], *, across: str) -> str:
    """Return a chart with one bar below the other, as they come."""
    row, height = 26, TOP + BOTTOM + 26 * len(bars)
    axis = Axis(0.0, max(bars.values()) * 1.05, 190, WIDTH - 70)
    parts = []
    for number, (name, value) in enumerate(bars.items()):
        top = TOP + number * row
        parts.append(f'<text x="184" y="{top + 17}" text-anchor="end">{escape(name)}</text>')
        width = axis.at(value) - axis.from_px
        parts.append(f'<rect x="190" y="{top + 4}" width="{width:.1f}" height="18" fill="{COLOURS[0]}"/>')
        parts.append(f'<text x="{axis.at(value) + 5}" y="{top + 17}">{value:,.0f}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{height - 16}" text-anchor="middle">{escape(across)}</text>')
    return _page(title, parts, height)


def _grid(x_axis: Axis, y_axis: Axis, across: str, up: str) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in y_axis.ticks():
        y = y_axis.at(value)
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:,.0f}</text>')
    parts += [
        f'<text x="{x_axis.at(value)}" y="{bottom + 18}" text-anchor="middle">{value:,.0f}</text>'
        for value in x_axis.ticks()
    ]
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}">{escape(up)}</text>')
    return parts


def _legend(number: int, name: str, colour: str) -> list[str]:
    x, y = WIDTH - RIGHT + 14, TOP + 10 + number * 20
    return [
        f'<rect x="{x}" y="{y - 9}" width="12" height="12" fill="{colour}"/>',
        f'<text x="{x + 18}" y="{y + 2}">{escape(name)}</text>',
    ]


def _page(title: str, parts: list[str], height: int) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">'
    )
    ground = f'<rect width="{WIDTH}" height="{height}" fill="white"/>'
    heading = f'<text x="{LEFT}" y="18" font-size="14" font-weight="bold">{escape(title)}</text>'
    return "\n".join([head, ground, heading, *parts, "</svg>\n"])
