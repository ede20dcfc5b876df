"""Files of settings: whichever it is, a mistake is told with its place and what may have been meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError, model_validator

from features.rules import load_feature_rules
from lakehouse.access import load_access
from lakehouse.bundle import load_jobs
from lakehouse.errors import SettingsError
from lakehouse.quality_load import load_rules
from lakehouse.strict import Strict, problems_of, read_model
from models.evaluation import load_goals
from pipelines.gold.finance_conf import load_finance


@pytest.mark.parametrize(
    ("load", "file", "said", "meant"),
    [
        (load_access, "bundle/access.yml", "rows: {colums: []}", "rows.colums: there is no such setting. 'columns'"),
        (load_jobs, "bundle/jobs.yml", "daily: {corn: '0'}", "daily.corn: there is no such setting. 'cron'"),
        (load_rules, "quality/gold.yml", "table: {}", "gold.yml: table: there is no such setting. 'tables'"),
        (load_feature_rules, "features.yml", "lifecicle: {}", "lifecicle: there is no such setting. 'lifecycle'"),
        (load_finance, "finance.yml", "fee: []", "fee: there is no such setting. 'fees'"),
        (
            load_goals,
            "evaluation.yml",
            "goals: {s: {auc: {at_leest: 1}}}",
            "at_leest: there is no such setting. 'at_least'",
        ),
    ],
)
def test_a_misspelt_key_is_told_with_the_one_that_is_there(
    tmp_path: Path, load: Callable[[Path], object], file: str, said: str, meant: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(said, encoding="utf-8")
    what, there_is = meant.rsplit(" ", 1)
    with pytest.raises(SettingsError) as found:
        load(tmp_path)
    assert f"{what} Did you mean {there_is}?" in str(found.value)


class _Size(Strict):
    unit: Literal["people", "part"]


class _Audience(Strict):
    size: _Size | None = None

    @model_validator(mode="after")
    def _finds_two(self) -> _Audience:
        if self.size is None:
            raise ValueError("size: how many? | size: of whom?")
        return self


def test_every_problem_has_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "audience.yml"
    file.write_text("size: {unit: parts, sise: 2}", encoding="utf-8")
    with pytest.raises(SettingsError) as found:
        read_model(file, _Audience)
    assert str(found.value) == (
        f"{file}: 2 problem(s): size.unit: Input should be 'people' or 'part'; got 'parts'. Did you mean 'part'?; "
        "size.sise: there is no such setting. Did you mean 'size'?"
    )
    file.write_text("", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"2 problem\(s\): size: how many\?; size: of whom\?$"):
        read_model(file, _Audience)


def test_what_might_be_a_secret_is_not_quoted() -> None:
    with pytest.raises(ValidationError) as found:
        _Size.model_validate({"unit": "hunter2"})
    assert problems_of(found.value, _Size, shows_values=False) == ["unit: Input should be 'people' or 'part'."]
