"""What left for destinations."""

from __future__ import annotations

from lakehouse.columns import bigint, column, day, flag, instant, text
from lakehouse.declare import Merge, table


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
    format = text("Format of the file.", values=("csv", "parquet"))
    path = text("Where the file is, relative to the data directory when inside it.")
    sha256 = text("SHA-256 of the file's bytes, hex.")
    rows = bigint("Members in this file.")
    bytes = bigint("Size of the file.")
    members = bigint("Members of the segment when it was exported.")
    eligible = bigint("Of them, those who may leave: consent granted and an identifier known; over all parts.")
    excluded = column("map<string,bigint>", "Members left out by reason: no_consent, no_identifier.")
    consent = text("Channel whose consent was asked for.")
    is_sample = flag("True when contact details or consent come from a labelled sample feed.")
    run_id = text("Run that wrote the file.")
    exported_at = instant("When that run started, UTC.")
