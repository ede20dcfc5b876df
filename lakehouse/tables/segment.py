"""Segments: definitions, current membership, its history and events, and sizes over time.

`website_id` is the retailer (`merchant_id` elsewhere). `gold.customer_evaluation` holds what the rules say of each
customer, `gold.customer_membership` what is published of it: the one truth. History is made from its changes, and the
member list, the events and the sizes from history, so a run that dies between two writes is completed by the next.
Producers that compare with what is published read their own table.
"""

from __future__ import annotations

from typing import Any

from lakehouse.columns import Pii, bigint, column, day, double, feature, flag, instant, integer, money, text
from lakehouse.declare import Merge, Replace, ReplaceSlice, changes, table

ENTRY_REASONS = ("rule_true", "pinned", "promoted")
EXIT_REASONS = ("rule_not_true", "definition_changed", "segment_inactive", "customer_absent", "barred")
GUEST_EXIT_REASONS = ("rule_not_true", "definition_changed", "segment_inactive", "visitor_absent", "logged_in")
REFRESH_STATUSES = ("pending", "processing", "completed", "stale", "error")
REFRESH_OUTCOMES = ("completed", "stale", "error")
_VISITS = "silver.visitor_event"


@table(
    "gold.customer_evaluation",
    comment="One row per customer: the segments whose rule is true, and when the rules must be asked again.",
    kind=Merge(),
    key=("website_id", "customer_key"),
    producer="segments.evaluation:evaluate_customers",
    reads=(
        "feature.customer",
        "feature.customer_cluster",
        "feature.customer_outlook",
        "feature.customer_audience",
        "gold.dim_customer",
        "gold.fact_transactions",
        "gold.dim_product",
        "silver.campaign",
        "silver.campaign_contact",
        "silver.coupon_redemption",
        "silver.visitor_event",
        changes("gold.fact_transactions", also_before=True),
        changes("gold.dim_product"),
        changes("silver.campaign"),
        changes("silver.campaign_contact"),
        changes("silver.coupon_redemption"),
        changes("silver.visitor_event", also_before=True),
        "gold.customer_evaluation",
    ),
    cluster_by=("customer_key",),
    change_feed=True,
    owner="crm-data",
)
class CustomerEvaluation:
    website_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    segment_ids = column("array<string>", "Segments whose rule is true, in alphabetical order; empty when none.")
    answers = text("A character per condition of `definitions`, in their order: 1 true, 0 false, ? unknown.")
    signature = bigint("xxhash64 of the answers to conditions on features; another one means: evaluate again.")
    definitions = text("Content hash of all definitions the customer was evaluated with, and of the windows they have.")
    evaluated_on = day("`as_of` of the evaluation.")
    recheck_on = day(
        "First `as_of` on which an event comes into a window of a rule or leaves one; null when none will.",
        optional=True,
    )
    reasons = column(
        "map<string,string>",
        "Per segment whose rule became or ceased to be true: the conditions that changed.",
        optional=True,
    )


@table(
    "gold.customer_segment_pin",
    comment="One row per customer whom a person put into a segment, or keeps out of it, whatever the rule says.",
    kind=Merge(),
    key=("segment_id", "website_id", "customer_key"),
    producer="jobs.segments:pin",
    by_runtime=True,
    change_feed=True,
    owner="crm-data",
)
class CustomerSegmentPin:
    segment_id = text("Segment.")
    website_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    is_in = flag("True puts the customer in, false keeps them out.")
    note = text("Why, for whoever finds it later.", optional=True)
    pinned_at = instant("When, UTC.")


