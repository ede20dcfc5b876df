"""Questions about segments and the decisions of people: what the `segmentation segments` commands do.

Each function takes an open job, returns what it found and leaves printing to the caller, so that a notebook can ask
the same. What is asked of a `Segment` is asked of one made in Python, too: it is refused where a file would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from jobs.audiences import definitions
from jobs.context import Job, require_retailer
from jobs.segment_status import FAILED_RUN
from lakehouse.declare import table_of
from lakehouse.errors import SettingsError, suggest
from lakehouse.lake import WriteResult
from lakehouse.records import write_rows
from segments.catalogue import CUSTOMERS, FEATURE_TABLES, declared_features
from segments.compile import is_true
from segments.evaluate import add_cuts, join_features
from segments.evaluation import evaluate_changed
from segments.events import EVENTS, SOURCES, VISITS
from segments.guests import build_visitors, preview_guests
from segments.inspect import answer_customers, beaten_segments, flows_between, overlap_segments, preview_segment
from segments.language import Segment, ask_for
from segments.lists import read_lists
from segments.load import DefinitionError, as_read, parse_segments, segment_of_row
from segments.nodes import has_controls, short
from segments.reference import Finding, Happening, Observed, explain
from segments.references import with_referenced
from segments.rules import InSegment, segments_in
from segments.split import split_by_strata
from segments.tell import Membership
from segments.timelines import Asked

NEEDS_REFRESH_AFTER = timedelta(hours=24)


def _folder(job: Job) -> Path:
    return job.settings.conf_dir / "segments"


def _lists(job: Job) -> Mapping[str, frozenset[str]]:
    """Members of the static lists; what is wrong with one is told where definitions are read."""
    return read_lists(_folder(job) / "lists", lambda *_: None)


def find(job: Job, segment_id: str) -> Segment:
    """The definition of a segment.

    Raises:
        SettingsError: There is none, with the closest name.
    """
    known = {s.segment_id: s for s in definitions(job)}
    if segment_id not in known:
        raise SettingsError(f"There is no segment '{segment_id}' in conf/segments.{suggest(segment_id, known)}")
    return known[segment_id]


def asked_for(job: Job, segment_ids: Sequence[str]) -> tuple[str, ...]:
    """Manual segments a refresh is asked for; the others named are refreshed anyway.

    Raises:
        SettingsError: One is not defined, or not active.
    """
    found = [find(job, segment_id) for segment_id in dict.fromkeys(segment_ids)]
    if idle := [s.segment_id for s in found if not s.is_active]:
        raise SettingsError(f"{', '.join(idle)}: not active (is_active: false), so there is nothing to refresh.")
    return tuple(sorted(s.segment_id for s in found if s.refresh_mode == "manual"))


def read_file(job: Job, path: Path) -> Segment:
    """The one definition of a file that is not, or not yet, in `conf/segments`, which takes it on the same terms."""
    content, others = path.read_bytes(), definitions(job)
    found = parse_segments(content, file=path.name, lists=_lists(job), others=others, websites=job.websites)
    if len(found) != 1:
        raise SettingsError(f"{path} holds {len(found)} segments; one is needed here")
    return found[0]


def require_known(job: Job, segment_id: str) -> None:
    """Refuse a segment that neither is defined nor ever was; what is kept of one outlives its definition.

    Raises:
        SettingsError: There never was one, with the closest name.
    """
    known = _published_rows(job).keys() | {s.segment_id for s in definitions(job)}
    if segment_id not in known:
        raise SettingsError(f"There is no segment '{segment_id}', and never was.{suggest(segment_id, sorted(known))}")


@dataclass(frozen=True)
class Published:
    """A definition as it was last published.

    Attributes:
        segment_id: The segment.
        version: The version its members are by; several where a refresh was held back on some of its websites.
        rules: The definition and those it asks for, all as published; none when one of them cannot be told any more.
        is_held: Whether members were kept, of this segment or one it asks for, so that they stand for the definition.
    """

    segment_id: str
    version: str
    rules: tuple[Segment, ...]
    is_held: bool = False


def published(job: Job, segment_id: str) -> Published:
    """The definition as it was last published.

    Raises:
        SettingsError: It never was.
    """
    rows = _published_rows(job)
    if segment_id not in rows:
        raise SettingsError(
            f"'{segment_id}' was never published; `segments preview` shows it alone.{suggest(segment_id, rows)}"
        )
    known = _as_published(job, rows)
    try:
        rules = with_referenced([known[segment_id]], known.values())
    except KeyError:
        rules = ()
    version = rows[segment_id]["version"]
    of_members = _versions_of_members(job, segment_id) or {version}
    has_failed = any(rows[s.segment_id]["refresh_status"] in ("error", "stale") for s in rules)
    is_held = has_failed or of_members != {version}
    return Published(segment_id, ", ".join(sorted(of_members)), () if is_held else rules, is_held)


def _versions_of_members(job: Job, segment_id: str) -> set[str]:
    """What the members of a segment are by, website by website."""
    sizes = job.lake.for_rows(0).read("gold.customer_segment_size").where(F.col("segment_id") == F.lit(segment_id))
    newest = sizes.groupBy("website_id").agg(F.max_by("version", "as_of").alias("version"))
    return {r["version"] for r in newest.collect()}


def published_definitions(job: Job) -> tuple[Segment, ...]:
    """Every definition as last refreshed; none when one that is active cannot be told any more.

    A manual one that the last refresh was asked for is as one that refreshes by itself, for so it was evaluated.
    """
    rows = _published_rows(job)
    known = _as_published(job, rows)
    if any(row["is_active"] and segment_id not in known for segment_id, row in rows.items()):
        return ()
    graded = job.lake.for_rows(0).read("gold.customer_segment_refresh")
    of_last = graded.where(F.col("as_of") == graded.agg(F.max("as_of")).scalar())
    return ask_for(tuple(known.values()), {r[0] for r in of_last.select("segment_id").distinct().collect()})


def _published_rows(job: Job) -> dict[str, Row]:
    return {r["segment_id"]: r for r in job.lake.for_rows(0).read("gold.customer_segment").collect()}


def _as_published(job: Job, rows: Mapping[str, Row]) -> dict[str, Segment]:
    """The definitions rows were made from, without those that cannot be told any more.

    A rule may name a feature that is gone, or a list whose members are others now.
    """
    lists = _lists(job)
    found = {}
    for segment_id, row in rows.items():
        try:
            segment = segment_of_row(row.asDict(), lists=lists)
        except DefinitionError:
            continue
        if segment.version == row["version"]:
            found[segment_id] = segment
    return found


def published_versions(job: Job) -> dict[str, str]:
    """The content hash each segment was last refreshed with, of those whose refresh went well.

    A run that failed before it published says nothing of the refresh before it.
    """

    def went_well(row: Row) -> bool:
        is_told = (row["refresh_message"] or "").startswith(FAILED_RUN)
        return is_told or row["refresh_status"] in ("completed", "processing")

    return {i: r["version"] for i, r in _published_rows(job).items() if went_well(r)}


def newest_day(job: Job) -> date:
    """The newest day with features.

    Raises:
        SettingsError: There is none.
    """
    said = job.settings.as_of
    if isinstance(said, date):
        return said
    newest = job.lake.read("feature.customer").agg(F.max("as_of")).collect()[0][0]
    if newest is None:
        raise SettingsError("There are no features yet; start with: segmentation run")
    return newest  # type: ignore[no-any-return]


def refreshed_day(job: Job) -> date:
    """The day of the last refresh.

    Raises:
        SettingsError: There was none.
    """
    newest = job.segments_are_of()
    if newest is None:
        raise SettingsError("Segments were never refreshed; start with: segmentation segments")
    return newest  # type: ignore[no-any-return]


def published_day(job: Job) -> date:
    """The day of the membership there is, which is all that can be sent or shown; the run's where there was no refresh.

    Raises:
        SettingsError: The run is for another day.
    """
    newest, said = job.segments_are_of(), job.settings.as_of
    if newest is not None and isinstance(said, date) and said != newest:
        raise SettingsError(
            f"--as-of {said}: members here are those of {newest}, and there are no others to send or show. Leave it "
            "out; `segmentation segments --as-of` makes those of a later day, --data-dir a folder for a past one."
        )
    return newest or job.as_of()


def preview(job: Job, segment: Segment) -> list[dict[str, Any]]:
    """What publishing a definition would give, per website.

    See `segments.inspect.preview_segment`, and `segments.guests.preview_guests` for a segment of guests.

    Raises:
        DefinitionError: The segment was made in Python, and something in it is wrong.
    """
    segment, others = _checked(job, segment)
    if segment.entity == "guest":
        events, as_of = job.lake.read(VISITS), newest_day(job)
        sales, placed = job.lake.read("gold.guest_visit"), job.lake.read("gold.customer_segment_guest")
        visitors = build_visitors(events, as_of=as_of)
        shown = preview_guests(sales, visitors, events, placed, segment, as_of=as_of, settings=job.settings)
        return [r.asDict() for r in shown.collect()]
    channels = table_of("silver.consent").column("channel").spec.values
    shown = preview_segment(
        _answered(job, {"is_in": segment}, others),
        job.lake.read("gold.customer_membership"),
        job.lake.read("gold.customer_segment_pin"),
        job.lake.read("silver.consent"),
        segment,
        channels,
    )
    return [r.asDict() for r in shown.collect()]


def sample(job: Job, segment: Segment, count: int) -> list[Any]:
    """Keys of some members, the same ones every time; keys, because a customer number is personal.

    Raises:
        DefinitionError: As of `preview`.
    """
    _of_customers(segment)
    segment, others = _checked(job, segment)
    answered = _answered(job, {"is_in": segment}, others).where("is_in")
    ranked = answered.orderBy(F.xxhash64("customer_key")).limit(count)
    return [(r["website_id"], r["customer_key"]) for r in ranked.select("website_id", "customer_key").collect()]


def split(
    job: Job,
    segment_id: str,
    *,
    salt: str,
    shares: Mapping[str, float],
    strata: Sequence[str] = (),
    assigned: DataFrame | None = None,
) -> DataFrame:
    """The published members of a segment in arms, for a test that no campaign of `conf/campaigns` makes.

    Every group of a website's members that share the values of `strata` is split in proportion.

    Args:
        job: An open job.
        segment_id: The segment.
        salt: Name of the test; another one splits the same customers anew.
        shares: Share per arm, adding up to 1.
        strata: Features of `feature.customer` whose groups are to be balanced, such as `rfm_group`.
        assigned: An earlier answer for the same salt: nobody in it changes arms.

    Returns:
        website_id, customer_key and arm.

    Raises:
        SettingsError: There is no such segment or feature, or the shares do not add up.
    """
    require_known(job, segment_id)
    keys, known = ["website_id", "customer_key"], declared_features(FEATURE_TABLES[:1])
    for name in strata:
        if name not in known or known[name].table != FEATURE_TABLES[0]:
            raise SettingsError(f"'{name}' is not a feature of {FEATURE_TABLES[0]}.{suggest(name, known)}")
    members = job.lake.read("gold.customer_segment_customer").where(F.col("segment_id") == F.lit(segment_id))
    today = job.lake.read(FEATURE_TABLES[0]).where(F.col("as_of") == F.lit(newest_day(job)))
    described = today.select(F.col("merchant_id").alias("website_id"), "customer_key", *strata)
    # One row per customer on the right, none for who has no features: such members are a group of their own.
    customers = members.select(*keys).join(described, on=keys, how="left")
    nobody = members.select(*keys, F.lit("").alias("arm")).limit(0)
    return split_by_strata(
        customers, nobody if assigned is None else assigned, keys=keys, strata=["website_id", *strata], salt=salt,
        shares=shares,
    )  # fmt: skip


def diff(job: Job, now: Segment, then: Published) -> list[dict[str, Any]]:
    """Customers per website who are in by both, only by the one, or only by the other definition.

    Nobody is in by an inactive one. Each asks for other segments as they are, or were, defined beside it. Where the
    published definition cannot be told any more, or a refresh was held back, its published members stand for it.

    Raises:
        DefinitionError: As of `preview`, of the definition now.
    """
    _of_customers(now)
    now, others = _checked(job, now)
    keys = ["website_id", "customer_key"]
    in_by_now = F.col("is_now") & F.lit(now.is_active)
    answered = _answered(job, {"is_now": now}, others).select(*keys, in_by_now.alias("is_now"))
    if then.rules:
        (before,) = (s for s in then.rules if s.segment_id == then.segment_id)
        _of_customers(before)
        in_by_then = F.col("was_then") & F.lit(before.is_active)
        was = _answered(job, {"was_then": before}, then.rules).select(*keys, in_by_then.alias("was_then"))
    else:
        is_member = F.array_contains("segment_ids", F.lit(then.segment_id))
        was = job.lake.read("gold.customer_membership").select(*keys, is_member.alias("was_then"))
    both = answered.join(was, on=keys, how="full_outer")  # one row per customer on either side
    is_now, was_then = is_true(F.col("is_now")), is_true(F.col("was_then"))
    counted = both.groupBy("website_id").agg(
        F.count_if(is_now & ~was_then).alias("entering"),
        F.count_if(~is_now & was_then).alias("leaving"),
        F.count_if(is_now & was_then).alias("staying"),
    )
    return [r.asDict() for r in counted.orderBy("website_id").collect()]


def overlap(job: Job) -> list[dict[str, Any]]:
    """Pairs of segments with members in common, the most alike first; see `segments.inspect.overlap_segments`."""
    alike = overlap_segments(job.lake.read("gold.customer_membership"))
    ordered = alike.orderBy(F.desc("jaccard"), "website_id", "segment_a", "segment_b")
    return [r.asDict() for r in ordered.collect()]


def beaten(job: Job) -> list[dict[str, Any]]:
    """Which segment is the primary one of members of which, the most first; see `segments.inspect.beaten_segments`."""
    lost = beaten_segments(job.lake.read("gold.customer_membership"))
    ordered = lost.orderBy(F.desc("members"), "website_id", "segment_id", "primary_segment_id")
    return [r.asDict() for r in ordered.collect()]


def flows(job: Job, day: date | None = None) -> list[dict[str, Any]]:
    """Customers who left one segment and entered another on the same day, over all days or on one, the most first.

    Returns:
        website_id, left, entered, customers; see `segments.inspect.flows_between`.
    """
    moves = flows_between(job.lake.read("gold.customer_segment_history"))
    if day is not None:
        moves = moves.where(F.col("day") == F.lit(day))
    summed = moves.groupBy("website_id", "left", "entered").agg(F.sum("customers").alias("customers"))
    return [r.asDict() for r in summed.orderBy(F.desc("customers"), "website_id", "left", "entered").collect()]


def explain_customer(job: Job, customer_id: str, segment: Segment, website_id: str | None = None) -> Finding:
    """Why a customer is in a segment or not, on the job's day, with the value observed at every node.

    Raises:
        SettingsError: The customer is not known on that day, or is known to several websites.
        DefinitionError: As of `preview`.
    """
    _of_customers(segment)
    segment, others = _checked(job, segment)
    lake, as_of, catalogue = job.lake, newest_day(job), declared_features()
    customer_key = _known(job, customer_id, website_id)["customer_key"]
    needed = with_referenced([segment], others)
    rules = [s.rule for s in needed]
    joined = join_features(lake.read("feature.customer"), _more_features(job), needed, as_of=as_of, catalogue=catalogue)
    present, names = add_cuts(joined, rules)
    row = present.where(F.col("customer_key") == F.lit(customer_key)).collect()[0].asDict()
    observed = Observed(
        as_of,
        catalogue,
        row,
        _happenings(job, sorted(Asked.by(rules).events), row["customer_key"]),
        row["merchant_id"],
        customer_id,
        cuts={c: row[name] for c, name in names.cuts.items()},
        segments={s.segment_id: s for s in needed},
    )
    return explain(InSegment(segment.segment_id), observed)


def membership_of(job: Job, customer_id: str, segment: Segment, website_id: str | None = None) -> Membership:
    """What is published of a customer in a segment, which may differ from what the rule says of them.

    Customers are in a segment of guests as visitors who logged in, whatever their features.

    Raises:
        SettingsError: As of `explain_customer`.
    """
    is_guest = segment.entity == "guest"
    lake, customer = job.lake.for_rows(0), _known(job, customer_id, website_id, of_guests=is_guest)
    of_segment = F.col("segment_id") == F.lit(segment.segment_id)
    mine = of_segment & (F.col("customer_key") == F.lit(customer["customer_key"]))
    here = of_segment & (F.col("website_id") == F.lit(customer["merchant_id"]))
    stays = lake.read("gold.customer_segment_customer").where(mine).select("added_on").collect()
    pins = lake.read("gold.customer_segment_pin").where(mine).select("is_in", "pinned_at", "note").collect()
    visitors = lake.read("gold.customer_segment_promotion").where(mine).count() if is_guest else None
    refreshes = lake.read("gold.customer_segment_refresh").where(here).orderBy(F.desc("as_of")).limit(1).collect()
    return Membership(
        since=stays[0]["added_on"] if stays else None,
        is_pinned_in=pins[0]["is_in"] if pins else None,
        pinned_on=pins[0]["pinned_at"].date() if pins else None,
        note=pins[0]["note"] if pins else None,
        refreshed_for=refreshes[0]["as_of"] if refreshes else None,
        held=refreshes[0]["message"] if refreshes else None,
        visitors=visitors,
    )


def _known(job: Job, customer_id: str, website_id: str | None, *, of_guests: bool = False) -> Row:
    """merchant_id and customer_key of a customer who has features on the job's day, or of guests may have none."""
    if of_guests:
        known = job.lake.read("gold.customer_membership").withColumnRenamed("website_id", "merchant_id")
        lacks = "was never evaluated; segmentation segments does"
    else:
        as_of = newest_day(job)
        known = job.lake.read("feature.customer").where(F.col("as_of") == F.lit(as_of))
        lacks = f"has no features on {as_of}; days kept are those of feature.customer"

    def of_number(frame: DataFrame) -> list[Row]:
        wanted = F.col("customer_id") == F.lit(customer_id)
        if website_id is not None:
            wanted = wanted & (F.col("merchant_id") == F.lit(website_id))
        return frame.where(wanted).select("merchant_id", "customer_key").distinct().limit(2).collect()

    found = of_number(known)
    if len(found) > 1:
        raise SettingsError("Several websites know this customer number; say which with --website.")
    if found:
        return found[0]
    if website_id is not None:
        require_retailer(job, website_id)
    if of_number(job.lake.read("gold.dim_customer")):
        raise SettingsError(f"The customer {lacks}.")
    where = f" at '{website_id}'" if website_id is not None else ""
    raise SettingsError(f"No customer has this number{where}, as written, capitals included.")


