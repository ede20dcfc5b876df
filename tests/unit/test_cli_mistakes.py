"""What a person may get wrong on the command line ends in a sentence and exit code 2."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import yaml
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from connectors.activation import ActivationHeld
from features.rules import load_feature_rules
from jobs.activate import read_numbers
from jobs.audiences import expand
from jobs.cli import app, main
from jobs.context import Job
from jobs.flow import Outcome, run_all
from jobs.progress import Progress
from jobs.summary import Told
from jobs.terminal import escape, plain
from lakehouse.errors import SegmentationError, SettingsError, SourceError
from lakehouse.logs import configure_logs
from lakehouse.quality_load import load_rules
from lakehouse.settings import load_settings
from lakehouse.yaml_file import parse_yaml
from models.evaluation import load_goals
from pipelines.bronze.records import FeedResult


def test_an_unknown_schema_names_the_known_ones() -> None:
    asked = CliRunner().invoke(app, ["tables", "list", "nope"])
    assert asked.exit_code == 2
    assert "silver" in asked.output
    listed = CliRunner().invoke(app, ["tables", "list", "silver"])
    assert listed.exit_code == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["activate", "--validate"], "goes with --dry-run"),
        (["activate", "--dry-run", "--confirm"], "--dry-run sends nothing"),
        (["activate", "--dry-run", "--force"], "--dry-run sends nothing"),
        *((["activate", "--queue", *more], "ask for it alone") for more in (["-d", "x"], ["--confirm"], ["--dry-run"])),
        (["build", "--as-of", "2018-01-01"], "facts are of every day"),
        (["build", "--as-of", "2018-01-01", "--layer", "gold"], "facts are of every day"),
        (["tables", "ddl", "--catalog", "retail"], "--catalog is for --target unity"),
        (["tables", "show", "gold.dim_customer", "--version", "1"], "say how many with --rows"),
        (["tables", "show", "gold.dim_customer", "--day", "2018-01-01"], "say how many with --rows"),
        (
            ["tables", "show", "gold.dim_customer", "--rows", "1", "--version", "1", "--day", "2018-01-01"],
            "leave one out",
        ),
        (["tables", "show", "gold.dim_customer", "--rows", "-3"], "--rows"),
        (["models", "evaluate", "--cdnow", "nowhere.csv"], "does not exist"),
    ],
)
def test_options_that_would_do_nothing_or_something_else_are_refused(asked: list[str], said: str) -> None:
    answer = CliRunner().invoke(app, asked, env={"COLUMNS": "200"})
    assert answer.exit_code == 2
    assert said in answer.output


def test_success_returns_and_only_a_failure_is_an_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["segmentation", "tables", "list", "silver"])
    main()
    monkeypatch.setattr(sys, "argv", ["segmentation", "tables", "list", "nope"])
    with pytest.raises(SystemExit) as wrong:
        main()
    assert wrong.value.code == 2


def test_without_spark_a_command_says_how_to_get_it(tmp_path: Path) -> None:
    without = "import sys; sys.modules['pyspark'] = None; from jobs.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", without, "status"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 3, answer.stderr
    assert "the extra `local` brings" in " ".join(answer.stderr.split())


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_data_directory_that_is_a_file_is_a_wrong_setting(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    said = CliRunner().invoke(app, ["maintain", "--data-dir", str(tmp_path / "file" / below)])
    assert said.exit_code == 2
    with pytest.raises(SettingsError, match="file is not a folder"):
        load_settings(data_dir=tmp_path / "file" / below)
    assert load_settings(data_dir=tmp_path / "new").data_dir == tmp_path / "new"


def test_folders_of_settings_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SEGMENTATION_EXPORTS_DIR", "~/exports")
    found = load_settings(data_dir=Path("~/lake"))
    assert (found.data_dir, found.exports_dir) == (tmp_path / "lake", tmp_path / "exports")
    with pytest.raises(SettingsError, match=r"data_dir: .*nobody's home"):
        load_settings(data_dir=Path("~no-such-user/lake"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [(["--feed", "sales"], "give the file"), (["a.csv", "--stream"], "leave it out"), (["a.csv"], "one --source")],
)
def test_options_of_ingest_that_would_do_nothing_are_refused(tmp_path: Path, asked: list[str], said: str) -> None:
    source = [] if asked == ["a.csv"] else ["--source", "shop"]
    told = CliRunner().invoke(app, ["ingest", *asked, *source, "--data-dir", str(tmp_path)], env={"COLUMNS": "200"})
    assert told.exit_code == 2
    assert said in told.output


def test_a_data_directory_that_cannot_be_written_is_a_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", forbidden)
        said = CliRunner().invoke(app, ["maintain", "--data-dir", str(tmp_path / "new")], env={"COLUMNS": "200"})
    assert said.exit_code == 2
    assert "Permission denied" in said.output
    (tmp_path / "_logs" / f"{datetime.now(UTC):%Y-%m-%d}.jsonl").mkdir(parents=True)
    with pytest.raises(SettingsError, match="cannot be written"):
        configure_logs(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a: [1", "is not YAML"), (b"a: \xe4", "not text in UTF-8"), (b"- a", "holds a list")],
)
def test_settings_that_cannot_be_read_are_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "local.yml").write_bytes(content)
    with pytest.raises(SettingsError, match=said):
        load_settings("local", tmp_path)


def test_a_variable_that_is_no_yaml_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTATION_RETENTION_DAYS", '{"')
    with pytest.raises(SettingsError, match="SEGMENTATION_RETENTION_DAYS is not YAML"):
        load_settings()


def test_settings_of_the_environment_are_read_as_those_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, said in (("DATA_DIR", "2024"), ("CATALOG", "null"), ("DELETION_VECTORS", "yes"), ("PARALLEL_STEPS", "2")):
        monkeypatch.setenv(f"SEGMENTATION_{name}", said)
    monkeypatch.setenv("SEGMENTATION_AS_OF", "2018-01-31")
    found = load_settings()
    assert (found.data_dir, found.catalog, found.deletion_vectors) == (Path("2024"), None, True)
    assert (found.parallel_steps, found.as_of) == (2, date(2018, 1, 31))


def test_every_mistake_in_the_environment_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, said in (
        ("BASE_CURENCY", "EUR"),
        ("TARGET", "prod"),
        ("AS_OF", "2024-02-30"),
        ("VARIABLES", "[1]"),
        ("JARS", "/nowhere"),
        ("SFTP_PASSWORD", "a secret of the user's own"),
    ):
        monkeypatch.setenv(f"SEGMENTATION_{name}", said)
    with pytest.raises(SettingsError) as raised:
        load_settings(variables={"a": "b"})
    for part in (
        "SEGMENTATION_BASE_CURENCY is not a setting. Did you mean 'base_currency'?",
        "SEGMENTATION_TARGET is not a setting",
        "SEGMENTATION_AS_OF.date: Input should be a valid date",
        "SEGMENTATION_VARIABLES: Input should be a valid dictionary",
    ):
        assert part in str(raised.value)
    assert "SFTP" not in str(raised.value)
    assert "JARS" not in str(raised.value)


def test_variables_of_a_file_that_are_no_names_and_values_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "local.yml").write_text("variables: [1]", encoding="utf-8")
    with pytest.raises(SettingsError, match="variables: Input should be a valid dictionary"):
        load_settings("local", tmp_path, variables={"a": "b"})


@pytest.mark.parametrize(
    "asked",
    [
        ["segments", "list"],
        ["segments", "overlap"],
        ["segments", "events"],
        ["segments", "history", "champions"],
        ["models", "list"],
        ["models", "evaluate"],
        ["activate", "--queue"],
        ["reconcile"],
        ["report"],
        ["tables", "show", "gold.dim_customer", "--rows", "1"],
    ],
    ids=" ".join,
)
def test_a_lakehouse_that_is_not_there_is_no_empty_one_and_is_not_made(tmp_path: Path, asked: list[str]) -> None:
    folder = tmp_path / "mistyped"
    said = CliRunner().invoke(app, [*asked, "--data-dir", str(folder)], env={"COLUMNS": "400"})
    assert said.exit_code == 2, said.output
    assert f"There is no lakehouse in {folder}; start with: segmentation run" in said.output
    assert not folder.exists()


def test_models_that_miss_a_goal_and_an_engine_that_fails_end_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.errors import PySparkRuntimeError

    evaluated = Mock(side_effect=[False, PySparkRuntimeError("a page of Java")])
    monkeypatch.setattr("jobs.evaluation.evaluate", evaluated)
    (tmp_path / "gold").mkdir()
    for code, told in ((11, ""), (1, "The engine failed: PySparkRuntimeError.")):
        said = CliRunner().invoke(app, ["models", "evaluate", "--data-dir", str(tmp_path)], env={"COLUMNS": "200"})
        assert said.exit_code == code, said.output
        assert told in said.output
        assert "Java" not in said.output


def test_a_champion_of_nobody_is_a_wrong_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [SimpleNamespace(name="local.feature.customer_outlook_shop")]
    monkeypatch.setattr("models.store.all_versions", lambda _: known)
    asked = ["models", "rollback", "shp", "--data-dir", str(tmp_path)]
    said = CliRunner().invoke(app, asked, env={"COLUMNS": "400"})
    assert said.exit_code == 2, said.output
    assert "There is no model local.feature.customer_outlook_shp; there are" in said.output
    assert "Did you mean 'local.feature.customer_outlook_shop'?" in said.output


def test_a_declaration_can_be_read_where_there_is_no_lakehouse(tmp_path: Path) -> None:
    asked = ["tables", "show", "gold.dim_customer", "--data-dir", str(tmp_path / "none")]
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert not (tmp_path / "none").exists()


def test_an_error_before_logs_are_set_up_is_told_once() -> None:
    command = "from jobs.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", command, "run", "--target", "nope"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith("SettingsError: There is no target 'nope'")


def test_an_unknown_source_or_file_is_a_wrong_argument(tmp_path: Path) -> None:
    for asked, said in (
        (["--source", "shoop"], "No source is declared as 'shoop'; sources are complete_journey,"),
        ([str(tmp_path / "none.csv"), "--source", "complete_journey"], "none.csv is not a file"),
    ):
        asked = ["ingest", *asked, "--data-dir", str(tmp_path / "new")]
        answer = CliRunner().invoke(app, asked, env={"COLUMNS": "400"})
        assert answer.exit_code == 2
        assert said in answer.output


def test_a_run_tells_what_is_odd_about_files_also_when_it_fails_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job: Job, progress: Progress, out: Outcome, **_: object) -> None:
        out.feeds = [
            FeedResult("shop", "sales", files_new=1, rows_accepted=40, rows_rejected=2),
            FeedResult("shop", "people", files_new=1, rows_accepted=7, notes=("p.csv: missing column(s) 'phone'.",)),
            FeedResult("shop", "products", files_new=1, rows_accepted=9),
        ]
        for feed in out.feeds:
            progress.feed(f"{feed.source}.{feed.feed}", feed)
        raise SourceError("the run failed")

    monkeypatch.setattr("jobs.flow.run_all", fail)
    said = CliRunner().invoke(app, ["run", "--data-dir", str(tmp_path)], env={"COLUMNS": "200"})
    assert said.exit_code == 4
    assert "40 rows, 2 rejected" in said.output
    shown = said.output[said.output.index("note p.csv: missing column(s) 'phone'.") :]
    assert "ingest.ref_parsing_errors" in shown
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("shop.")] == ["shop.sales", "shop.people"]


@pytest.mark.parametrize("folder", ["campaigns", "destinations", "quality", "segments"])
def test_a_mistake_in_a_definition_is_told_before_any_work(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = shutil.copytree("conf", tmp_path / "conf")
    (conf / folder / "wrong.yml").write_text("nothing: of the kind\n")
    monkeypatch.setattr("jobs.flow.ingest", lambda *_: pytest.fail("work began"))
    job = Job(load_settings(conf_dir=conf, data_dir=tmp_path))
    with pytest.raises(SegmentationError, match="wrong"):
        run_all(job, Progress(Console()))


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "jobs.yml: it cannot be read: No such file"), ("sources: []\n", "sources: Tuple should have at least 1")],
)
def test_docs_write_nothing_by_a_wrong_definition_of_the_jobs(
    content: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = shutil.copytree("conf", tmp_path / "conf")
    (conf / "bundle" / "jobs.yml").unlink()
    if content is not None:
        (conf / "bundle" / "jobs.yml").write_text(content)
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, ["docs"], env={"SEGMENTATION_CONF_DIR": str(conf), "COLUMNS": "400"})
    assert answer.exit_code == 2
    assert said in answer.output
    assert [p.name for p in tmp_path.iterdir()] == ["conf"]


def test_a_refused_file_does_not_hide_what_was_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(job: Job, progress: Progress, out: Outcome, **_: object) -> None:
        out.feeds = [FeedResult("shop", "sales", refused_files=(("\x1b[2Ja.csv", "has no \x9bheader [/red]"),))]
        out.held = ActivationHeld("meta vip: removes_40%_of_present")

    told = Told("2018-01-01", [], 0, 0, str(tmp_path / "shop [test]" / "latest.html"), [], "tables [/]", [])
    monkeypatch.setattr("jobs.flow.run_all", run)
    monkeypatch.setattr("jobs.summary.tell", lambda *_: told)
    said = CliRunner().invoke(app, ["run", "--data-dir", str(tmp_path)], env={"COLUMNS": "200"})
    assert said.exit_code == 4, said.output
    assert "ActivationHeld: meta vip: removes_40%_of_present" in said.output
    assert "\ufffd[2Ja.csv: has no \ufffdheader [/red]" in said.output
    assert "shop [test]" in said.output
    assert "tables [/]" in said.output


def test_what_others_wrote_is_shown_on_a_terminal_and_not_acted_on() -> None:
    wrote = "a\x1b]0;b\x07 \x9b2J\r [/bold] [red]c\nd\te"
    assert plain(wrote) == "a\ufffd]0;b\ufffd \ufffd2J\ufffd [/bold] [red]c\nd\te"
    assert Text.from_markup(f"[bold]{escape(wrote)}[/]").plain == plain(wrote)


def test_numbers_to_suppress_are_read_as_a_spreadsheet_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "numbers.txt"
    file.write_bytes(b"\xef\xbb\xbfK1\r\n\r\n K2 \r\n")
    assert read_numbers(file) == ["K1", "K2"]
    file.write_bytes(b"K1\nM\xfcller\n")
    with pytest.raises(SettingsError, match="not text in UTF-8: byte 5 "):
        read_numbers(file)
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(SettingsError, match="cannot be read"):
            read_numbers(wrong)


def test_without_transactions_there_is_no_day_to_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql import functions as F

    nothing = SimpleNamespace(agg=lambda _: SimpleNamespace(collect=lambda: [{"d": None}]))
    newest = SimpleNamespace(alias=lambda _: None)
    monkeypatch.setattr(F, "max", lambda _: newest)
    monkeypatch.setattr(Job, "lake", SimpleNamespace(read=lambda _: nothing))
    with pytest.raises(SettingsError, match="no transactions yet") as said:
        Job(load_settings(data_dir=tmp_path)).as_of()
    assert said.value.exit_code == 2


def test_a_page_of_a_day_that_members_are_not_of_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "segments_are_of", lambda _: date(2018, 1, 1))
    monkeypatch.setattr("jobs.publish.report", lambda *_, **__: pytest.fail("a page was written"))
    (tmp_path / "gold").mkdir()
    asked = ["report", "--as-of", "2017-10-01", "--data-dir", str(tmp_path)]
    said = CliRunner().invoke(app, asked, env={"COLUMNS": "400"})
    assert said.exit_code == 2, said.output
    assert "members here are those of 2018-01-01" in said.output


def test_an_audience_of_a_past_day_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Job) -> None:
        raise SettingsError("membership does not go back")

    monkeypatch.setattr("jobs.flow.require_no_past", refused)
    monkeypatch.setattr("models.expansion.expand_seed", lambda *_, **__: pytest.fail("an audience was made"))
    monkeypatch.setattr(Job, "lake", SimpleNamespace())
    job = Job(load_settings(data_dir=tmp_path, as_of=date(2018, 1, 1)))
    with pytest.raises(SettingsError, match="does not go back"):
        expand(job, Progress(Console()), "shop", "vips", (10, None, None), [], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("opened_on: 2018-02-30", "line 1, column 12"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "'c' is given twice"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("{[a]: 1}", "unhashable"),
    ],
)
def test_a_mistake_in_a_yaml_file_has_its_place(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(yaml.YAMLError) as raised:
        parse_yaml(text)
    assert said in " ".join(str(raised.value).split())
    monkeypatch.setenv("SEGMENTATION_VARIABLES", text)
    with pytest.raises(SettingsError, match="SEGMENTATION_VARIABLES is not YAML"):
        load_settings()


def test_a_file_people_edit_may_end_in_yaml_and_none_is_passed_over(tmp_path: Path) -> None:
    rules = "tables: {gold.dim_customr: {}}"
    for name, text in (
        ("settings/dev.yaml", "base_currency: EUR"),
        ("quality/gold.yaml", rules),
        ("features.yaml", "nonsense: 1"),
        ("evaluation.YAML", "nonsense: 1"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_settings("dev", tmp_path).base_currency == "EUR"
    for read, said in (
        (load_rules, "gold.yaml: gold.dim_customr is not a declared table"),
        (load_feature_rules, "features.yaml: 1 problem"),
        (load_goals, "evaluation.YAML: 1 problem"),
    ):
        with pytest.raises(SettingsError, match=said):
            read(tmp_path)
    (tmp_path / "settings" / "dev.yml").touch()
    with pytest.raises(SettingsError, match=r"settings holds dev.yaml and dev.yml; keep one of them"):
        load_settings("dev", tmp_path)


def test_keys_merged_from_an_anchor_may_be_given_again() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}")["b"] == {"x": 3, "y": 2}
