"""Progress of long work for people: a line per finished step with rows and seconds, and what runs now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status

from lakehouse.logs import get_logger
from lakehouse.runner import StepResult
from lakehouse.steps import Step

if TYPE_CHECKING:
    from pipelines.bronze.records import FeedResult

log = get_logger(__name__)


class Progress:
    """Prints finished steps; on a terminal, a spinner names the running ones."""

    def __init__(self, console: Console) -> None:
        """Print to `console`."""
        self.console = console
        self._running: list[str] = []
        self._lock = threading.Lock()
        self._status: Status | None = None

    @contextmanager
    def live(self) -> Iterator[Progress]:
        """Show the spinner while the block runs."""
        if not self.console.is_terminal:
            yield self
            return
        with self.console.status("starting") as status:
            self._status = status
            try:
                yield self
            finally:
                self._status = None

    def step(self, step: Step, result: StepResult | None) -> None:
        """Progress callback of `run_steps`."""
        name = step.producer.split(":")[1]
        with self._lock:
            if result is None:
                self._running.append(name)
            else:
                if name in self._running:
                    self._running.remove(name)
                self._finished(step.layer, name, result)
            self._refresh()

    def feed(self, name: str, result: FeedResult | None) -> None:
        """Progress callback of `land_sources`."""
        with self._lock:
            if result is None:
                self._running.append(name)
            else:
                if name in self._running:
                    self._running.remove(name)
                rejected = f", {result.rows_rejected:,} rejected" if result.rows_rejected else ""
                self._line("bronze", name, f"{result.rows_accepted:,} rows{rejected}", result.seconds)
            self._refresh()

    def note(self, text: str) -> None:
        """A line of what happens within a piece of work."""
        with self._lock:
            log.info("note", extra={"note": text})
            self.console.print(f"            {text}", style="dim", highlight=False, markup=False)

    @contextmanager
    def task(self, layer: str, name: str) -> Iterator[Callable[[int | str], None]]:
        """A piece of work that is no producer; call the yielded function with its rows, or a word on its result."""
        said: list[int | str] = [""]
        began = time.monotonic()
        with self._lock:
            self._running.append(name)
            self._refresh()
        try:
            yield lambda rows: said.__setitem__(0, rows)
        finally:
            with self._lock:
                self._running.remove(name)
                self._line(layer, name, said[0], time.monotonic() - began)
                self._refresh()

    def _finished(self, layer: str, name: str, result: StepResult) -> None:
        rows: int | str = result.rows if result.status == "succeeded" else result.status
        self._line(layer, name, rows, result.seconds)

    def _line(self, layer: str, name: str, rows: int | str, seconds: float) -> None:
        shown = f"{rows:,} rows" if isinstance(rows, int) else rows
        log.info("step ended", extra={"layer": layer, "step": name, "result": shown, "seconds": round(seconds, 2)})
        self.console.print(
            f"  [dim]{layer:<9}[/] {name.replace('_', ' '):<36} {shown:>18} {seconds:>7.1f} s", highlight=False
        )

    def _refresh(self) -> None:
        if self._status is not None:
            self._status.update(", ".join(n.replace("_", " ") for n in self._running) or "working")