def states(job: Job, now: datetime) -> list[dict[str, Any]]:
    """Every published segment with its state, its age in hours and whether it needs a refresh.

    Active ones that refresh by themselves need one after `NEEDS_REFRESH_AFTER`, or when they never had one.
    """
    rows = [r.asDict() for r in job.lake.read("gold.customer_segment").orderBy("priority", "segment_id").collect()]
    for r in rows:
        last = r["last_refresh_at"]
        age = None if last is None else now.astimezone(UTC).replace(tzinfo=None) - last
        r["age_hours"] = None if age is None else age.total_seconds() / 3600
        is_due = age is None or age > NEEDS_REFRESH_AFTER
        r["needs_refresh"] = r["is_active"] and r["refresh_mode"] == "auto" and is_due
    return rows


def pin(
    job: Job, segment: Segment, customer_id: str, website_id: str, *, is_in: bool, note: str | None = None
) -> WriteResult:
    """Put a customer into a segment, or keep them out; the next refresh follows.

    Raises:
        SettingsError: The website does not know the customer, or the note is not one line of plain text.
    """
    _of_customers(segment)
    if note is not None and has_controls(note):
        raise SettingsError(
            f"The note '{short(note)}' has a line break or another control or invisible character; leave it out."
        )
    known = job.lake.read("gold.customer_evaluation")
    keys = {"segment_id": segment.segment_id} | _customer(known, customer_id, website_id)
    row = {**keys, "customer_id": customer_id, "is_in": is_in, "note": note, "pinned_at": job.run.started_at}
    return write_rows(job.lake, _PINS, [row])


