"""The error tree: every failure we raise on purpose, under one root, with fields a caller can act on."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SegmentationError(Exception):
    """Root of every error this product raises on purpose. `exit_code` is what a command ends with."""

    exit_code = 1


class DeclarationError(SegmentationError):
    """A table declaration contradicts itself or names something that does not exist."""

    exit_code = 2


class SettingsError(SegmentationError):
    """Settings or a file under `conf/` are wrong; the message lists every problem found."""

    exit_code = 2


class MachineError(SegmentationError):
    """The machine lacks something we need (Java, jars, a package); the message says how to get it."""

    exit_code = 3


class SourceError(SegmentationError):
    """A feed or a delivered file cannot be read as declared."""

    exit_code = 4


class SourceDeclarationError(SourceError):
    """A source, a feed or a file is named that is not there, or one under `conf/sources` is declared wrongly."""

    exit_code = 2


class MigrationRefused(SegmentationError):
    """A changed declaration cannot be applied without losing or rewriting data, or showing what is to be protected."""

    exit_code = 5


class QualityError(SegmentationError):
    """A blocking check failed; nothing was published and the last good data stay visible."""

    exit_code = 6

    def __init__(self, table: str, failed: Iterable[str]) -> None:
        self.table = table
        self.failed = tuple(failed)
        super().__init__(
            f"{table}: {len(self.failed)} blocking check(s) failed, nothing was published: {'; '.join(self.failed)}. "
            "The last good version is still what readers see; results are in gov.fact_data_quality."
        )


class StepFailed(SegmentationError):
    """A step of a run raised; the run stops there and the next run resumes at this step.

    A command ends with the exit code of what the step refused on purpose, as a migration or a blocking check does.
    """

    exit_code = 7

    def __init__(self, message: str, cause: Exception | None = None) -> None:
        super().__init__(message)
        if isinstance(cause, SegmentationError):
            self.exit_code = cause.exit_code


class RunLocked(SegmentationError):
    """Another run holds the lakehouse."""

    exit_code = 8


class ModelError(SegmentationError):
    """A model cannot be made from these data, or was asked for what it does not have."""

    exit_code = 9


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest known name, or an empty string."""
    close = get_close_matches(wrong, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