@table(
    "gold.customer_membership",
    comment="One row per customer: the segments they are in now, and the one that counts when only one may.",
    kind=Merge(),
    key=("website_id", "customer_key"),
    producer="segments.membership:plan_membership",
    reads=(
        "gold.customer_evaluation",
        changes("gold.customer_evaluation"),
        "gold.customer_segment_pin",
        changes("gold.customer_segment_pin"),
        "gold.customer_segment_promotion",
        changes("gold.customer_segment_promotion"),
        "feature.customer",
        "gold.customer_membership",
    ),
    cluster_by=("customer_key",),
    change_feed=True,
    owner="crm-data",
)
class CustomerMembership:
    website_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    segment_ids = column("array<string>", "Segments whose rule is true, in alphabetical order; empty when none.")
    primary_segment_id = text("The matched segment of highest priority; null when in none.", optional=True)
    is_present = flag(
        "False while a customer has no features; they are then only in guest segments, as who logged in, and in "
        "segments whose members a limit of change kept."
    )
    changed_on = day("`as_of` of the evaluation that last changed this row.")
    reasons = column(
        "map<string,string>",
        "Per segment entered or left with this change: the conditions that changed, or a person's pin.",
        optional=True,
    )
    run_id = text("Run that last changed this row.")
    updated_at = instant("When, UTC.")


@table(
    "gold.customer_segment_refresh",
    comment="One row per active segment, website and `as_of`: what the evaluation found and whether it was published.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("segment_id", "website_id", "as_of"),
    producer="segments.membership:plan_membership",
    reads=(
        "gold.customer_evaluation",
        changes("gold.customer_evaluation"),
        "gold.customer_segment_pin",
        changes("gold.customer_segment_pin"),
        "gold.customer_segment_promotion",
        changes("gold.customer_segment_promotion"),
        "feature.customer",
        "gold.customer_membership",
    ),
    owner="crm-data",
)
class CustomerSegmentRefresh:
    segment_id = text("Segment.")
    website_id = text("Retailer.")
    as_of = day("Day evaluated for, exclusive edge.")
    version = text("Content hash of the definition evaluated.")
    evaluated_count = bigint("Customers looked at: evaluated again in this refresh, or pinned.")
    entered_count = bigint("Of them, those who would enter.")
    exited_count = bigint("Of them, those who would leave.")
    refresh_status = text(
        "completed; error when too much would change, stale when the day has no features: the last good membership "
        "was kept.",
        values=REFRESH_OUTCOMES,
    )
    message = text("Why the last good membership was kept.", optional=True)


@table(
    "gold.customer_segment_history",
    comment="One row per stay of a customer in a segment, half-open [entered_on, exited_on); null exit = still in.",
    kind=Merge(),
    key=("segment_id", "website_id", "customer_key", "entered_on", "entered_at"),
    producer="segments.history:record_history",
    reads=(changes("gold.customer_membership"), "gold.customer_segment_history"),
    cluster_by=("customer_key",),
    change_feed=True,
    checks={"stay_runs_forward": "exited_on IS NULL OR exited_on >= entered_on"},
    retention_days=1095,
    owner="crm-data",
)
class CustomerSegmentHistory:
    segment_id = text("Segment.")
    website_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    entered_on = day("`as_of` of the evaluation that found the customer in.")
    exited_on = day("`as_of` of the evaluation that found the customer out; null while in.", optional=True)
    entered_at = instant("When the entry was recorded, UTC.")
    exited_at = instant("When the exit was recorded, UTC; null while in.", optional=True)
    entry_version = text("Content hash of the definition that let the customer in.")
    exit_version = text(
        "Content hash of the definition that put the customer out; null while in or when the segment "
        "is no longer active.",
        optional=True,
    )
    entry_reason = text("Why the stay began.", values=ENTRY_REASONS)
    exit_reason = text("Why the stay ended; null while in.", optional=True, values=EXIT_REASONS)
    entry_detail = text("Conditions, or the pin, that changed when the stay began, where known.", optional=True)
    exit_detail = text("Conditions, or the pin, that changed when it ended, where known.", optional=True)
    entry_run_id = text("Run that recorded the entry.")
    exit_run_id = text("Run that recorded the exit; null while in.", optional=True)


