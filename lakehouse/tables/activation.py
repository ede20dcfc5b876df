"""What left for destinations, and who is there."""

from __future__ import annotations

from lakehouse.columns import Pii, bigint, column, day, double, flag, instant, integer, text
from lakehouse.declare import Append, Merge, ReplaceSlice, table

STATUSES = ("waiting", "unknown", "adding", "present", "rejected", "removing", "removed")
VERDICTS = ("sending", "ok", "accepted", "reject", "retry", "unknown")
LANES = ("withdrawal", "removal", "addition")


@table(
    "gold.segment_export",
    comment="One row per exported file and content; a file written again with other content is another row.",
    kind=Merge(),
    key=("path", "sha256"),
    producer="connectors.delivery:export_segments",
    by_runtime=True,
    owner="marketing",
)
class SegmentExport:
    destination = text("Destination as in conf/destinations.")
    website_id = text("Retailer.")
    segment_id = text("Segment.")
    version = text("Content hash of the definition.")
    as_of = day("Day the membership was published for.")
    format = text("Format of the file.", values=("csv", "parquet", "jsonl"))
    path = text("Where the file is, relative to the data directory when inside it.")
    sha256 = text("SHA-256 of the file's bytes, hex.")
    rows = bigint("Members in this file.")
    bytes = bigint("Size of the file.")
    members = bigint("Members of the segment when it was exported.")
    eligible = bigint("Of them, those who may leave: consent granted and an identifier known; over all parts.")
    excluded = column(
        "map<string,bigint>", "Members left out by reason: suppressed, no_consent, region, no_identifier, held_out."
    )
    consent = text("Channel whose consent was asked for.")
    is_sample = flag("True when contact details or consent come from a labelled sample feed.")
    run_id = text("Run that wrote the file.")
    exported_at = instant("When that run started, UTC.")


@table(
    "gold.activation_suppression",
    comment="One row per person and destination they must not be sent to, whatever they agreed to.",
    kind=Merge(),
    key=("website_id", "member_id", "destination"),
    producer="connectors.suppression:suppress",
    by_runtime=True,
    owner="privacy",
)
class Suppression:
    website_id = text("Retailer.")
    member_id = text("SHA-256 of website and customer number, hex.", pii=Pii.IDENTIFIER)
    destination = text("Destination as in conf/destinations; * for all.")
    reason = text("Why.", values=("asked", "complaint", "erased", "bounced", "legal"))
    suppressed_on = day("Day it was recorded, UTC; every later run heeds it, whatever day it is for.")
    run_id = text("Run that recorded it.")


@table(
    "gold.activation_member",
    comment="One row per destination, audience, person and set of keys: what the destination acknowledged of them.",
    kind=Merge(),
    key=("destination", "website_id", "segment_id", "member_id", "key_set"),
    producer="connectors.delta_ledger:open_ledger",
    by_runtime=True,
    cluster_by=("destination", "segment_id"),
    owner="marketing",
)
class ActivationMember:
    destination = text("Destination as in conf/destinations.")
    website_id = text("Retailer.")
    segment_id = text("Segment.")
    member_id = text("SHA-256 of website and customer number, hex.", pii=Pii.IDENTIFIER)
    key_set = text("SHA-256 of the keys, hex; a person whose identifier changed has a row per set.", pii=Pii.IDENTIFIER)
    status = text(
        "waiting: not there yet; unknown: may be there; adding, removing: accepted and unfinished; present, removed: "
        "acknowledged; rejected: refused, see code.",
        values=STATUSES,
    )
    keys = column(
        "map<string,string>",
        "Digests or ids a removal goes by; empty once the removal is acknowledged. Never a plain address.",
        pii=Pii.IDENTIFIER,
    )
    last_op = text("Last thing done with the row.", values=("add", "remove"))
    code = text("Reason of the last refusal or delay, in the destination's words.", optional=True)
    receipt = text("Job of the destination's that works on the row.", optional=True)
    remote_id = text("The destination's id for the person, when it told one.", optional=True, pii=Pii.IDENTIFIER)
    mapping = text("Fingerprint of the settings the row was last sent under.")
    generation = integer("Grows with every change of the row, acknowledged or followed by the opposite.")
    acknowledged_at = instant("When the destination last acknowledged it, UTC.", optional=True)
    last_seq = bigint("Order, within that run, of what was last learnt.")
    run_id = text("Run that last touched it.")


