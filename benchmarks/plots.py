"""The results as figures: SVG, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from .tables import number, rounded

Results = dict[str, Any]
OURS = "threadwell"


class Theme(NamedTuple):
    """Colours."""

    suffix: str
    paper: str
    ink: str
    faint: str
    ours: str
    others: str


LIGHT = Theme("", "#ffffff", "#1b1f24", "#57606a", "#0a6ebd", "#9aa4af")
DARK = Theme("-dark", "#0d1117", "#e6edf3", "#9198a1", "#4aa3f0", "#59636e")


class Bar(NamedTuple):
    """A server, its value, and the text beside it. Without a value there is only the text."""

    label: str
    value: float | None
    text: str


class Panel(NamedTuple):
    """Bars of one kind. Fewer is better."""

    title: str
    subtitle: str
    bars: Sequence[Bar]


def figures(results: Results) -> dict[str, str]:
    """Each figure, by its file's name."""
    cases = results["cases"]
    made: dict[str, list[Panel]] = {}
    if cases.get("instructions"):
        made["instructions"] = [instructions(cases)]
    panels = [make(cases) for name, make in OVERVIEW.items() if cases.get(name)]
    if len(panels) == len(OVERVIEW):
        made["benchmarks"] = panels
    drawn = {
        f"{name}{theme.suffix}.svg": draw(each, theme)
        for name, each in made.items()
        for theme in (LIGHT, DARK)
    }
    if cases.get("memory"):
        drawn |= {
            f"memory{theme.suffix}.svg": memory_lines(cases, theme) for theme in (LIGHT, DARK)
        }
    return drawn


# ---- What is shown ----------------------------------------------------------------------------


def instructions(cases: Results) -> Panel:
    return Panel(
        "User instructions a request: hello, the head of a browser, the same each time",
        "Counted by callgrind. Fewer is better.",
        _bars(cases["instructions"], lambda row: row["hello-browser"], rounded),
    )


def cpu(cases: Results) -> Panel:
    return Panel(
        "CPU for a thousand requests",
        "hello, heads that vary; milliseconds",
        _bars(cases["cpu"], lambda row: row["hello-varied"], lambda value: f"{number(value)} ms"),
    )


def latency(cases: Results) -> Panel:
    return Panel(
        "p99 of quick clients beside slow ones",
        "4 threads, 32 slow uploads; given up after 5 s",
        _bars(
            cases["latency"],
            lambda row: row["slow"]["p99"],
            lambda value: "over 5 s" if value >= 5000 else f"{number(value)} ms",
        ),
    )


def memory(cases: Results) -> Panel:
    count = _most(cases["memory"])
    return Panel(
        "Memory for an idle connection",
        f"{int(count):,} connections, after one request each",
        _bars(
            cases["memory"],
            lambda row: row[count]["asked"] if count in row else None,
            lambda value: f"{number(value)} KiB",
        ),
    )


def reload(cases: Results) -> Panel:
    reloads = max(
        (row["reloads"] for row in cases["reload"].values() if "reloads" in row), default=0
    )
    return Panel(
        f"Failed requests in {reloads} reloads",
        "2 workers, 16 clients that do not try again",
        _bars(cases["reload"], lambda row: row["failed"], lambda value: f"{value:,.0f}"),
    )


OVERVIEW = {"cpu": cpu, "latency": latency, "memory": memory, "reload": reload}


def _bars(rows: Results, value: Any, text: Any) -> list[Bar]:
    bars = []
    for server, row in rows.items():
        if reason := row.get("lacks"):
            bars.append(Bar(server, None, reason))
        elif (found := value(row)) is None:
            bars.append(Bar(server, None, "takes fewer"))
        else:
            bars.append(Bar(server, found, text(found)))
    return bars


def _most(rows: Results) -> str:
    counts: list[str] = [count for row in rows.values() for count in row if count.isdigit()]
    return max(counts, key=int)


# ---- Bars -------------------------------------------------------------------------------------

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BAR = 820, 140, 110, 64, 26, 16