def unpin(job: Job, segment_id: str, customer_id: str, website_id: str) -> WriteResult:
    """Leave a customer to the rule again; the next refresh follows. A pin outlives its segment and its customer.

    Returns:
        What was written; no row where there was no pin to take away.

    Raises:
        SettingsError: There never was such a segment, or the website does not know the customer.
    """
    require_known(job, segment_id)
    pins, known = job.lake.read(_PINS), job.lake.read("gold.customer_evaluation")
    both = pins.select(*_WHO).unionAll(known.select(*_WHO))
    keys = {"segment_id": segment_id} | _customer(both, customer_id, website_id)
    return job.lake.write(_PINS, job.lake.frame(_PINS, [keys]).withColumn("_deleted", F.lit(True)))


_PINS = "gold.customer_segment_pin"
_WHO = ("website_id", "customer_id", "customer_key")


def _customer(known: DataFrame, customer_id: str, website_id: str) -> dict[str, Any]:
    """The key of a customer by number."""
    is_customer = (F.col("website_id") == F.lit(website_id)) & (F.col("customer_id") == F.lit(customer_id))
    found = known.where(is_customer).select("website_id", "customer_key").limit(1).collect()
    if not found:
        raise SettingsError(f"'{website_id}' has no evaluated customer of this number.")
    return dict(found[0].asDict())


