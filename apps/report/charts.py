"""Charts as SVG text: pure functions from values to a picture.

Colours are CSS classes of the page (`s0`..`s8` for the sequential scale, `c-<stage>` for states), so one picture serves
light, dark and print. Every mark carries a `<title>`, which browsers show on hover and screen readers read out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from html import escape
from math import ceil, floor, log10
from typing import Final

from markupsafe import Markup

from apps.report import words
from apps.report.data import (
    Cluster,
    CohortCell,
    Movement,
    Overlap,
    Period,
    RfmCell,
    SegmentSize,
    StepTiming,
)

STEPS: Final = 9
"""Colours of the sequential scale."""

STAGE_ORDER: Final = ("new", "active", "won_back", "lapsing", "lost", "prospect")
"""From best to worst, the order in which states are stacked."""

LAYER_ORDER: Final = ("bronze", "silver", "gold", "features", "models", "segments", "export", "report")
"""The way of the data through a run."""

FEW: Final = 30
"""Below this many customers a share says little."""

STOPS: Final = (0.0, 0.04, 0.1, 0.18, 0.28, 0.4, 0.55, 0.75, 1.0)

TIME_STEPS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Seconds between the lines of a time axis."""


def sales_by_month(periods: Sequence[Period], currency: str) -> Markup:
    """Revenue per month as columns and, below on the same months, buying customers as a line."""
    width, top, tall, gap, short, left, right = 960, 30, 180, 48, 76, 58, 8
    height = top + tall + gap + short + 26
    step = (width - left - right) / max(len(periods), 1)
    axis = _axis(max((p.revenue for p in periods), default=0.0))
    peak = axis[-1] or 1.0
    parts = [_text(0, 12, "Revenue", "cap")]
    for tick in axis:
        y = top + tall - tall * tick / peak
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 10, y + 4, words.money(tick, currency) if tick else "0", "tick end"))
    bar = min(step * 0.66, 54)
    every = max(1, ceil(len(periods) / 14))
    base = top + tall + gap + short
    for i, p in enumerate(periods):
        x = left + step * i + (step - bar) / 2
        tall_i = tall * max(p.revenue, 0) / peak
        about = (
            f"{words.month(p.month)}: {words.money_in_full(p.revenue, currency)}, "
            f"{words.several(p.orders, 'order')}, {words.several(p.customers, 'customer')}"
            + (" (month not complete)" if p.is_partial else "")
        )
        kind = "column partial" if p.is_partial else "column"
        parts.append(
            f'<g class="mark"><title>{escape(about)}</title>'
            f'<rect class="hit" x="{left + step * i:.1f}" y="{top}" width="{step:.1f}" height="{base - top}"/>'
            f'<path class="{kind}" d="{_column(x, top + tall - tall_i, bar, tall_i)}"/></g>'
        )
        if i % every == 0:
            parts.append(_text(x + bar / 2, base + 18, f"{p.month:%b}", "tick mid"))
            if i == 0 or p.month.month == 1 or every > 1:
                parts.append(_text(x + bar / 2, base + 31, f"{p.month:%Y}", "tick mid faint"))
    parts.append(_text(0, top + tall + gap - 20, "Buying customers", "cap"))
    most = max((p.customers for p in periods), default=0) or 1
    points = [(left + step * (i + 0.5), base - (short - 14) * p.customers / most) for i, p in enumerate(periods)]
    parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{base}" y2="{base}"/>')
    if points:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polygon class="area" points="{points[0][0]:.1f},{base} {line} {points[-1][0]:.1f},{base}"/>'
            f'<polyline class="line" points="{line}"/>'
        )
        for (x, y), p in zip(points, periods, strict=True):
            about = f"{words.month(p.month)}: {words.several(p.customers, 'buying customer')}"
            dot = f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.2">'
            parts.append(f"{dot}<title>{escape(about)}</title></circle>")
        for i in sorted({0, len(points) - 1}):
            x, y = points[i]
            parts.append(_text(x, y - 9, words.whole(periods[i].customers), "value mid"))
    return _svg(width, height + 10, parts, "Revenue and buying customers by month")