def draw(panels: Sequence[Panel], theme: Theme) -> str:
    """One panel over the whole width, or several in two columns."""
    columns = 1 if len(panels) == 1 else 2
    width = _WIDTH // columns
    heights = [_TOP + _ROW * len(panel.bars) + 14 for panel in panels]
    rows = [max(heights[at : at + columns]) for at in range(0, len(panels), columns)]
    lines = _open(_WIDTH, sum(rows), "; ".join(panel.title for panel in panels), theme)
    for at, panel in enumerate(panels):
        left, top = at % columns * width, sum(rows[: at // columns])
        lines.append(f'<g transform="translate({left} {top})">')
        lines += _panel(panel, width, theme)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def _open(width: int, height: int, title: str, theme: Theme) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" role="img"'
        ' font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="{theme.paper}"/>',
    ]


def _heading(title: str, subtitle: str, theme: Theme) -> list[str]:
    return [
        f'<text x="16" y="28" font-size="15" font-weight="600" fill="{theme.ink}">'
        f"{escape(title)}</text>",
        f'<text x="16" y="47" fill="{theme.faint}">{escape(subtitle)}</text>',
    ]


def _panel(panel: Panel, width: int, theme: Theme) -> Iterable[str]:
    most = max((bar.value for bar in panel.bars if bar.value is not None), default=0) or 1
    yield from _heading(panel.title, panel.subtitle, theme)
    for at, bar in enumerate(panel.bars):
        top = _TOP + at * _ROW
        middle = top + _BAR / 2 + 4.5
        ours = bar.label == OURS
        yield (
            f'<text x="{_LEFT - 8}" y="{middle:g}" text-anchor="end" fill="{theme.ink}"'
            f' font-weight="{600 if ours else 400}">{escape(bar.label)}</text>'
        )
        end = float(_LEFT)
        if bar.value is not None:
            long = (width - _LEFT - _RIGHT) * bar.value / most
            long = max(long, 1) if bar.value else 0
            end += long + 6
            yield (
                f'<rect x="{_LEFT}" y="{top}" width="{long:.1f}" height="{_BAR}" rx="2"'
                f' fill="{theme.ours if ours else theme.others}"/>'
            )
        colour = theme.faint if bar.value is None else theme.ink
        yield f'<text x="{end:.1f}" y="{middle:g}" fill="{colour}">{escape(bar.text)}</text>'


# ---- Lines ------------------------------------------------------------------------------------

_STEPS = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
_HEIGHT, _PLOT_LEFT, _PLOT_RIGHT, _PLOT_TOP, _PLOT_BOTTOM = 390, 70, 170, 70, 54


def memory_lines(cases: Results, theme: Theme) -> str:
    """The memory of each server against the number of idle connections."""
    series = {
        server: {int(count): found["all_mib"] for count, found in row.items() if count.isdigit()}
        for server, row in cases["memory"].items()
        if "lacks" not in row
    }
    return _lines(
        "Resident memory with idle connections",
        "MiB of all processes, after one request on each connection. Less is better.",
        "idle connections",
        series,
        theme,
    )


def _lines(
    title: str, subtitle: str, across: str, series: dict[str, dict[int, float]], theme: Theme
) -> str:
    most_x = max(x for points in series.values() for x in points)
    most_y = max(y for points in series.values() for y in points.values())
    step = next(step for step in _STEPS if most_y / step <= 6)
    right, bottom = _WIDTH - _PLOT_RIGHT, _HEIGHT - _PLOT_BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _PLOT_LEFT + (right - _PLOT_LEFT) * x / most_x,
            bottom - (bottom - _PLOT_TOP) * y / most_y,
        )

    lines = [*_open(_WIDTH, _HEIGHT, title, theme), *_heading(title, subtitle, theme)]
    for number_of in range(int(most_y / step) + 1):
        value = number_of * step
        _, y = at(0, value)
        lines += [
            f'<path d="M{_PLOT_LEFT} {y:.1f}H{right}" stroke="{theme.others}" opacity="0.35"/>',
            f'<text x="{_PLOT_LEFT - 8}" y="{y + 4.5:.1f}" text-anchor="end"'
            f' fill="{theme.faint}">{value:,.0f}</text>',
        ]
    for x in sorted({x for points in series.values() for x in points}):
        lines.append(
            f'<text x="{at(x, 0)[0]:.1f}" y="{bottom + 20}" text-anchor="middle"'
            f' fill="{theme.faint}">{x:,}</text>'
        )
    lines.append(
        f'<text x="{right}" y="{bottom + 38}" text-anchor="end"'
        f' fill="{theme.faint}">{across}</text>'
    )
    lines += _series(series, at, right, theme)
    return "\n".join([*lines, "</svg>", ""])


def _series(
    series: dict[str, dict[int, float]], at: Any, right: float, theme: Theme
) -> Iterable[str]:
    """The lines, with their names at the right, one below the other where they would overlap."""
    ends = {name: at(0, points[max(points)])[1] for name, points in series.items()}
    below = 0.0
    for name in sorted(series, key=lambda each: ends[each]):
        points = series[name]
        colour = theme.ours if name == OURS else theme.others
        path = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in (at(*each) for each in sorted(points.items()))
        )
        below = max(ends[name], below + 16)
        bold = 600 if name == OURS else 400
        yield (
            f'<polyline points="{path}" fill="none" stroke="{colour}"'
            f' stroke-width="{3 if name == OURS else 1.5}"/>'
        )
        yield (
            f'<text x="{right + 8:g}" y="{below + 4.5:.1f}" fill="{theme.ink}"'
            f' font-weight="{bold}">{escape(name)}</text>'
        )