def refreshed_definitions(job: Job) -> tuple[tuple[Segment, ...], tuple[str, ...]]:
    """The definitions the last refresh was made with, and the segments whose definition then cannot be told any more.

    A definition may have been edited since, and one that was held back is not the published one.
    """
    as_of = F.lit(refreshed_day(job))
    rows = _published_rows(job)
    then = {i: r["version"] for i, r in rows.items()}
    graded = job.lake.for_rows(0).read("gold.customer_segment_refresh").where(F.col("as_of") == as_of)
    # Those a limit held back were evaluated all the same, which their published definition does not show.
    then |= {r["segment_id"]: r["version"] for r in graded.select("segment_id", "version").collect() if r[0] in rows}
    was = _as_published(job, rows)
    now = {s.segment_id: s for s in definitions(job)}
    found, lost = {}, set()
    for segment_id, version in then.items():
        known = (was.get(segment_id), now.get(segment_id))
        fitting = [s for s in known if s is not None and s.version == version]
        if fitting:
            found[segment_id] = replace(fitting[0], is_active=rows[segment_id]["is_active"])
        else:
            lost.add(segment_id)
    # Who asks for one that cannot be told, or is not active, cannot be answered either.
    while missing := {
        i
        for i, s in found.items()
        if s.is_active and any(a not in found or not found[a].is_active for a in segments_in(s.rule))
    }:
        lost |= missing
        found = {i: s for i, s in found.items() if i not in missing}
    return tuple(found.values()), tuple(sorted(i for i in lost if rows[i]["is_active"]))