@table(
    "gold.activation_plan",
    comment="One row per change the last run of a destination planned.",
    kind=ReplaceSlice(by=("destination",)),
    key=("destination", "website_id", "segment_id", "member_id", "key_set"),
    producer="connectors.delta_ledger:open_ledger",
    by_runtime=True,
    owner="marketing",
)
class ActivationPlan:
    destination = text("Destination.")
    website_id = text("Retailer.")
    segment_id = text("Segment.")
    member_id = text("SHA-256 of website and customer number, hex.", pii=Pii.IDENTIFIER)
    key_set = text("SHA-256 of the keys, hex.", pii=Pii.IDENTIFIER)
    op = text("What is to be done.", values=("add", "remove"))
    lane = text("Order of sending.", values=LANES)
    keys = column("map<string,string>", "What is sent.", pii=Pii.IDENTIFIER)
    stored_keys = column("map<string,string>", "What a later removal goes by.", pii=Pii.IDENTIFIER)
    remote_id = text("The destination's id for the person, when it told one.", optional=True, pii=Pii.IDENTIFIER)
    generation = integer("Which change of the row it is; part of its event id.")
    bucket = integer("Part of the plan the row is read with, 0 to 255.")
    run_id = text("Run that planned.")


@table(
    "gold.activation_outcome",
    comment="One row per sent row and thing learnt of it: announced, then its outcome. The proof of what was sent.",
    kind=Append(),
    key=(),
    producer="connectors.delta_ledger:open_ledger",
    by_runtime=True,
    cluster_by=("destination", "run_id"),
    retention_days=400,
    owner="marketing",
)
class ActivationOutcome:
    run_id = text("Run.")
    seq = bigint("Order within the run; the last one of a row counts.")
    destination = text("Destination.")
    website_id = text("Retailer.")
    segment_id = text("Segment.")
    batch_key = text("Batch; the same rows for the same change have the same key. Of a job's end, the job.")
    op = text("What was done.", values=("add", "remove"))
    member_id = text("SHA-256 of website and customer number, hex.", pii=Pii.IDENTIFIER)
    key_set = text("SHA-256 of the keys, hex.", pii=Pii.IDENTIFIER)
    verdict = text(
        "sending: about to leave; ok; accepted: for later; reject: refused; retry: surely not applied; unknown: may "
        "have been applied.",
        values=VERDICTS,
    )
    code = text("Reason, in the destination's words.", optional=True)
    receipt = text("Job of the destination's that works on it.", optional=True)
    remote_id = text("The destination's id for the person, when it told one.", optional=True, pii=Pii.IDENTIFIER)
    recorded_at = instant("When it was written down, UTC.")


@table(
    "gold.activation_batch",
    comment="One row per batch of a run and state of it: sending, then settled with its counts.",
    kind=Append(),
    key=("run_id", "batch_key", "state"),
    producer="connectors.delta_ledger:open_ledger",
    by_runtime=True,
    retention_days=400,
    owner="marketing",
)
class ActivationBatch:
    run_id = text("Run.")
    destination = text("Destination.")
    website_id = text("Retailer.")
    segment_id = text("Segment.")
    batch_key = text("SHA-256 over operation and changes.")
    op = text("What was done.", values=("add", "remove"))
    state = text("sending: about to leave; settled: every row has an outcome.", values=("sending", "settled"))
    rows = integer("Rows of the batch.")
    ok = integer("Rows acknowledged.")
    accepted = integer("Rows taken for later.")
    rejected = integer("Rows refused.")
    left_over = integer("Rows left to the next run.")
    recorded_at = instant("When it was written down, UTC.")


@table(
    "gold.activation_run",
    comment="One row per run of a destination; freshness, reject rate and match rate are series over it.",
    kind=Merge(),
    key=("run_id", "destination"),
    producer="connectors.delta_ledger:open_ledger",
    by_runtime=True,
    freshness_hours=24,
    owner="marketing",
)
class ActivationRun:
    run_id = text("Run.")
    destination = text("Destination.")
    state = text("running also stands for a run that died.", values=("running", "done", "stopped", "halted"))
    started_at = instant("When it started, UTC.")
    ended_at = instant("When it ended, UTC; null while it runs.", optional=True)
    is_folded = flag("Whether its outcomes have reached gold.activation_member.")
    planned = bigint("Rows put into batches.")
    ok = bigint("Rows acknowledged.")
    accepted = bigint("Rows taken for later.")
    rejected = bigint("Rows refused for good.")
    left_over = bigint("Rows left to the next run.")
    held = bigint("Rows a brake held back.")
    requests = bigint("Requests made.")
    match_rate = text("What the destination could match, as it last put it.", optional=True)
    message = text("Why it stopped, halted or held back.", optional=True)


@table(
    "gold.activation_switch",
    comment="One row per destination that was ever switched; the kill switch, read between batches.",
    kind=Merge(),
    key=("destination",),
    producer="connectors.switch:set_switch",
    by_runtime=True,
    owner="marketing",
)
class ActivationSwitch:
    destination = text("Destination; * for all.")
    is_stopped = flag("Whether nothing may be sent.")
    reason = text("Why, by whoever set it.", optional=True)
    changed_at = instant("When, UTC.")
    run_id = text("Run that set it.")


