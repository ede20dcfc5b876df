"""When a model is trained again; without Spark and without MLflow."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from lakehouse.errors import ModelError
from models import store, training
from models.store import (
    ACCEPTED,
    CLUSTERS,
    OUTLOOK,
    REFUSED,
    Attempt,
    ModelStore,
    Version,
    champion_for,
    inputs_of,
    is_due,
)

AS_OF = date(2018, 1, 1)
STORE = ModelStore("sqlite:///none", "sqlite:///none", Path("none"), "local")


def version(days_ago: int, status: str = ACCEPTED, number: int = 1) -> Version:
    day = (AS_OF - timedelta(days=days_ago)).isoformat()
    return Version(STORE.model_name(CLUSTERS, "shop"), number, "shop", day, status, "", "run", None)


def attempt(days_ago: int, kind: str = CLUSTERS, merchant_id: str = "shop") -> Attempt:
    return Attempt(kind, merchant_id, (AS_OF - timedelta(days=days_ago)).isoformat())


@pytest.mark.parametrize(
    ("versions", "attempts", "expected"),
    [
        ([], [], True),
        ([version(120)], [], True),
        ([version(60)], [], False),  # younger than the 90 days it takes to compare
        ([version(120), version(10, REFUSED, 2)], [], False),  # tried ten days ago
        ([version(120)], [attempt(10)], False),
        ([version(120)], [attempt(40)], True),
        ([], [attempt(29)], False),
        ([], [attempt(30)], True),
        ([version(40, REFUSED)], [], True),  # no champion to wait for
        ([], [attempt(-5)], True),  # tried for a later day, which this one knows nothing of
        ([], [attempt(3, OUTLOOK), attempt(3, merchant_id="other")], True),
    ],
)
def test_training_is_due_when_there_is_something_to_learn(
    versions: list[Version], attempts: list[Attempt], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_known", lambda *_: (versions, attempts))

    assert is_due(STORE, CLUSTERS, "shop", AS_OF, lambda _: 90) is expected


def test_a_champion_of_other_inputs_is_passed_over_and_another_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    champion = replace(version(10), inputs=inputs_of(CLUSTERS))
    monkeypatch.setattr(store, "_known", lambda *_: ([champion], []))
    assert champion_for(STORE, CLUSTERS, "shop", AS_OF) == champion
    assert not is_due(STORE, CLUSTERS, "shop", AS_OF, lambda _: 90)

    monkeypatch.setattr("models.clustering.FEATURES", ("recency_days", "frequency", "tenure_days"))

    assert champion_for(STORE, CLUSTERS, "shop", AS_OF) is None
    assert is_due(STORE, CLUSTERS, "shop", AS_OF, lambda _: 90)


def test_an_attempt_with_other_inputs_does_not_delay_training(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = [attempt(2), replace(attempt(1), inputs=inputs_of(CLUSTERS))]
    for one in tried:
        monkeypatch.setattr(store, "_known", lambda *_, one=one: ([], [one]))
        assert not is_due(STORE, CLUSTERS, "shop", AS_OF, lambda _: 90)

    monkeypatch.setattr("models.clustering.FEATURES", ("recency_days", "frequency", "tenure_days"))
    monkeypatch.setattr(store, "_known", lambda *_: ([], tried))

    assert is_due(STORE, CLUSTERS, "shop", AS_OF, lambda _: 90)


def test_numbers_given_are_kept_with_the_version_and_no_lost_file_ends_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(_: ModelStore, one: Version) -> SimpleNamespace:
        if one.number == 2:
            raise ModelError("customer_clusters/2 cannot be read any more")
        return SimpleNamespace(numbers=(0, 1, 5))

    known = [version(30), version(20, number=2), version(10, REFUSED, 3)]
    monkeypatch.setattr(training, "versions_of", lambda *_: known)
    monkeypatch.setattr(store, "load_model", load)
    assert training._numbers_given(STORE, "shop") == 6

    known.append(replace(version(5, number=4), numbers_given=8))
    monkeypatch.setattr(store, "load_model", lambda *_: pytest.fail("no model needs to be read"))
    assert training._numbers_given(STORE, "shop") == 8


@pytest.mark.parametrize("kind", [CLUSTERS, OUTLOOK])
def test_versions_from_before_inputs_were_told_go_on(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As long as their inputs are today's: the first change of a kind's inputs takes the kind out of here.
    old = replace(version(10), name=STORE.model_name(kind, "shop"))
    monkeypatch.setattr(store, "_known", lambda *_: ([old], []))

    assert champion_for(STORE, kind, "shop", AS_OF) == old