@table(
    "gold.customer_segment_customer",
    comment="One row per segment and customer in it now.",
    kind=Merge(),
    key=("segment_id", "website_id", "customer_key"),
    producer="segments.history:publish_members",
    reads=(changes("gold.customer_segment_history"),),
    cluster_by=("segment_id",),
    owner="crm-data",
)
class CustomerSegmentCustomer:
    segment_id = text("Segment.", references="gold.customer_segment.segment_id")
    website_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    added_on = day("`as_of` the stay began with.")
    version = text("Content hash of the definition that let the customer in.")
    added_at = instant("When the entry was recorded, UTC.")
    updated_at = instant("When this row was last written, UTC.")


@table(
    "gold.customer_segment_event",
    comment="One row per entry into or exit from a segment, for whatever acts on them.",
    kind=Merge(),
    key=("event_id",),
    producer="segments.history:emit_events",
    reads=(
        changes("gold.customer_segment_history"),
        changes("gold.customer_segment_guest_history"),
        "gold.customer_segment_event",
    ),
    retention_days=30,
    owner="crm-data",
)
class CustomerSegmentEvent:
    event_id = bigint("xxhash64 of segment, website, customer or visitor, event type, day, and when it was recorded.")
    segment_id = text("Segment.")
    website_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id); null for a guest.", optional=True)
    customer_id = text("Customer number; null for a guest.", optional=True, pii=Pii.IDENTIFIER)
    visitor_id = text("Visitor, for guests; null for a customer.", optional=True, pii=Pii.IDENTIFIER)
    event_type = text("What happened.", values=("segment_entered", "segment_exited"))
    event_data = text("JSON: definition version, reason, run.")
    occurred_on = day("`as_of` the entry or exit was found with.")
    created_at = instant("When it was recorded, UTC.")
    is_processed = flag("Set by whoever has acted on the event.")


@table(
    "gold.customer_segment_size",
    comment="One row per segment, website and `as_of`: size, share, value and movement; the series behind trends.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("segment_id", "website_id", "as_of"),
    producer="segments.definitions:measure_segments",
    reads=(
        "gold.customer_membership",
        "feature.customer",
        "gold.customer_segment_history",
        "gold.customer_segment_refresh",
        "gold.customer_segment_size",
    ),
    owner="crm-data",
)
class CustomerSegmentSize:
    segment_id = text("Segment.")
    website_id = text("Retailer.")
    as_of = day("Day measured, exclusive edge.")
    version = text("Content hash of the definition the members are by: that of the last refresh that published.")
    customers = bigint("Customers of the website with features that day.")
    members = bigint("Customers in the segment.")
    share = double("members / customers.", optional=True)
    primary_members = bigint("Members whose primary segment it is.")
    net_amount = money(
        "Net spend of the members over all time before `as_of`, merchant currency; null when unknown.", optional=True
    )
    value_share = double(
        "Members' part of the net spend of all customers; null when that is not positive.", optional=True
    )
    entered = bigint("Stays that began with this `as_of`.")
    exited = bigint("Stays that ended with this `as_of`.")


@table(
    "gold.guest_visit",
    comment="One row per visit of a guest: a sale without a customer. A guest who buys again is another.",
    kind=Merge(),
    key=("merchant_id", "visitor_id"),
    producer="segments.guests:build_guest_visits",
    reads=(changes("gold.fact_transactions", also_before=True), "gold.fact_transactions", "gold.guest_visit"),
    owner="crm-data",
)
class GuestVisit:
    merchant_id = text("Retailer.")
    visitor_id = text(
        "SHA-256 of merchant, the word sale and basket, hex: a sale without a customer names no one, joins nothing.",
        pii=Pii.IDENTIFIER,
    )
    basket_id = text("The sale: receipt or invoice number.")
    bought_at = instant("First line of the sale, UTC.")
    bought_on = feature("date", "Day of the sale.", family="guests", unit="business day", optional=False)
    channel_id = feature("string", "Channel of the sale.", family="guests", unit="name", optional=False)
    store_id = feature("string", "Store of the sale.", family="guests", unit="store number")
    lines = feature("bigint", "Lines bought.", family="guests", unit="lines", optional=False)
    net_amount = feature(
        "decimal(18,2)",
        "Net value of the sale, less what came back.",
        family="guests",
        unit="merchant currency",
        optional=False,
    )


