"""Tables for people that lose no letter where the screen is narrow."""

from __future__ import annotations

from rich.table import Table as Grid


def grid_of(*titles: str, **style: object) -> Grid:
    """Returns a table whose cells go on in the next line.

    Cut off, which a log of 80 columns does to them, names become alike and numbers become others.
    """
    grid = Grid(box=None, pad_edge=False, **style)  # type: ignore[arg-type]
    for title in titles:
        grid.add_column(title, overflow="fold")
    return grid
