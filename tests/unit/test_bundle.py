"""The bundle: made from the declarations, sound, and the same run as on a laptop."""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from jobs.flow import run_all
from lakehouse.access import load_access
from lakehouse.bundle import AFTER, COMMANDS, render_jobs, stages
from lakehouse.declare import tables
from lakehouse.settings import load_settings
from lakehouse.steps import dependencies, plan_steps
from lakehouse.unity import plan
from tests.support.bundle import is_quartz, load_bundle, problems_of

ROOT = Path(__file__).parents[2]
BUNDLE = load_bundle(ROOT)
DAILY = BUNDLE["resources"]["jobs"]["segmentation_daily"]
OPERATORS = load_access(ROOT / "conf").operators


def test_the_files_in_resources_are_what_the_declarations_give() -> None:
    stored = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "resources").glob("*.yml")}
    assert stored == render_jobs(ROOT / "conf"), "run `segmentation docs`"


def test_the_bundle_is_sound() -> None:
    assert problems_of(BUNDLE, ROOT) == []


def test_the_job_runs_every_step_of_a_local_run_after_what_it_reads() -> None:
    ordered = [command for command, _ in stages()]
    steps = [s for _, found in stages() for s in found]
    local = plan_steps()
    assert {s.producer for s in steps} == {s.producer for s in local}
    assert {o.name for s in steps for o in s.outputs} == {t.name for t in tables().values() if not t.by_runtime}
    made_by = {o.name: s.producer for s in local for o in s.outputs}
    place = {s.producer: ordered.index(COMMANDS[s.layer]) for s in local}
    for s in local:
        assert all(place[p] <= place[s.producer] for p in dependencies(s, made_by)), s.producer
    tasks = [t["python_wheel_task"]["parameters"][:-2] for t in DAILY["tasks"]]
    assert [tuple(t) for t in tasks if t[0] != "ingest"] == [*ordered, *AFTER]


def test_what_leaves_does_so_in_the_order_of_a_local_run() -> None:
    found = [n for n in ast.walk(ast.parse(inspect.getsource(run_all))) if isinstance(n, ast.Call)]
    called = [n.func.id for n in sorted(found, key=lambda n: n.lineno) if isinstance(n.func, ast.Name)]
    ours = {"export": "export", "activate_all": "activate", "measure_all": "campaigns results", "report": "report"}
    assert [ours[c] for c in called if c in ours] == [" ".join(c) for c in AFTER]


def test_a_refused_file_fails_its_task_stops_no_other_and_is_told() -> None:
    """A job has failed when one of its last tasks has; of others only the task itself can tell."""
    for job in BUNDLE["resources"]["jobs"].values():
        for task in job["tasks"]:
            after = [t for t in job["tasks"] if {"task_key": task["task_key"]} in t.get("depends_on", [])]
            goes_on = bool(after) and all(t.get("run_if") == "ALL_DONE" for t in after)
            assert goes_on == (task["task_key"].startswith("ingest_") or task["task_key"] == "maintain")
            told = task.get("email_notifications", {}).get("on_failure")
            assert told == (job["email_notifications"]["on_failure"] if goes_on else None), task["task_key"]


