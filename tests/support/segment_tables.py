"""The tables of segments as dictionaries, taken through a refresh step by step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse.declare import table_of
from lakehouse.settings import Settings
from segments.earlier import Earlier
from segments.evaluation import evaluate_changed
from segments.events import SOURCES
from segments.history import emit_events, publish_members, record_history
from segments.language import Segment, feature
from segments.membership import plan_membership
from tests.support.hold import holding
from tests.support.rows import rows
from tests.support.segment_features import FEATURES

DAY = date(2018, 1, 1)
MEMBERSHIP = "gold.customer_membership"
EVALUATION = "gold.customer_evaluation"
PIN = "gold.customer_segment_pin"
PROMOTION = "gold.customer_segment_promotion"
GUEST_HISTORY = "gold.customer_segment_guest_history"
RECENT = Segment("recent", "Recent", feature("recency_days").at_most(30), priority=2)
OFTEN = Segment("often", "Often", feature("frequency").at_least(3), priority=1)


def at(year: int, month: int, day: int, hour: int = 0) -> datetime:
    """A UTC time without zone, as Spark gives and takes it."""
    return datetime(year, month, day, hour)


class Tables:
    """The segment tables as dictionaries by key, written the way the lakehouse writes them."""

    def __init__(self, spark: SparkSession):
        self.spark = spark
        self.content: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
        self.seen: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
        self.runs = 0
        self.earlier = Earlier(tuple)

    def read(self, name: str) -> DataFrame:
        return rows(self.spark, name, self.content.get(name, {}).values())

    def changes(self, name: str, reader: str) -> DataFrame:
        """Rows changed since `reader` last called `done`."""
        before, now = self.seen.get(f"{name}>{reader}", {}), self.content.get(name, {})
        changed = [r | {"_deleted": False} for k, r in now.items() if before.get(k) != r]
        gone = [r | {"_deleted": True} for k, r in before.items() if k not in now]
        frame = rows(self.spark, name, changed + gone)
        return frame if changed or gone else frame.withColumn("_deleted", F.lit(False))

    def done(self, name: str, reader: str) -> None:
        self.seen[f"{name}>{reader}"] = dict(self.content.get(name, {}))

    def write(self, name: str, frame: DataFrame) -> int:
        """Merge a frame and return how many rows it had."""
        table = table_of(name)
        made = [r.asDict() for r in frame.collect()]
        keys = [tuple(r[k] for k in table.key) for r in made]
        assert len(set(keys)) == len(keys), f"{name}: a merge met a key twice"
        target = self.content.setdefault(name, {})
        for key, row in zip(keys, made, strict=True):
            if row.pop("_deleted", False):
                target.pop(key, None)
            else:
                target[key] = row
        return len(made)

    def refresh(
        self,
        features: DataFrame,
        segments: Sequence[Segment],
        as_of: date = DAY,
        run_id: str = "run",
        stop_after: int = 9,
        is_full: bool = False,
        lag: timedelta = timedelta(),
    ) -> list[int]:
        """Run the steps in order; `stop_after` is where a kill strikes. Returns the rows each step wrote."""
        self.runs += 1
        now = at(as_of.year, as_of.month, as_of.day, 6) + lag + timedelta(seconds=self.runs)
        features = features.withColumn("as_of", F.lit(as_of))
        history, event = "gold.customer_segment_history", "gold.customer_segment_event"
        tables = {name: self.read(name) for name in SOURCES}
        changed = {name: self.changes(name, EVALUATION) for name in SOURCES}
        with holding() as hold:
            self.evaluated = self.write(
                EVALUATION,
                evaluate_changed(
                    features,
                    {},
                    tables,
                    changed,
                    self.read(EVALUATION),
                    segments=segments,
                    as_of=as_of,
                    catalogue=FEATURES,
                    hold=hold,
                    is_full=is_full,
                ),
            )
        for name in SOURCES:
            self.done(name, EVALUATION)
        if stop_after < 1:
            return []
        answered = self.read(EVALUATION)
        planned = plan_membership(
            answered,
            answered.withColumn("_deleted", F.lit(False)) if is_full else self.changes(EVALUATION, MEMBERSHIP),
            self.read(PIN),
            self.changes(PIN, MEMBERSHIP),
            self.read(PROMOTION),
            self.changes(PROMOTION, MEMBERSHIP),
            features,
            self.read(MEMBERSHIP),
            segments=segments,
            as_of=as_of,
            run_id=run_id,
            started_at=now,
            is_full=is_full,
        )
        written = [self.write(MEMBERSHIP, planned[MEMBERSHIP])]
        self.write("gold.customer_segment_refresh", planned["gold.customer_segment_refresh"])
        self.done(EVALUATION, MEMBERSHIP)
        self.done(PIN, MEMBERSHIP)
        self.done(PROMOTION, MEMBERSHIP)
        if stop_after < 2:
            return written
        changed = self.changes(MEMBERSHIP, history)
        told = {"run_id": run_id, "started_at": now, "earlier": self.earlier}
        made = record_history(changed, self.read(history), segments=segments, **told)
        self.earlier = Earlier(tuple, {s.segment_id: s.version for s in segments})
        written.append(self.write(history, made))
        self.done(MEMBERSHIP, history)
        if stop_after < 3:
            return written
        written.append(
            self.write("gold.customer_segment_customer", publish_members(self.changes(history, "c"), started_at=now))
        )
        self.done(history, "c")
        if stop_after < 4:
            return written
        stays = [self.changes(history, event), self.changes(GUEST_HISTORY, event)]
        written.append(self.write(event, emit_events(*stays, self.read(event), started_at=now, settings=Settings())))
        self.done(history, event)
        self.done(GUEST_HISTORY, event)
        return written

    def members(self) -> set[tuple[str, int]]:
        """Segment and customer of the published member list."""
        return {(r["segment_id"], r["customer_key"]) for r in self.content["gold.customer_segment_customer"].values()}

    def stays(self) -> set[tuple[Any, ...]]:
        """Stays without run and time of writing."""
        return {
            (r["segment_id"], r["customer_key"], r["entered_on"], r["exited_on"], r["exit_reason"])
            for r in self.content["gold.customer_segment_history"].values()
        }

    def events(self) -> set[tuple[Any, ...]]:
        """Events without run and time of writing."""
        return {
            (r["segment_id"], r["customer_key"], r["event_type"], r["occurred_on"])
            for r in self.content["gold.customer_segment_event"].values()
        }
