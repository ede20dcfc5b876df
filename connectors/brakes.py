"""What stops a run before anything leaves: too many removals, an empty segment, a name a platform would flag."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from connectors.exchange import Place

FLAGGED_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "health": (
        "allerg", "anxiety", "arthritis", "asthma", "cancer", "depress", "diabet", "diet", "disab", "disease",
        "fertil", "health", "hiv", "hospital", "ill", "illness", "medic", "menopaus", "obes", "patient", "pharma",
        "pregnan", "prescription", "symptom", "therap", "vaccin", "weight loss",
    ),
    "finance": (
        "bankrupt", "credit", "debt", "financ", "foreclos", "income", "insolv", "insurance", "invest", "loan",
        "low income", "mortgage", "net worth", "payday", "poor", "salary", "wealth",
    ),
}  # fmt: skip
"""Beginnings of words by the special category they hint at."""


@dataclass(frozen=True)
class PlacePlan:
    """What a run would do at one audience, in people's rows.

    Attributes:
        place: Audience.
        name: Name of the segment that people read.
        members: Members of the segment, before anyone is left out.
        eligible: Of them, those who may leave.
        present: Rows the destination has acknowledged and not removed.
        withdrawals: Removals of people who may no longer be there at all: consent withdrawn, suppressed, erased.
        removals: Removals of people who left the segment or the regions and shops sent from, or whose identifier
            changed.
        additions: Additions.
        refused: Of the removals, those of rows the destination refused: the audience hardly shrinks by them.
    """

    place: Place
    name: str
    members: int
    eligible: int
    present: int
    withdrawals: int
    removals: int
    additions: int
    refused: int = 0


@dataclass(frozen=True)
class Brakes:
    """Limits beyond which a run asks before it goes on.

    Attributes:
        max_removed_share: Part of the rows present that may leave in one run, withdrawals and refused rows not counted.
        reads_names: Whether the destination flags audiences by their name.
        is_confirmed: A person has looked at the plan and wants it.
        waiting: Why nothing is sent of a segment: its campaign is not due, or its audience was not made.
    """

    max_removed_share: float = 0.3
    reads_names: bool = False
    is_confirmed: bool = False
    waiting: Mapping[str, str] = field(default_factory=dict)

    def held(self, plan: PlacePlan) -> str | None:
        """Returns why removals and additions of an audience wait, None when they may go.

        Withdrawals never wait: they are what the person asked for.
        """
        if self.reads_names and (found := flagged_words(plan.name, plan.place.segment_id)):
            return f"name_flagged: {', '.join(found)}"
        if why := self.waiting.get(plan.place.segment_id):
            return why
        if self.is_confirmed:
            return None
        if plan.members == 0 and plan.present > 0:
            return "segment_empty"
        share = (plan.removals - plan.refused) / plan.present if plan.present else 0
        if share > self.max_removed_share:
            return f"removes_{share:.0%}_of_present"
        return None


def flagged_words(*names: str) -> list[str]:
    """Returns the special categories that words of a name hint at, each with the word.

    Meta blocks audiences whose names suggest health or financial status (operation_status 471, since 2025-09).
    """
    found = []
    for name in names:
        words = re.sub(r"[^a-z]+", " ", name.lower()).strip()
        for category, beginnings in FLAGGED_WORDS.items():
            for start in beginnings:
                # Short beginnings are whole words: "ill" must not find "illustrated".
                pattern = rf"\b{re.escape(start)}\b" if len(start) <= 4 else rf"\b{re.escape(start)}"
                if re.search(pattern, words):
                    found.append(f"{category} ({start})")
    return sorted(set(found))