def sizes_of(job: Job, segment_id: str) -> list[dict[str, Any]]:
    """Size and movement of a segment per website and day, the oldest first; of guests, on days somebody came or went.

    Returns:
        website_id, as_of, version, members, entered, exited.
    """
    mine = F.col("segment_id") == F.lit(segment_id)
    sizes = job.lake.read("gold.customer_segment_size").where(mine).orderBy("website_id", "as_of")
    if found := [r.asDict() for r in sizes.collect()]:
        return found
    stays = job.lake.read(GUEST_STAYS).where(mine)
    moves = [
        stays.where(F.col(day).isNotNull()).select(
            "website_id", F.col(day).alias("as_of"), F.col(version).alias("version"), F.lit(way).alias("way")
        )
        for day, version, way in (("entered_on", "entry_version", "entered"), ("exited_on", "exit_version", "exited"))
    ]
    counted = moves[0].unionByName(moves[1]).groupBy("website_id", "as_of")
    days = counted.agg(
        F.max("version").alias("version"),
        F.count_if(F.col("way") == F.lit("entered")).alias("entered"),
        F.count_if(F.col("way") == F.lit("exited")).alias("exited"),
    )
    members: dict[str, int] = {}
    for r in days.orderBy("website_id", "as_of").collect():
        members[r["website_id"]] = members.get(r["website_id"], 0) + r["entered"] - r["exited"]
        found.append(r.asDict() | {"members": members[r["website_id"]], "version": r["version"] or ""})
    return found


