"""What every engine is given and reports: the same arguments, and CPU and wall seconds per step."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from bench.generate import ZONE as ZONE
from bench.measure import tree_cpu


@dataclass(frozen=True)
class Arguments:
    """One run of an engine.

    Attributes:
        data: Folder with `lines/` and `products/` as delivered.
        out: Folder for the results; emptied first.
        as_of: Day of features and membership, exclusive.
        threads: Threads to use.
        memory_gb: Memory to stay within, as far as the engine can be told.
        layers: Whether to write a bronze copy and silver lines as well, as a lakehouse does.
    """

    data: Path
    out: Path
    as_of: date
    threads: int = 2
    memory_gb: float = 4.0
    layers: bool = False

    @property
    def lines(self) -> Path:
        return self.data / "lines"

    @property
    def products(self) -> Path:
        return self.data / "products" / "products.parquet"


@dataclass
class Steps:
    """Seconds per step. The tree of processes counts, not only this one."""

    done: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        cpu, wall = tree_cpu(), time.monotonic()
        yield
        self.done[name] = {"cpu": round(tree_cpu() - cpu, 2), "wall": round(time.monotonic() - wall, 2)}


def run_engine(work: Callable[[Arguments, Steps], None]) -> None:
    """Read the command line, do the work, and write `steps.json` beside the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--as-of", type=date.fromisoformat, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-gb", type=float, default=4.0)
    parser.add_argument("--layers", action="store_true")
    args = Arguments(**vars(parser.parse_args()))
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    steps = Steps()
    work(args, steps)
    (args.out / "steps.json").write_text(json.dumps(steps.done, indent=1), encoding="utf-8")