def size_against_value(segments: Sequence[SegmentSize]) -> Markup:
    """Per segment, its part of the customers and its part of the money, joined by a line.

    A line to the right means that the segment brings more than its size. Shares too small for two dots are written.
    """
    shown = [s for s in segments if s.share is not None]
    width, row, left, right, top = 960, 34, 232, 56, 8
    height = top + row * len(shown) + 30
    widest = max([max(s.share or 0, s.value_share or 0) for s in shown], default=0.0)
    step = next(s for s in (0.02, 0.05, 0.1, 0.2) if s == 0.2 or widest <= s * 6)
    limit = min(1.0, step * max(1, ceil(widest / step - 1e-9)))
    span = width - left - right

    def at(share: float) -> float:
        return left + span * min(max(share, 0), limit) / limit

    parts = []
    for k in range(round(limit / step) + 1):
        x = at(step * k)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8}" y2="{height - 26}"/>')
        parts.append(_text(x, height - 8, words.percent(step * k, 0), "tick mid"))
    for i, s in enumerate(shown):
        y = top + row * i + row / 2
        share, value = s.share or 0.0, s.value_share
        shares = f"{words.percent(share)} of customers, {words.percent(value)} of spend"
        ring = f'<circle class="of-customers" cx="{at(share):.1f}" cy="{y:.1f}" r="5"/>'
        edge = at(max(share, value or 0.0))
        if not share and not value:
            drawn = _text(left + 8, y + 4.5, "no customers", "tick")
        elif value is None:
            shares = f"{words.percent(share)} of customers, spend not known"
            drawn = ring + _text(edge + 15, y + 4.5, "spend not known", "tick")
        elif edge - left < 6.5:
            drawn = _text(left + 8, y + 4.5, shares, "tick")
        else:
            tone = _tone(value, share)
            times = words.multiple(value / share) if share and value > 0 else "no net spend" if value <= 0 else ""
            drawn = (
                f'<line class="span {tone}" x1="{at(share):.1f}" x2="{at(value):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<circle class="of-value {tone}" cx="{at(value):.1f}" cy="{y:.1f}" r="6.5"/>{ring}'
                f"{_text(edge + 15, y + 4.5, times, 'value')}"
            )
        parts.append(
            f'<g class="mark"><title>{escape(f"{s.name}: {shares}")}</title>'
            f'<rect class="hit" x="0" y="{y - row / 2:.1f}" width="{width}" height="{row}"/>'
            f"{_text(left - 16, y + 5, _clip(s.name, 28), 'label end')}{drawn}</g>"
        )
    return _svg(width, height, parts, "Share of customers against share of spend, by segment")


def overlap_grid(segments: Sequence[SegmentSize], overlaps: Sequence[Overlap]) -> Markup:
    """Which segments hold the same customers: a cell per pair, darker the more alike the two are."""
    found = {frozenset((o.first, o.second)): o for o in overlaps}
    named = {i for o in overlaps for i in (o.first, o.second)}
    shown = [s for s in segments if s.segment_id in named]
    width, left, top, high = 960, 250, 24, 30
    side = min(64.0, (width - left - 8) / max(len(shown) - 1, 1))
    height = top + high * max(len(shown) - 1, 1) + 8
    most = max((o.jaccard for o in overlaps), default=0.0)
    parts = [_text(left + side * (i + 0.5), top - 8, str(i + 1), "tick mid") for i in range(len(shown) - 1)]
    if shown:
        parts.append(_text(0, top - 8, f"1 is {_clip(shown[0].name, 30)}", "tick"))
    for i, one in enumerate(shown[1:], start=1):
        y = top + high * (i - 1)
        parts.append(_text(left - 14, y + high / 2 + 5, f"{_clip(one.name, 28)}  {i + 1}", "label end"))
        for j, other in enumerate(shown[:i]):
            x = left + side * j
            pair = found.get(frozenset((one.segment_id, other.segment_id)))
            place = f'x="{x + 1:.1f}" y="{y + 1}" width="{side - 2:.1f}" height="{high - 2}" rx="4"'
            if pair is None:
                about = f"{one.name} and {other.name}: nobody is in both"
                parts.append(f'<rect class="empty" {place}><title>{escape(about)}</title></rect>')
                continue
            shade = _shade(pair.jaccard, most, linear=True)
            about = (
                f"{one.name} and {other.name}: {words.several(pair.both, 'customer')} in both, "
                f"{words.percent(pair.jaccard)} of those in either"
            )
            number = words.percent(pair.jaccard, 0)
            parts.append(
                f'<g class="mark"><title>{escape(about)}</title><rect class="s{shade}" {place}/>'
                f"{_text(x + side / 2, y + high / 2 + 4.5, number, f'i{shade} cell small mid')}</g>"
            )
    return _svg(width, height, parts, "Overlap of the largest segments")


