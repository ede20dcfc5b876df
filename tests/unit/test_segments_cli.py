from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from jobs import segments
from jobs.cli import app
from jobs.segments import pin
from lakehouse.errors import SettingsError
from lakehouse.settings import Settings
from segments.language import Segment, feature

QUESTIONS = ("list", "preview", "explain", "diff", "overlap", "history", "flows", "pin", "unpin", "events", "reconcile")


def test_the_job_and_the_questions_are_one_command() -> None:
    shown = CliRunner().invoke(app, ["segments", "--help"])
    assert shown.exit_code == 0
    assert "--retrain" in shown.output
    assert "--refresh" in shown.output
    assert [q for q in QUESTIONS if q not in shown.output] == []


def test_the_help_names_all_that_is_done() -> None:
    def help_of(command: str) -> str:
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        return " ".join(shown.output.replace("│", "").split())

    assert "Train the models again: clusters and outlooks." in help_of("segments")
    assert "models and segments are one" in help_of("build")


def test_an_option_before_a_question_is_refused_and_not_lost() -> None:
    asked = CliRunner().invoke(app, ["segments", "--target", "dev", "list"])
    assert asked.exit_code == 2
    assert "say --target after 'list'" in asked.output
    asked = CliRunner().invoke(app, ["segments", "--as-of", "2018-01-01", "list"])
    assert asked.exit_code == 2
    assert "'list' takes no --as-of; leave it out" in asked.output


@pytest.mark.parametrize("arguments", [[], ["champions", "--file", "x.yml"]])
def test_a_preview_is_of_one_definition(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.yml").touch()
    (tmp_path / "gold").mkdir()
    given = [str(tmp_path / a) if a == "x.yml" else a for a in arguments]
    asked = CliRunner().invoke(app, ["segments", "preview", *given, "--data-dir", str(tmp_path)])
    assert asked.exit_code == 2
    assert "a SEGMENT of conf/segments, or --file" in " ".join(asked.output.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["preview", "--file", "missing.yml"], "'missing.yml' does not exist"),
        (["diff", "champions", "--file", "missing.yml"], "'missing.yml' does not exist"),
        (["preview", "champions", "--rows", "-1"], "greater than or equal to 0"),
        (["flows", "--rows", "-1"], "greater than or equal to 0"),
        (["overlap", "--primary", "--plot", "x.svg"], "leave --primary out, or --plot"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(arguments: list[str], said: str) -> None:
    asked = CliRunner().invoke(app, ["segments", *arguments])
    assert asked.exit_code == 2
    assert said in " ".join(asked.output.replace("│", "").split())


def test_a_difference_is_of_the_segment_that_the_file_defines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = SimpleNamespace(settings=Settings(data_dir=tmp_path, conf_dir=tmp_path / "conf"), websites=())
    (tmp_path / "gold").mkdir()
    monkeypatch.setattr("jobs.context.Job.start", lambda *_, **__: job)
    file = tmp_path / "x.yml"
    file.write_text(
        "{segment_id: foo, name: Foo, rule: {feature: frequency, op: at_least, value: 5}}", encoding="utf-8"
    )
    asked = CliRunner().invoke(app, ["segments", "diff", "champions", "--file", str(file)], env={"COLUMNS": "400"})
    assert asked.exit_code == 2
    assert "x.yml defines 'foo', not 'champions'" in " ".join(asked.output.split())


def test_each_question_has_a_call_in_the_readme_that_can_be_made() -> None:
    readme = Path("README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| command | calls |") :].split("\n\n")[0]
    assert [q for q in QUESTIONS if f"`{q}`" not in table] == []
    code = [ast.parse(text) for text in re.findall(r"`(segments\..*?\))`", table)]
    for call in [c for tree in code for c in ast.walk(tree) if isinstance(c, ast.Call)]:
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "segments":
            asked = inspect.signature(getattr(segments, call.func.attr))
            asked.bind(*call.args, **{str(k.arg): k.value for k in call.keywords})
    assert len(code) >= len(QUESTIONS)


@pytest.mark.parametrize("note", ["\x1b[31mred", "two\nlines", "one\u2028two", "back\u202ewards"])
def test_a_note_that_a_terminal_would_act_on_is_refused(note: str) -> None:
    segment = Segment("often", "Often", feature("frequency").at_least(5))
    with pytest.raises(SettingsError, match=r"The note '.*' has a line break or another control or") as raised:
        pin(SimpleNamespace(), segment, "1", "shop", is_in=True, note=note)  # type: ignore[arg-type]
    assert str(raised.value).isprintable()