def reasons_of_exits(job: Job, segment_id: str) -> list[tuple[int, str, str]]:
    """How many left a segment, why, and by which conditions: the most frequent ten."""
    has_left = (F.col("segment_id") == F.lit(segment_id)) & F.col("exited_on").isNotNull()
    of_guests = job.lake.read(GUEST_STAYS).withColumn("exit_detail", F.lit(None).cast("string"))
    stays = [frame.where(has_left) for frame in (job.lake.read("gold.customer_segment_history"), of_guests)]
    told = stays[0].select(*_WHY).unionByName(stays[1].select(*_WHY))
    counted = told.groupBy(*_WHY).count().orderBy(F.desc("count"), *_WHY).limit(10)
    return [(r["count"], r["exit_reason"], r["exit_detail"] or "") for r in counted.collect()]


GUEST_STAYS = "gold.customer_segment_guest_history"
_WHY = ("exit_reason", "exit_detail")


def find_drift(job: Job) -> DataFrame:
    """One row per website and segment whose kept answers differ from answers made from nothing.

    Both are of the day of the last refresh, and by the definitions it was made with; a segment whose definition then
    cannot be told any more is left out, see `refreshed_definitions`. There must be no row, unless something was
    delivered since.

    Returns:
        website_id, segment_id, customers.
    """
    lake = job.lake
    kept = lake.read("gold.customer_evaluation")
    tables = {name: lake.read(name) for name in SOURCES}
    nothing = {name: lake.empty(name).withColumn("_deleted", F.lit(False)) for name in SOURCES}
    segments, lost = refreshed_definitions(job)
    # Answers of these are made only in a refresh that asks for them.
    manual = [s.segment_id for s in segments if s.refresh_mode == "manual"]
    whole = evaluate_changed(
        lake.read("feature.customer"),
        _more_features(job),
        tables,
        nothing,
        lake.empty("gold.customer_evaluation"),
        segments=segments,
        as_of=refreshed_day(job),
        catalogue=declared_features(),
        is_full=True,
    )
    keys = ["website_id", "customer_key"]
    fresh = whole.select(*keys, F.col("segment_ids").alias("_fresh"))
    both = kept.select(*keys, F.col("segment_ids").alias("_kept")).join(fresh, on=keys, how="full_outer")
    none = F.array().cast("array<string>")
    one, other = F.coalesce("_kept", none), F.coalesce("_fresh", none)
    moved = F.array_union(F.array_except(one, other), F.array_except(other, one))
    return (
        both.select("website_id", F.explode(moved).alias("segment_id"))
        .where(~F.col("segment_id").isin([*manual, *lost]))
        .groupBy("website_id", "segment_id")
        .agg(F.count(F.lit(1)).alias("customers"))
    )