@table(
    "gold.visitor",
    comment="One row per visitor of a web shop seen before the day of the run: visits, and who they turned out to be.",
    kind=Replace(),
    key=("merchant_id", "visitor_id"),
    producer="segments.guests:build_visitors",
    reads=("silver.visitor_event",),
    owner="crm-data",
)
class Visitor:
    merchant_id = text("Retailer.")
    visitor_id = text("SHA-256 of merchant and delivered visitor number, hex.", pii=Pii.IDENTIFIER)
    first_visit_at = instant("First event, UTC.")
    last_visit_at = instant("Last event, UTC.")
    first_visit_on = feature(
        "date", "Day of the first event.", family="guests", unit="business day", source=_VISITS, optional=False
    )
    last_visit_on = feature(
        "date", "Day of the last event.", family="guests", unit="business day", source=_VISITS, optional=False
    )
    visits = feature("bigint", "Visits.", family="guests", unit="visits", source=_VISITS, optional=False)
    page_views = feature("bigint", "Pages viewed.", family="guests", unit="pages", source=_VISITS, optional=False)
    has_email = feature(
        "boolean", "Whether the visitor left an address.", family="guests", unit="flag", source=_VISITS, optional=False
    )
    email = text("The address left last, lower case.", optional=True, pii=Pii.CONTACT)
    customer_key = bigint("xxhash64(merchant_id, customer_id) of the last login; null before any.", optional=True)
    customer_id = text("Customer of the last login; null before any.", optional=True, pii=Pii.IDENTIFIER)
    is_sample = flag("True when it comes from a labelled sample feed.")


_GUESTS: dict[str, Any] = {
    "producer": "segments.guests:place_guests",
    "reads": (
        "gold.guest_visit",
        "gold.visitor",
        "silver.visitor_event",
        "gold.customer_segment_guest",
        "gold.customer_segment_guest_history",
        "gold.customer_segment_promotion",
    ),
    "owner": "crm-data",
}


@table(
    "gold.customer_segment_guest",
    comment="One row per guest and guest segment they are in; a guest who logs in goes on as a customer.",
    kind=Merge(),
    key=("visitor_id", "segment_id"),
    cluster_by=("segment_id",),
    retention_days=180,
    ages_by="data",
    **_GUESTS,
)
class CustomerSegmentGuest:
    visitor_id = text("Guest; see gold.visitor and gold.guest_visit.", pii=Pii.IDENTIFIER)
    segment_id = text("Segment.", references="gold.customer_segment.segment_id")
    website_id = text("Retailer.")
    email = text("Address, when the visitor left one.", optional=True, pii=Pii.CONTACT)
    first_visit_at = instant("First time seen, UTC.")
    last_visit_at = instant("Last time seen, UTC.")
    page_views = bigint("Pages viewed; null for a guest known from a sale alone.", optional=True)
    is_sample = flag("True when the visits come from a labelled sample feed.", optional=True)
    version = text("Content hash of the definition.")
    added_on = day("`as_of` of the evaluation that found the guest in.")