@table(
    "gold.activation_erasure",
    comment="One row per erased person and destination where nothing of theirs is left, the ledger included.",
    kind=Merge(),
    key=("website_id", "member_id", "destination"),
    producer="connectors.erasure:forget_erased",
    by_runtime=True,
    owner="privacy",
)
class ActivationErasure:
    website_id = text("Retailer.")
    member_id = text("SHA-256 of website and customer number, hex; as in the suppression.", pii=Pii.IDENTIFIER)
    destination = text("Destination.")
    rows_removed = bigint("Rows of the ledger whose removal the destination acknowledged.")
    rows_never_sent = bigint("Rows that were refused or never got there.")
    acknowledged_at = instant("When the destination acknowledged the last removal, UTC.", optional=True)
    run_id = text("Run that forgot them.")
    recorded_at = instant("When that run started, UTC.")


@table(
    "gold.activation_audience",
    comment="One row per destination and segment: the audience it is sent to, whose id there was given, found or made.",
    kind=Merge(),
    key=("destination", "segment_id"),
    producer="connectors.audiences:name_audiences",
    by_runtime=True,
    owner="marketing",
)
class ActivationAudience:
    destination = text("Destination as in conf/destinations.")
    segment_id = text("Segment.")
    name = text("Name of the audience there; its id where that was given.")
    audience_id = text("Its id there.")
    is_made = flag("Whether it was made; false when it was there.")
    run_id = text("Run that found or made it, or was the first to send to it.")
    recorded_at = instant("When it was written down, UTC.")


@table(
    "gold.activation_size",
    comment="One row per run and audience of a destination that tells how many people it reaches or matches.",
    kind=Merge(),
    key=("run_id", "destination", "website_id", "segment_id"),
    producer="connectors.audiences:record_sizes",
    by_runtime=True,
    retention_days=400,
    owner="marketing",
)
class ActivationSize:
    run_id = text("Run.")
    destination = text("Destination.")
    website_id = text("Retailer.")
    segment_id = text("Segment.")
    eligible = bigint("People who may be there.")
    reached_low = bigint("People the destination says it reaches, the lower bound.", optional=True)
    reached_high = bigint("The upper bound.", optional=True)
    match_rate = text("Part of the rows it could match, as it last put it.", optional=True)
    measured_at = instant("When it was asked, UTC.")


@table(
    "gold.campaign_member",
    comment="One row per campaign and person, with the arm they were in on their first day; it never changes.",
    kind=Merge(),
    key=("campaign", "website_id", "member_id"),
    producer="connectors.results:assign_arms",
    by_runtime=True,
    owner="marketing",
)
class CampaignMember:
    campaign = text("Campaign as in conf/campaigns.")
    website_id = text("Retailer.")
    member_id = text("SHA-256 of website and customer number, hex.", pii=Pii.IDENTIFIER)
    destination = text("Destination.")
    segment_id = text("Segment that was addressed.")
    arm = text("treated: eligible and sent; control: eligible and held out.", values=("treated", "control"))
    holdout = text("Salt and share of the draw.")
    held_share = double("Part meant to be held out.", check="held_share > 0 AND held_share < 1")
    assigned_on = day("Day of the membership with which they came into the campaign; outcomes count from it.")
    run_id = text("Run that recorded it.")


@table(
    "gold.campaign_result",
    comment="One row per campaign, retailer, metric and day it was measured as of: treated against held out.",
    kind=Merge(),
    key=("campaign", "website_id", "metric", "as_of"),
    producer="jobs.campaigns:measure",
    by_runtime=True,
    owner="marketing",
)
class CampaignResult:
    campaign = text("Campaign as in conf/campaigns.")
    website_id = text("Retailer.")
    metric = text(
        "bought: part of the people with a valid purchase; amount: net purchases per person, in the retailer's "
        "currency.",
        values=("bought", "amount"),
    )
    as_of = day("Purchases before this day are counted.")
    outcome_days = integer("Days from a person's first day whose purchases count.")
    treated_people = bigint("Treated whose days are over.")
    control_people = bigint("Held out whose days are over.")
    waiting_people = bigint("People of either arm whose days are not over; they are not counted.")
    treated_value = double("Rate or mean of the treated.", optional=True)
    control_value = double("Rate or mean of those held out.", optional=True)
    difference = double("Treated less held out.", optional=True)
    low = double(
        "Lower end of the interval of the difference; null where an arm has fewer than 30 people, or fewer than 5 who "
        "bought or who did not.",
        optional=True,
    )
    high = double("Upper end.", optional=True)
    relative = double("Difference by the value of those held out; null where that is not above 0.", optional=True)
    p_value = double("Two-sided: z test of rates, Welch's t test of means.", optional=True)
    confidence = double("Of the interval.")
    sample_ratio_p = double("How likely arms of these sizes are when the draw is right.", optional=True)
    is_suspect = flag("Whether that is so unlikely that the difference means nothing.", optional=True)
    content = column("map<string,string>", "What was said, by variable.")
    run_id = text("Run that measured.")
    measured_at = instant("When that run started, UTC.")