def reconcile(job: Job) -> list[dict[str, Any]]:
    """Compare what was carried over with everyone evaluated from nothing, and record the drift; see `find_drift`."""
    found = [r.asDict() for r in find_drift(job).collect()]
    as_of, at = refreshed_day(job), job.run.started_at
    base = {"run_id": job.run.run_id, "as_of": as_of, "checked_at": at}
    none = [{"website_id": "*", "segment_id": "*", "customers": 0}]
    write_rows(job.lake, "gold.customer_segment_drift", [base | r for r in found or none])
    return found


def unprocessed_events(job: Job, segment_id: str | None = None) -> DataFrame:
    """Entries and exits nobody has acted on yet: rows of `gold.customer_segment_event`, oldest first."""
    found = job.lake.read(EVENT_TABLE).where(~F.col("is_processed"))
    if segment_id is not None:
        found = found.where(F.col("segment_id") == F.lit(segment_id))
    return found.orderBy("created_at", "event_id")


def mark_processed(job: Job, events: DataFrame) -> WriteResult:
    """Note that events have been acted on; `maintain` then removes them when they are old enough.

    Args:
        job: A job that holds the lakehouse.
        events: Rows of `gold.customer_segment_event`; marked again, nothing changes.
    """
    return job.lake.write(EVENT_TABLE, events.withColumn("is_processed", F.lit(True)))


