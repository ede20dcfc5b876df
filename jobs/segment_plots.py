"""Segments as pictures: sizes over time, and which of them overlap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lakehouse.errors import SettingsError


def draw_sizes(sizes: Sequence[Any], path: Path, title: str) -> None:
    """Draw members per day, a line per website.

    Args:
        sizes: Rows of `gold.customer_segment_size` of one segment, in order of days.
        path: Picture to write; the ending says the format.
        title: Name of the segment.
    """
    figure, axes = _figure(8, 4, f"{title}: members per day", path)
    for website in dict.fromkeys(r["website_id"] for r in sizes):
        own = [r for r in sizes if r["website_id"] == website]
        axes.plot([r["as_of"] for r in own], [r["members"] for r in own], marker="o", label=website)
    axes.set_ylabel("members")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.autofmt_xdate()
    figure.savefig(path)


def draw_overlap(pairs: Sequence[Any], path: Path) -> None:
    """Draw a heat map of how alike segments are.

    Args:
        pairs: Rows of `segments.inspect.overlap_segments`; of several websites the most alike counts.
        path: Picture to write; the ending says the format.
    """
    names = sorted({r[c] for r in pairs for c in ("segment_a", "segment_b")})
    place = {name: i for i, name in enumerate(names)}
    cells = [[1.0 if a == b else 0.0 for b in names] for a in names]
    for r in pairs:
        a, b = place[r["segment_a"]], place[r["segment_b"]]
        cells[a][b] = cells[b][a] = max(cells[a][b], r["jaccard"])
    side = 2 + 0.35 * len(names)
    figure, axes = _figure(side, side, "How alike segments are", path)
    image = axes.imshow(cells, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    figure.colorbar(image, label="Jaccard index", shrink=0.7)
    figure.savefig(path)


def draw_flows(moves: Sequence[Any], path: Path) -> None:
    """Draw the largest flows between segments as bars.

    Args:
        moves: Rows with left, entered and customers, the largest first.
        path: Picture to write; the ending says the format.
    """
    figure, axes = _figure(8, 1.3 + 0.3 * len(moves), "Who left one segment and entered another", path)
    names = [f"{r['left']} \u2192 {r['entered']}" for r in moves]
    axes.barh(range(len(moves)), [r["customers"] for r in moves])
    axes.set_yticks(range(len(moves)), names)
    axes.invert_yaxis()
    axes.set_xlabel("customers")
    figure.savefig(path)


FORMATS = (".svg", ".png", ".pdf")


def _figure(width: float, height: float, title: str, path: Path) -> Any:
    if path.suffix.lower() not in FORMATS:
        raise SettingsError(f"A picture ends in {', '.join(FORMATS)}, not in '{path.suffix}': {path.name}")
    if not path.parent.is_dir():
        raise SettingsError(f"There is no folder {path.parent} to draw {path.name} in")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