def sparkline(history: Sequence[tuple[date, int]]) -> Markup:
    """Members over the days measured as a small line; the time between two days is drawn to scale."""
    width, height, edge = 96, 26, 4
    first, last = history[0][0], history[-1][0]
    span, most = max((last - first).days, 1), max(max(n for _, n in history), 1)
    points = [
        (edge + (width - 2 * edge) * (d - first).days / span, height - edge - (height - 2 * edge) * n / most)
        for d, n in history
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    said = ", ".join(f"{words.day(d)}: {words.whole(n)}" for d, n in (history[0], history[-1]))
    x, y = points[-1]
    parts = [
        f'<polyline class="line" points="{line}"><title>{escape(said)}</title></polyline>',
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>',
    ]
    return _svg(width, height, parts, f"Members over time, {said}")


def rfm_grid(cells: Sequence[RfmCell], *, by: str, currency: str) -> Markup:
    """The 5 x 5 grid of recency and frequency scores, coloured by `customers` or by mean `value`."""
    side, high, left, top = 84, 62, 64, 12
    width, height = left + 5 * side + 4, top + 5 * high + 50
    found = {(c.recency, c.frequency): c for c in cells}
    numbers = {k: _cell_number(c, by) for k, c in found.items()}
    most = max((v for v in numbers.values() if v is not None), default=0.0)
    total = sum(c.customers for c in cells) or 1
    parts = []
    for f in range(5, 0, -1):
        y = top + (5 - f) * high
        parts.append(_text(left - 12, y + high / 2 + 5, str(f), "tick end"))
        for r in range(1, 6):
            x = left + (r - 1) * side
            cell, number = found.get((r, f)), numbers.get((r, f))
            if cell is None or not cell.customers:
                about = f"Recency {r}, frequency {f}: nobody"
                parts.append(
                    f'<rect class="empty" x="{x + 2}" y="{y + 2}" width="{side - 4}" height="{high - 4}" rx="6">'
                    f"<title>{about}</title></rect>"
                )
                continue
            about = (
                f"Recency {r}, frequency {f}: {words.several(cell.customers, 'customer')} "
                f"({words.percent(cell.customers / total)}), mean spend {words.money(cell.mean_value, currency)}"
                + (f" · {words.title(cell.group)}" if cell.group else "")
            )
            shade = _shade(number, most)
            shown = words.whole(cell.customers) if by == "customers" else words.money(cell.mean_value, currency)
            parts.append(
                f'<g class="mark"><title>{escape(about)}</title>'
                f'<rect class="s{shade}" x="{x + 2}" y="{y + 2}" width="{side - 4}" height="{high - 4}" rx="6"/>'
                f"{_text(x + side / 2, y + high / 2 + 5, shown, f'i{shade} cell mid')}</g>"
            )
    foot = top + 5 * high
    parts += [_text(left + (r - 0.5) * side, foot + 18, str(r), "tick mid") for r in range(1, 6)]
    parts.append(_text(left + 2.5 * side, foot + 42, "Recency score: 5 bought most recently →", "cap mid"))
    parts.append(
        f'<text class="cap mid" transform="translate(18 {top + 2.5 * high:.0f}) rotate(-90)">'
        "Frequency score: 5 buys most →</text>"
    )
    what = "customers" if by == "customers" else "mean spend"
    return _svg(width, height, parts, f"Recency and frequency grid, coloured by {what}")


def flows(movement: Movement, until: str) -> Markup:
    """Where customers were on the earlier day, on the left, and where they are now, as ribbons."""
    width, height, top, bar, left, right = 960, 430, 40, 14, 168, 200
    links = [f for f in movement.flows if f.customers > 0]
    total = sum(f.customers for f in links) or 1
    sources = _in_order({f.source for f in links})
    targets = _in_order({f.target for f in links})
    gap = 12.0
    usable = height - top - 16 - gap * (max(len(sources), len(targets)) - 1)
    scale = usable / total
    x0, x1 = float(left), float(width - right)
    outs = _stack(sources, {s: sum(f.customers for f in links if f.source == s) for s in sources}, scale, top, gap)
    ins = _stack(targets, {t: sum(f.customers for f in links if f.target == t) for t in targets}, scale, top, gap)
    parts = [
        _text(x0 + bar, 16, words.day(movement.since), "cap end"),
        _text(x1, 16, until, "cap"),
    ]
    leaving = {s: outs[s][0] for s in sources}
    arriving = {t: ins[t][0] for t in targets}
    ribbons: list[tuple[int, str]] = []
    for source in sources:
        for target in targets:
            n = sum(f.customers for f in links if f.source == source and f.target == target)
            if not n:
                continue
            tall = n * scale
            path = _ribbon(x0 + bar, leaving[source], x1, arriving[target], tall)
            leaving[source] += tall
            arriving[target] += tall
            move = f"{state(source, True)} → {state(target, False)}"
            about = f"{move}: {words.several(n, 'customer')} ({words.percent(n / total)})"
            kind = f"ribbon c-{slug(target)}{' stays' if source == target else ''}"
            ribbons.append((n, f'<path class="{kind}" d="{path}"><title>{escape(about)}</title></path>'))
    parts += [drawn for _, drawn in sorted(ribbons, key=lambda r: -r[0])]
    for states, places, x, is_earlier in ((sources, outs, x0, True), (targets, ins, x1, False)):
        for one in states:
            y, tall, n = places[one]
            name, middle = state(one, is_earlier), y + tall / 2
            about = f"{name}: {words.several(n, 'customer')} ({words.percent(n / total)})"
            parts.append(
                f'<rect class="node c-{slug(one)}" x="{x:.1f}" y="{y:.1f}" width="{bar}" '
                f'height="{max(tall, 1.5):.1f}" rx="3"><title>{escape(about)}</title></rect>'
            )
            tx, anchor = (x - 12, "end") if is_earlier else (x + bar + 12, "")
            if tall >= 30:
                parts.append(_text(tx, middle - 2, name, f"label {anchor}"))
                parts.append(_text(tx, middle + 15, f"{words.whole(n)} · {words.percent(n / total)}", f"tick {anchor}"))
            else:
                parts.append(
                    f'<text class="label {anchor}" x="{tx:.1f}" y="{middle + 4.5:.1f}">{escape(name)}'
                    f'<tspan class="tick" dx="6">{words.whole(n)}</tspan></text>'
                )
    return _svg(width, height, parts, f"Customers by state, {words.day(movement.since)} to {until}")


def retention(cells: Sequence[CohortCell], *, newest: int = 18) -> Markup:
    """Months of first purchase down, months since then across; each cell the part who bought again."""
    cohorts = sorted({c.cohort for c in cells})[-newest:]
    kept = [c for c in cells if c.cohort in cohorts and c.age <= newest]
    ages = max((c.age for c in kept), default=0)
    left, top, high, right = 176, 44, 30, 6
    width = 960
    side = min((width - left - right) / max(ages, 1), 82)
    height = top + high * len(cohorts) + 8
    sizes = {c.cohort: c.size for c in kept}
    biggest = max(sizes.values(), default=1) or 1
    highest = max((c.customers / c.size for c in kept if c.age > 0 and c.size), default=0.0)
    parts = [
        _text(0, 14, "First purchase", "cap"),
        _text(96, 14, "Customers", "cap"),
        _text(left, 14, "Share who bought again, months after their first purchase", "cap"),
    ]
    parts += [_text(left + side * (a - 0.5), top - 8, str(a), "tick mid") for a in range(1, ages + 1)]
    found = {(c.cohort, c.age): c for c in kept}
    for i, cohort in enumerate(cohorts):
        y = top + high * i
        size = sizes[cohort]
        thin = " thin" if size < FEW else ""
        parts.append(_text(0, y + high / 2 + 5, words.month(cohort), "label"))
        long = max(2.0, 34 * size / biggest)
        parts.append(
            f"<g><title>{words.month(cohort)}: {words.several(size, 'new customer')}</title>"
            f'<rect class="size" x="96" y="{y + 7}" width="{long:.1f}" height="{high - 14}" rx="3"/>'
            f"{_text(96 + long + 6, y + high / 2 + 4.5, words.whole(size), 'tick')}</g>"
        )
        for age in range(1, ages + 1):
            cell = found.get((cohort, age))
            if cell is None or not cell.size:
                continue
            share = cell.customers / cell.size
            shade = _shade(share, highest, linear=True)
            ink = "" if thin else f"i{shade} "  # cells of thin rows are outlined, on the colour of the sheet
            x = left + side * (age - 1)
            about = (
                f"{words.month(cohort)}, {words.several(age, 'month')} later: {words.whole(cell.customers)} of "
                f"{words.whole(cell.size)} bought ({words.percent(share)})"
                + (" (month not complete)" if cell.is_partial else "")
            )
            parts.append(
                f'<g class="mark{thin}"><title>{escape(about)}</title>'
                f'<rect class="s{shade}" x="{x + 1:.1f}" y="{y + 1}" width="{side - 2:.1f}" height="{high - 2}" '
                f'rx="4"/>'
                f"{_text(x + side / 2, y + high / 2 + 4.5, words.percent(share, 0), f'{ink}cell small mid')}</g>"
            )
    return _svg(width, height, parts, "Retention by month of first purchase")


def traits(cluster: Cluster, names: Sequence[str], limit: float = 2.0) -> Markup:
    """Bars to the left and right of the average customer, one per feature, in standard deviations."""
    width, row, left, right = 420, 25, 188, 34
    height = row * len(names) + 24
    half = (width - left - right) / 2
    middle = left + half
    found = {t.feature: t for t in cluster.traits}
    parts = [f'<line class="zero" x1="{middle}" x2="{middle}" y1="0" y2="{row * len(names)}"/>']
    for i, name in enumerate(names):
        y = row * i
        trait = found.get(name)
        parts.append(_text(left - 12, y + row / 2 + 4.5, _clip(words.trait(name), 24), "tick end"))
        if trait is None or trait.z_score is None:
            parts.append(_text(middle + 6, y + row / 2 + 4, "not known", "tick faint"))
            continue
        z = max(-limit, min(limit, round(trait.z_score, 1)))
        long = (half - 40) * abs(z) / limit
        tone = "up" if z >= 0 else "down"
        x = middle if z >= 0 else middle - long
        mean = "" if trait.mean is None else f", mean {words.mean(trait.mean)}"
        about = (
            f"{words.trait(name)}: {words.deviation(trait.z_score, 2)} standard deviations from the average customer"
            f"{mean}"
        )
        edge, anchor = (x + long + 5, "") if z >= 0 else (x - 5, "end")
        parts.append(
            f'<g class="mark"><title>{escape(about)}</title>'
            f'<rect class="hit" x="0" y="{y}" width="{width}" height="{row}"/>'
            f'<rect class="trait {tone}" x="{x:.1f}" y="{y + 6}" width="{long:.1f}" height="{row - 12}" rx="2"/>'
            f"{_text(edge, y + row / 2 + 4, words.deviation(trait.z_score), f'tick {anchor}')}</g>"
        )
    foot = row * len(names) + 16
    parts += [_text(middle, foot, "average customer", "tick mid faint")]
    return _svg(width, height, parts, f"{cluster.name}: features against the average customer")


def timeline(steps: Sequence[StepTiming]) -> Markup:
    """Steps as bars on the clock, from the start of the first."""
    width, row, left, right, top = 960, 22, 250, 64, 8
    end = max((s.begin + s.seconds for s in steps), default=0.0) or 1.0
    height = top + row * len(steps) + 26
    span = width - left - right
    parts = []
    for tick in _time_axis(end):
        x = left + span * tick / end
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - 22}"/>')
        parts.append(_text(x, height - 6, words.clock(tick), "tick mid"))
    for i, s in enumerate(steps):
        y = top + row * i
        x, long = left + span * s.begin / end, max(2.0, span * s.seconds / end)
        about = (
            f"{s.step} ({s.layer}): {words.seconds(s.seconds)}, starting {words.seconds(s.begin)} after the first"
            + ("" if s.rows_written is None else f"; {words.several(s.rows_written, 'row')} written")
            + ("" if s.status == "succeeded" else f"; {s.status}")
        )
        tone = f"l-{slug(s.layer)}" if s.status == "succeeded" else "failed"
        parts.append(
            f'<g class="mark"><title>{escape(about)}</title>'
            f'<rect class="hit" x="0" y="{y}" width="{width}" height="{row}"/>'
            f"{_text(0, y + row / 2 + 4.5, _clip(s.layer, 10), 'tick faint')}"
            f"{_text(left - 12, y + row / 2 + 4.5, _clip(s.step, 28), 'tick end')}"
            f'<rect class="step {tone}" x="{x:.1f}" y="{y + 4}" width="{long:.1f}" height="{row - 8}" rx="3"/>'
            f"{_text(x + long + 6, y + row / 2 + 4, words.seconds(s.seconds), 'tick faint')}</g>"
        )
    return _svg(width, height, parts, "Steps of the run by time")