@table(
    "gold.customer_segment_guest_history",
    comment="One row per stay of a guest in a guest segment, half-open [entered_on, exited_on); null exit = still in.",
    kind=Merge(),
    key=("segment_id", "visitor_id", "entered_on", "entered_at"),
    cluster_by=("visitor_id",),
    change_feed=True,
    checks={"stay_runs_forward": "exited_on IS NULL OR exited_on >= entered_on"},
    retention_days=1095,
    **_GUESTS,
)
class CustomerSegmentGuestHistory:
    segment_id = text("Segment.")
    website_id = text("Retailer.")
    visitor_id = text("Guest.", pii=Pii.IDENTIFIER)
    customer_key = bigint(
        "Whom a login showed the visitor to be, also for stays before it; null so far.", optional=True
    )
    customer_id = text("Their customer number.", optional=True, pii=Pii.IDENTIFIER)
    entered_on = day("`as_of` of the evaluation that found the guest in.")
    exited_on = day("`as_of` of the evaluation that found the guest out; null while in.", optional=True)
    entry_version = text("Content hash of the definition that let the guest in.")
    exit_version = text(
        "Content hash of the definition at the exit; null while in or when the segment is no longer active.",
        optional=True,
    )
    exit_reason = text(
        "Why the stay ended; logged_in: the customer goes on in the guest's place.",
        optional=True,
        values=GUEST_EXIT_REASONS,
    )
    entry_run_id = text("Run that recorded the entry.")
    exit_run_id = text("Run that recorded the exit; null while in.", optional=True)
    entered_at = instant("When the entry was recorded, UTC.")
    exited_at = instant("When the exit was recorded, UTC; null while in.", optional=True)


@table(
    "gold.customer_segment_promotion",
    comment="One row per guest segment and visitor who logged in, while its rule is true of them: the customer is in.",
    kind=Merge(),
    key=("segment_id", "website_id", "customer_key", "visitor_id"),
    change_feed=True,
    **_GUESTS,
)
class CustomerSegmentPromotion:
    segment_id = text("Guest segment.")
    website_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    visitor_id = text("Visitor whose last login is the customer's.", pii=Pii.IDENTIFIER)
    version = text("Content hash of the definition.")
    visitor_since = day(
        "Since when the visitor was in before the customer's login; null when they were not.", optional=True
    )


@table(
    "gold.customer_segment",
    comment="One row per segment ever defined; a definition that is gone stays, inactive.",
    kind=Merge(),
    key=("segment_id",),
    producer="segments.definitions:build_customer_segment",
    reads=(
        "gold.customer_segment_customer",
        "gold.customer_segment_guest",
        "gold.customer_segment_refresh",
        "gold.customer_segment",
    ),
    freshness_hours=24,
    owner="crm-data",
)
class CustomerSegment:
    segment_id = text("Name of the segment in definitions, files and tables.")
    name = text("Name people read; unique per website.")
    description = text("What the segment is for.", optional=True)
    entity = text("Whom it is made of.", values=("customer", "guest"))
    is_active = flag("Whether it is evaluated.")
    conditions = text("The rule as JSON; loads back into the same definition.")
    website_ids = column("array<string>", "Retailers it applies to; empty means all.")
    customer_group_ids = column("array<string>", "Customer groups it applies to; null means all.", optional=True)
    priority = integer("Lower wins when one primary segment must be chosen.", check="priority >= 0")
    refresh_mode = text("auto: with every run; manual: only when asked.", values=("auto", "manual"))
    max_change_share = double("Share of members that may change in one refresh; null for no limit.", optional=True)
    version = text(
        "Content hash of rule, lists, websites and groups; like these as last published, where a refresh was held back "
        "on every website."
    )
    refresh_status = text("State of the last refresh.", values=REFRESH_STATUSES)
    refresh_message = text("Why the last refresh did not publish.", optional=True)
    matched_customers_count = bigint("Customers or guests in the segment now.")
    last_refresh_at = instant("Last completed refresh, UTC; null before the first.", optional=True)
    created_at = instant("First seen, UTC.")
    updated_at = instant("Definition last changed, UTC.")


@table(
    "gold.customer_segment_drift",
    comment="One row per reconciliation and segment that differed; a reconciliation without any has one row of `*`.",
    kind=Merge(),
    key=("run_id", "website_id", "segment_id"),
    producer="jobs.segments:reconcile",
    by_runtime=True,
    owner="crm-data",
)
class CustomerSegmentDrift:
    run_id = text("Run that compared.")
    website_id = text("Retailer; * for all.")
    segment_id = text("Segment; * for all.")
    as_of = day("Day compared.")
    customers = bigint("Customers whose kept answer differed from one made from nothing; there must be none.")
    checked_at = instant("When, UTC.")
