"""What every destination is: its settings, the audience it is handed, and what it says it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pyspark.sql import DataFrame

from connectors.identifiers import EmailRule, PhoneRule
from lakehouse.errors import SettingsError, suggest

ConsentChannel = Literal["email", "sms", "phone", "post", "ads"]
Identifier = Literal["email", "phone"]


class DestinationConfig(BaseModel):
    """Settings every destination has.

    Attributes:
        name: Lower-case identifier; the stem of its file.
        description: What it is for.
        is_active: Whether segments leave for it.
        segments: Segments that leave for it; empty means every active one.
        consent: Channel a member must have agreed to. Advertising unless said otherwise: hashed identifiers leave for
            matching, which is what that consent is about.
        identifiers: What members are matched by; a member with none of them is left out.
        email_rule: How the destination normalises addresses before it hashes.
        phone_rule: How the destination normalises phone numbers before it hashes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    description: str = ""
    is_active: bool = True
    segments: tuple[str, ...] = ()
    consent: ConsentChannel = "ads"
    identifiers: tuple[Identifier, ...] = Field(("email", "phone"), min_length=1)
    email_rule: EmailRule = "plain"
    phone_rule: PhoneRule = "e164"


class FileDestination(DestinationConfig):
    """Files in a folder: a retailer's own bucket, or what is uploaded by hand.

    Attributes:
        kind: Tells it from other destinations.
        folder: Where to; relative to the data directory.
        formats: What to write, for each segment.
        max_rows_per_file: Rows from which on a segment is cut into parts.
    """

    kind: Literal["files"]
    folder: Path = Path("exports")
    formats: tuple[Literal["csv", "parquet"], ...] = Field(("csv", "parquet"), min_length=1)
    max_rows_per_file: int = Field(1_000_000, ge=1)

    @model_validator(mode="after")
    def _stays_inside(self) -> Self:
        if ".." in self.folder.parts:
            raise ValueError("folder must not contain '..'")
        return self


Destination = Annotated[FileDestination, Field(discriminator="kind")]
"""Every kind of destination; a new one is a class here, or in its own file, and a connector."""


@dataclass(frozen=True)
class ExportedSegment:
    """A segment as its definition is published.

    Attributes:
        segment_id: Identifier.
        name: Name people read.
        version: Content hash of the definition.
    """

    segment_id: str
    name: str
    version: str


@dataclass(frozen=True)
class ExportedFile:
    """One file that left.

    Attributes:
        path: Where it is.
        format: csv or parquet.
        rows: Members in it.
        bytes: Size.
        sha256: Digest of its bytes, hex.
    """

    path: Path
    format: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Export:
    """One segment of one website at a destination, as its manifest says.

    Attributes:
        destination: Name of the destination.
        segment: What left.
        consent: Channel whose consent was asked for.
        website_id: Retailer.
        as_of: Day of the membership.
        manifest: Where the manifest is.
        files: The files, in order.
        members: Members of the segment.
        eligible: Of them, those who left.
        excluded: Members left out, by reason.
        is_sample: Whether contact details or consent of any member come from a labelled sample.
        is_new: False when the same content was there already and was left alone.
        run_id: Run that wrote the content.
        exported_at: When that run started, UTC.
    """

    destination: str
    segment: ExportedSegment
    consent: ConsentChannel
    website_id: str
    as_of: date
    manifest: Path
    files: tuple[ExportedFile, ...]
    members: int
    eligible: int
    excluded: Mapping[str, int]
    is_sample: bool
    is_new: bool
    run_id: str
    exported_at: datetime


class Connector(Protocol):
    """A destination that can be handed an audience.

    The audience is made by `connectors.audience.plan_audience`, so it holds digests and a reason for everyone left
    out; a connector never sees an address or a number.
    """

    config: DestinationConfig

    def deliver(
        self,
        audience: DataFrame,
        segments: Sequence[ExportedSegment],
        *,
        as_of: date,
        run_id: str,
        started_at: datetime,
    ) -> tuple[Export, ...]:
        """Bring the destination to the audience; doing it twice changes nothing."""
        ...


def load_destinations(folder: Path) -> tuple[FileDestination, ...]:
    """Returns the destinations of the `*.yml` files of a folder, by name. An absent folder holds none.

    Raises:
        SettingsError: Names every unknown, missing or bad value of every file at once.
    """
    adapter: TypeAdapter[FileDestination] = TypeAdapter(Destination)
    found: dict[str, FileDestination] = {}
    problems: list[str] = []
    for path in sorted([*folder.glob("*.yml"), *folder.glob("*.yaml")]):
        try:
            content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
            made = adapter.validate_python({"name": path.stem, **(content or {})})
        except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
            problems.append(f"{path.name}: is not a YAML mapping: {type(error).__name__}")
        except ValidationError as error:
            known = FileDestination.model_fields
            problems += [
                f"{path.name}: {'.'.join(str(p) for p in e['loc'])}: {e['msg']}."
                + (suggest(str(e["loc"][-1]), known) if e["type"] == "extra_forbidden" else "")
                for e in error.errors(include_input=False, include_url=False)
            ]
        else:
            if made.name in found:
                problems.append(f"{path.name}: destination '{made.name}' is defined twice")
            found[made.name] = made
    if problems:
        raise SettingsError("\n  ".join([f"{len(problems)} problem(s) in destinations:", *problems]))
    return tuple(found[name] for name in sorted(found))