def test_both_variants_run_the_same_tasks_and_one_of_them_is_scheduled() -> None:
    other = BUNDLE["resources"]["jobs"]["segmentation_daily_on_cluster"]

    def shape(job: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [(t["task_key"], t["python_wheel_task"], t.get("depends_on")) for t in job["tasks"]]

    assert shape(DAILY) == shape(other)
    assert ("schedule" in DAILY) != ("schedule" in other)


def test_every_task_is_a_command_that_takes_its_arguments() -> None:
    from jobs.cli import app

    for job in BUNDLE["resources"]["jobs"].values():
        for task in job["tasks"]:
            parameters = task["python_wheel_task"]["parameters"]
            command = list(itertools.takewhile(lambda p: not p.startswith("--"), parameters))
            done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
            assert done.exit_code == 0, parameters
            assert all(p in done.output for p in parameters if p.startswith("--")), parameters


def test_each_target_has_settings_for_the_same_catalog() -> None:
    for name, target in BUNDLE["targets"].items():
        settings = load_settings(name, ROOT / "conf")
        assert settings.catalog == target["variables"]["catalog"]
        volumes = {f"/Volumes/{settings.catalog}/{v.schema_name}/{v.name}" for v in load_access(ROOT / "conf").volumes}
        assert {str(settings.data_dir), str(settings.exports_dir), str(settings.reports_dir)} <= volumes
        assert settings.spark.engine == "databricks"


def test_a_cluster_reads_protected_tables_without_serverless() -> None:
    (cluster,) = BUNDLE["resources"]["jobs"]["segmentation_daily_on_cluster"]["job_clusters"]
    assert cluster["new_cluster"]["data_security_mode"] == "USER_ISOLATION"


def test_each_deployment_brings_a_version_of_its_own() -> None:
    assert BUNDLE["artifacts"]["wheel"]["dynamic_version"] is True


def test_files_kept_as_they_were_delivered_are_for_the_pipeline_alone() -> None:
    """Uploads, samples and what a step rewrites lie under the data directory, and nothing masks a file."""
    access = load_access(ROOT / "conf")
    for target in BUNDLE["targets"]:
        settings = load_settings(target, ROOT / "conf")
        (own,) = [v for v in access.volumes if settings.data_dir.parts[-2:] == (v.schema_name, v.name)]
        assert list(access.privileges_on_volume(own)) == [access.pipeline_group]


def test_the_bundle_grants_what_the_sql_grants() -> None:
    made = [s.sql for s in plan(catalog="c", access=load_access(ROOT / "conf")) if s.kind == "grant"]
    of_sql = {g for g in made if "ON CATALOG" not in g}
    resources = yaml.safe_load((ROOT / "resources" / "data.yml").read_text(encoding="utf-8"))["targets"]["prod"]
    of_bundle = set()
    for kind, named in resources["resources"].items():
        for spec in named.values():
            schema = spec.get("schema_name", spec["name"]).removeprefix("${resources.schemas.").removesuffix(".name}")
            on = f"SCHEMA `c`.`{schema}`" if kind == "schemas" else f"VOLUME `c`.`{schema}`.`{spec['name']}`"
            for g in spec["grants"]:
                said = ", ".join(p.replace("_", " ") for p in g["privileges"])
                of_bundle.add(f"GRANT {said} ON {on} TO `{g['principal']}`")
    assert of_bundle == of_sql
    assert any("CREATE MODEL" in g and "`feature`" in g for g in of_sql)
    assert "GRANT USE SCHEMA, SELECT, EXECUTE ON SCHEMA `c`.`gov` TO `privacy`" in of_sql


def test_maintenance_is_over_before_the_daily_run_begins() -> None:
    """Both jobs write, and one would wait for the other."""
    rules = yaml.safe_load((ROOT / "conf" / "bundle" / "jobs.yml").read_text(encoding="utf-8"))

    def second_of_day(cron: str) -> int:
        second, minute, hour = (int(part) for part in cron.split()[:3])
        return (hour * 60 + minute) * 60 + second

    daily, maintenance = rules["daily"], rules["maintenance"]
    assert daily["timezone"] == maintenance["timezone"]
    end = second_of_day(maintenance["cron"]) + maintenance["timeout_seconds"]
    assert end <= second_of_day(daily["cron"])


def broken(change: Callable[[dict[str, Any]], object]) -> list[str]:
    whole = copy.deepcopy(BUNDLE)
    change(whole)
    return problems_of(whole, ROOT)


def daily(whole: dict[str, Any]) -> dict[str, Any]:
    return whole["resources"]["jobs"]["segmentation_daily"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: daily(b).update(max_concurent_runs=1), "unknown field 'max_concurent_runs'"),
        (lambda b: daily(b)["tasks"][0].update(depends_on=[{"task_key": "x"}]), "depends on x, which is no task"),
        (lambda b: daily(b)["tasks"][0].update(depends_on=[{"task_key": "report"}]), "wait for one another"),
        (lambda b: daily(b)["tasks"].append(daily(b)["tasks"][0]), "a task key is used twice"),
        (lambda b: daily(b)["tasks"][0].update(environment_key="gone"), "needs one environment or one cluster"),
        (lambda b: daily(b)["tasks"][0]["python_wheel_task"].update(entry_point="main"), "is no entry point"),
        (lambda b: daily(b)["schedule"].update(quartz_cron_expression="0 4 * * *"), "no Quartz schedule"),
        (lambda b: daily(b)["schedule"].update(pause_status="UNPAUSED"), "unknown field 'pause_status'"),
        (lambda b: daily(b).update(name="${var.titel}"), "${var.titel} refers to nothing"),
        (lambda b: b["resources"].update(schemas={"segmentation_daily": {}}), "is also the key of one of jobs"),
        (lambda b: b["targets"]["prod"].pop("run_as"), "production needs run_as"),
        (lambda b: b["targets"]["dev"].pop("variables"), "variable catalog has no value"),
        (lambda b: b["variables"]["notify"].pop("description"), "variable notify has no description"),
        (
            lambda b: b["targets"]["prod"]["permissions"].append({"group_name": OPERATORS, "level": "CAN_VIEW"}),
            f"target prod: {OPERATORS} is also named in jobs.segmentation_daily",
        ),
    ],
)
def test_the_check_of_the_bundle_catches(change: Callable[[dict[str, Any]], object], said: str) -> None:
    assert any(said in p for p in broken(change)), broken(change)


@pytest.mark.parametrize(
    ("expression", "good"),
    [("0 15 4 * * ?", True), ("0 0/15 8-18 ? * MON-FRI", True), ("0 30 2 ? * SUN 2030", True),
     ("15 4 * * *", False), ("0 61 4 * * ?", False), ("0 15 4 * * *", False), ("0 15 4 ? * ?", False)],
)  # fmt: skip
def test_quartz_expressions(expression: str, good: bool) -> None:
    assert is_quartz(expression) is good


def test_the_wheel_brings_no_spark_where_the_platform_has_its_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^\w-]", d)[0] for d in project["dependencies"]}
    assert not names & {"pyspark", "delta-spark", "databricks-connect"}
    assert {d.split("==")[0] for d in project["optional-dependencies"]["local"]} == {"pyspark", "delta-spark"}


def test_schemas_are_left_to_the_lakehouse_in_development() -> None:
    assert "resources" not in BUNDLE["targets"]["dev"]
    data = yaml.safe_load((ROOT / "resources" / "data.yml").read_text(encoding="utf-8"))
    assert set(data["targets"]) == {"staging", "prod"}
