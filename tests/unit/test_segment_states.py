from __future__ import annotations

import pytest

from lakehouse.tables.segment import REFRESH_STATUSES
from segments.states import TRANSITIONS


def test_every_state_of_the_table_has_its_followers() -> None:
    assert set(TRANSITIONS) == set(REFRESH_STATUSES)
    assert set().union(*TRANSITIONS.values()) <= set(REFRESH_STATUSES)


@pytest.mark.parametrize("state", REFRESH_STATUSES)
def test_a_refresh_may_begin_and_fail_in_any_state_but_ends_only_if_it_was_begun(state: str) -> None:
    assert {"processing", "error"} <= TRANSITIONS[state]
    assert ("completed" in TRANSITIONS[state]) == (state == "processing")
    assert ("pending" in TRANSITIONS[state]) == (state in ("processing", "stale", "error"))