EVENT_TABLE = "gold.customer_segment_event"


def _of_customers(segment: Segment) -> None:
    if segment.entity != "customer":
        raise SettingsError(
            f"'{segment.segment_id}' is made of guests, and this is asked of customers; `segments preview` takes both."
        )


def _more_features(job: Job) -> dict[str, DataFrame]:
    return {name: job.lake.read(name) for name in (*FEATURE_TABLES, CUSTOMERS) if name != "feature.customer"}


def _checked(job: Job, segment: Segment) -> tuple[Segment, tuple[Segment, ...]]:
    """A segment as a file would give it, and the definitions its rule may ask for; one of these is right already.

    Raises:
        DefinitionError: The file would be refused.
    """
    others = definitions(job)
    return segment if segment in others else as_read(segment, others=others, websites=job.websites), others


def _answered(job: Job, segments: Mapping[str, Segment], others: Sequence[Segment]) -> DataFrame:
    """See `segments.inspect.answer_customers`.

    Raises:
        SettingsError: The job's day has no features.
    """
    lake, as_of = job.lake, newest_day(job)
    if not lake.read("feature.customer").where(F.col("as_of") == F.lit(as_of)).limit(1).collect():
        raise SettingsError(f"There are no features of {as_of}; days kept are those of feature.customer.")
    return answer_customers(
        lake.read("feature.customer"),
        _more_features(job),
        {name: lake.read(name) for name in SOURCES},
        segments,
        others=others,
        as_of=as_of,
        catalogue=declared_features(),
    )


def _happenings(job: Job, events: Sequence[str], customer_key: int) -> list[Happening]:
    tables = {name: job.lake.read(name) for name in SOURCES}
    facts = SOURCES[0]
    tables[facts] = tables[facts].where(F.col("customer_key") == F.lit(customer_key))
    found = []
    for name in events:
        own = EVENTS[name].build(tables).where(F.col("customer_key") == F.lit(customer_key))
        for r in own.collect():
            fields = r.asDict()
            found.append(Happening(name, fields["at"], fields["day"], fields, fields.get("known_on")))
    return found
