"""What there is to run and in which order: the task graph, made from the declarations alone.

The local run and the bundle's jobs both come from here, so they cannot differ.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame

from lakehouse.declare import Table, declared_order, table_of, tables
from lakehouse.errors import DeclarationError


@dataclass(frozen=True)
class Step:
    """A producer, the tables it writes and the tables it reads."""

    producer: str
    outputs: tuple[Table, ...]
    reads: tuple[str, ...]

    @property
    def layer(self) -> str:
        """`silver`, `gold`, `features`, ...: the package part a person would look in."""
        module = self.producer.split(":")[0].split(".")
        return module[1] if module[0] == "pipelines" else module[0]

    @property
    def key(self) -> str:
        """A name fit for a task key: `silver_conform_transactions`."""
        return f"{self.layer}_{self.producer.split(':')[1]}"

    def function(self) -> Callable[..., DataFrame | Mapping[str, DataFrame]]:
        """Import and return the producer."""
        module, name = self.producer.split(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as e:
            raise DeclarationError(f"{self.outputs[0].name}: producer {self.producer} cannot be imported: {e}") from e
        return found  # type: ignore[no-any-return]


def plan_steps(only_layers: Iterable[str] | None = None) -> list[Step]:
    """Every producer step in an order in which each comes after the producers of what it reads.

    Args:
        only_layers: Keep steps of these layers (`silver`, `gold`, `features`, `segments`, ...).

    Raises:
        DeclarationError: on a read of an undeclared table, differing reads of one producer, or a cycle.
    """
    known = tables()
    grouped: dict[str, list[Table]] = {}
    for t in known.values():
        if not t.by_runtime:
            grouped.setdefault(t.producer, []).append(t)
    steps: dict[str, Step] = {}
    for producer, outputs in grouped.items():
        first = _first_output(outputs)
        if any(o.reads != first.reads for o in outputs):
            raise DeclarationError(
                f"{producer}: its tables {', '.join(o.name for o in outputs)} must declare equal reads."
            )
        ordered = (first, *(o for o in outputs if o is not first))
        steps[producer] = Step(producer, ordered, first.reads)
    made_by = {o.name: s.producer for s in steps.values() for o in s.outputs}
    after = {p: dependencies(s, made_by) for p, s in steps.items()}
    order: list[Step] = []
    done: set[str] = set()
    while len(order) < len(steps):
        ready = sorted(p for p in steps if p not in done and after[p] <= done)
        if not ready:
            raise DeclarationError(f"The reads of these producers form a cycle: {', '.join(sorted(set(steps) - done))}")
        order += [steps[p] for p in ready]
        done |= set(ready)
    wanted = set(only_layers) if only_layers is not None else None
    return [s for s in order if wanted is None or s.layer in wanted]


def dependencies(step: Step, made_by: Mapping[str, str]) -> set[str]:
    """Producers that must run before `step`; tables the runtime writes and its own tables do not count."""
    for r in step.reads:
        table_of(str(r))
    return {made_by[str(r)] for r in step.reads if str(r) in made_by} - {step.producer}


def _first_output(outputs: list[Table]) -> Table:
    """The output a producer reads back as `previous`: the one it names first, which is the one declared first."""
    order = declared_order()
    return min(outputs, key=lambda o: order.index(o.name))
