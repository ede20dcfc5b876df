"""What the report shows, as plain values: sizes and sums, never a row about one customer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """A number now and as it was on the previous day reported; None is unknown."""

    value: float | None
    previous: float | None = None

    @property
    def change(self) -> float | None:
        """Difference to the previous value; None when either is unknown."""
        return None if self.value is None or self.previous is None else self.value - self.previous

    @property
    def relative(self) -> float | None:
        """Change as a part of the previous value; None when that is unknown or zero."""
        change = self.change
        return None if change is None or not self.previous else change / abs(self.previous)


@dataclass(frozen=True)
class Headline:
    """The shop in a few numbers, over everything before `as_of`.

    Attributes:
        customers: Customers known by number; unknown where features of the day were not made.
        revenue: Net sales, guests included.
        orders: Baskets with a sale.
        basket: Mean net value of a basket.
        known_share: Part of the revenue that known customers brought.
        first_day: First business day with a sale.
        last_day: Last business day with a sale.
    """

    customers: Measure
    revenue: Measure
    orders: Measure
    basket: Measure
    known_share: float | None
    first_day: date
    last_day: date


@dataclass(frozen=True)
class Period:
    """Sales of one calendar month. `is_partial` marks a month the data do not cover to its end."""

    month: date
    revenue: float
    orders: int
    customers: int
    is_partial: bool = False


@dataclass(frozen=True)
class SegmentSize:
    """A segment on `as_of`. Shares are parts of all customers and of their net spend; None is unknown.

    `history` holds the members on the days measured, in order; `since` is the day of `members.previous`.
    """

    segment_id: str
    name: str
    description: str
    members: Measure
    share: float | None
    net_amount: float | None
    value_share: float | None
    entered: int
    exited: int
    status: str = "completed"
    history: tuple[tuple[date, int], ...] = ()
    since: date | None = None


@dataclass(frozen=True)
class Overlap:
    """Two segments by id, how many customers are in both, and what part of those in either that is (Jaccard)."""

    first: str
    second: str
    both: int
    jaccard: float


@dataclass(frozen=True)
class SegmentMove:
    """Customers who left one segment and entered another on `as_of`, by the names of the segments."""

    left: str
    entered: str
    customers: int


@dataclass(frozen=True)
class RfmCell:
    """Customers with one recency and one frequency score, 5 the best, and their mean net spend."""

    recency: int
    frequency: int
    customers: int
    mean_value: float | None
    group: str | None = None


@dataclass(frozen=True)
class RfmGroup:
    """A named group of the RFM grid."""

    name: str
    customers: Measure
    value: float | None


@dataclass(frozen=True)
class Flow:
    """Customers who were in one state on the earlier day and are in another on `as_of`.

    `source` or `target` is None for those who were not customers on that day.
    """

    source: str | None
    target: str | None
    customers: int


@dataclass(frozen=True)
class Movement:
    """Flows between two days."""

    since: date
    flows: tuple[Flow, ...]


@dataclass(frozen=True)
class CohortCell:
    """Of the customers who first bought in the `cohort` month, how many bought `age` months later.

    `is_partial` marks a month that is not over, or that the data do not cover to its end.
    """

    cohort: date
    age: int
    size: int
    customers: int
    is_partial: bool = False


@dataclass(frozen=True)
class ClusterTrait:
    """A feature of a cluster: its mean there, and how far that lies from all customers in standard deviations."""

    feature: str
    mean: float | None
    z_score: float | None


@dataclass(frozen=True)
class Cluster:
    """A cluster found by the model, with what sets it apart."""

    cluster_id: int
    name: str
    description: str
    customers: int
    share: float | None
    value_share: float | None
    traits: tuple[ClusterTrait, ...]


@dataclass(frozen=True)
class MerchantReport:
    """Everything about one retailer, in its currency. `missing` says, per empty section, why it is empty."""

    name: str
    currency: str
    headline: Headline | None = None
    periods: tuple[Period, ...] = ()
    segments: tuple[SegmentSize, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    segment_moves: tuple[SegmentMove, ...] = ()
    rfm_cells: tuple[RfmCell, ...] = ()
    rfm_groups: tuple[RfmGroup, ...] = ()
    movement: Movement | None = None
    cohorts: tuple[CohortCell, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    missing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def trait_names(self) -> tuple[str, ...]:
        """Features the clusters are described by, in the order of the first that names them."""
        return tuple(dict.fromkeys(t.feature for c in self.clusters for t in c.traits))


@dataclass(frozen=True)
class FailedCheck:
    """A quality check that did not pass in the newest run of it. One of severity `warning` stopped nothing."""

    table: str
    check: str
    severity: str
    column: str | None = None
    observed: str | None = None

    @property
    def is_warning(self) -> bool:
        """Whether the table was published all the same."""
        return self.severity == "warning"


@dataclass(frozen=True)
class TableChecks:
    """Checks of one table in the newest run that checked it. `failed` counts those that blocked its publish."""

    table: str
    passed: int
    failed: int
    warnings: int = 0


@dataclass(frozen=True)
class Reconciliation:
    """Whether what was delivered for a retailer equals what was kept, refused and recognised as delivered twice."""

    subject: str
    merchant: str
    delivered: int
    accepted: int
    rejected: int
    duplicates: int
    is_balanced: bool


@dataclass(frozen=True)
class Rejection:
    """Rows refused for one reason. `stage` is where: while parsing, or by a rule of the business."""

    source: str
    stage: Literal["parsing", "rule"]
    reason: str
    rows: int


@dataclass(frozen=True)
class Quality:
    """The state of the data behind the report."""

    tables: tuple[TableChecks, ...] = ()
    failed: tuple[FailedCheck, ...] = ()
    reconciliations: tuple[Reconciliation, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    missing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def checks_passed(self) -> int:
        """Checks that passed over all tables."""
        return sum(t.passed for t in self.tables)

    @property
    def checks_failed(self) -> int:
        """Checks that failed and blocked a publish, over all tables."""
        return sum(t.failed for t in self.tables)

    @property
    def warnings(self) -> int:
        """Checks that failed with a warning, over all tables."""
        return sum(t.warnings for t in self.tables)

    @property
    def checks(self) -> int:
        """All checks over all tables."""
        return self.checks_passed + self.checks_failed + self.warnings


@dataclass(frozen=True)
class StepTiming:
    """One executed step: when it began, counted from the start of the first, and what it wrote."""

    step: str
    layer: str
    begin: float
    seconds: float
    rows_read: int | None
    rows_written: int | None
    rows_rejected: int | None
    status: str


@dataclass(frozen=True)
class SampleNote:
    """A source whose data are made up."""

    source: str
    description: str
    label: str


@dataclass(frozen=True)
class ReportData:
    """One run's report.

    Attributes:
        run_id: Run the report belongs to.
        as_of: Events before this day count.
        previous_as_of: The earlier day compared with; None when this is the first.
        generated_at: When the page was made, UTC.
        merchants: One entry per retailer.
        quality: State of the data.
        steps: Steps this run executed; empty when nothing was new.
        steps_of: Run the steps belong to, when that is an earlier one.
        samples: Ingested sources with made-up data.
        terms: Ingested sources and what their data may be used for.
    """

    run_id: str
    as_of: date
    generated_at: datetime
    merchants: tuple[MerchantReport, ...]
    previous_as_of: date | None = None
    quality: Quality = Quality()
    steps: tuple[StepTiming, ...] = ()
    steps_of: str | None = None
    samples: tuple[SampleNote, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