def slug(name: str | None) -> str:
    """A name as a CSS class ends: `won_back` becomes `won-back`."""
    return "".join(c if c.isalnum() else "-" for c in (name or "none").lower())


def state(name: str | None, earlier: bool) -> str:
    """A life-cycle state for people; None is the side on which someone was no customer."""
    return words.title(name) if name else ("Not yet customers" if earlier else "No longer known")


def _svg(width: float, height: float, parts: Iterable[str], label: str) -> Markup:
    return Markup(  # noqa: S704 - every text in `parts` went through escape
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>' if text else ""


def _axis(most: float, lines: int = 5) -> list[float]:
    if most <= 0:
        return [0.0]
    rough = most / lines
    unit = 10 ** floor(log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough)
    return [step * i for i in range(ceil(most / step - 1e-9) + 1)]


def _time_axis(end: float, most: int = 6) -> list[float]:
    """Times from 0 to at most `end`, a round number of seconds or minutes apart."""
    hours = 3600.0 * ceil(end / 3600 / most)
    step = next((float(s) for s in TIME_STEPS if s * most >= end), hours)
    return [step * i for i in range(floor(end / step + 1e-9) + 1)]


def _tone(part: float, other: float) -> str:
    """Colour of one share beside another: `even` when their ratio reads 1.0."""
    if other and round(part / other, 1) == 1.0:
        return "even"
    return "up" if part > other else "down"


def _column(x: float, y: float, width: float, height: float) -> str:
    r = min(4.0, height, width / 2)
    return (
        f"M{x:.1f} {y + height:.1f}V{y + r:.1f}q0 {-r:.1f} {r:.1f} {-r:.1f}h{width - 2 * r:.1f}"
        f"q{r:.1f} 0 {r:.1f} {r:.1f}V{y + height:.1f}z"
    )


def _ribbon(xa: float, ya: float, xb: float, yb: float, tall: float) -> str:
    bend = (xa + xb) / 2
    return (
        f"M{xa:.1f} {ya:.1f}C{bend:.1f} {ya:.1f} {bend:.1f} {yb:.1f} {xb:.1f} {yb:.1f}"
        f"V{yb + tall:.1f}C{bend:.1f} {yb + tall:.1f} {bend:.1f} {ya + tall:.1f} {xa:.1f} {ya + tall:.1f}z"
    )


def _stack(
    states: Sequence[str | None], sizes: Mapping[str | None, int], scale: float, top: float, gap: float
) -> dict[str | None, tuple[float, float, int]]:
    places: dict[str | None, tuple[float, float, int]] = {}
    y = float(top)
    for state in states:
        tall = sizes[state] * scale
        places[state] = (y, tall, sizes[state])
        y += tall + gap
    return places


def _in_order(states: Iterable[str | None]) -> list[str | None]:
    rank = {name: i for i, name in enumerate(STAGE_ORDER)}
    return sorted(states, key=lambda s: (s is None, rank.get(s or "", len(rank)), s or ""))


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _cell_number(cell: RfmCell, by: str) -> float | None:
    return float(cell.customers) if by == "customers" else cell.mean_value


def _shade(number: float | None, most: float, *, linear: bool = False) -> int:
    if number is None or most <= 0:
        return 0
    part = max(0.0, min(1.0, number / most))
    if linear:
        return min(STEPS - 1, floor(part * STEPS))
    return max(i for i, stop in enumerate(STOPS) if part >= stop)
