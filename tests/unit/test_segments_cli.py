from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app

QUESTIONS = ("list", "preview", "explain", "diff", "overlap", "history", "flows", "pin", "unpin", "events", "reconcile")


def test_the_job_and_the_questions_are_one_command() -> None:
    shown = CliRunner().invoke(app, ["segments", "--help"])
    assert shown.exit_code == 0
    assert "--retrain" in shown.output
    assert [q for q in QUESTIONS if q not in shown.output] == []


def test_an_option_before_a_question_is_refused_and_not_lost() -> None:
    asked = CliRunner().invoke(app, ["segments", "--target", "dev", "list"])
    assert asked.exit_code == 2
    assert "say --target after 'list'" in asked.output


@pytest.mark.parametrize("arguments", [[], ["champions", "--file", "x.yml"]])
def test_a_preview_is_of_one_definition(arguments: list[str], tmp_path: Path) -> None:
    asked = CliRunner().invoke(app, ["segments", "preview", *arguments, "--data-dir", str(tmp_path)])
    assert asked.exit_code == 2
    assert "a SEGMENT of conf/segments, or --file" in " ".join(asked.output.split())
