"""The bundle's jobs, made from the declarations, so that a workspace runs the steps a laptop runs, in the same order.

`segmentation docs`, or `python -m lakehouse.bundle`, writes `resources/*.yml`; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from lakehouse.access import Access, load_access
from lakehouse.declare import SCHEMAS
from lakehouse.errors import DeclarationError, SettingsError
from lakehouse.settings import find_conf
from lakehouse.steps import Step, dependencies, plan_steps
from lakehouse.strict import Strict, read_model

Variant = Literal["serverless", "cluster"]

COMMANDS: dict[str, tuple[str, ...]] = {
    "bronze": ("build", "--layer", "bronze"),
    "silver": ("build", "--layer", "silver"),
    "gold": ("build", "--layer", "gold"),
    "features": ("features",),
    "models": ("segments",),
    "segments": ("segments",),
}
"""The command that runs the steps of a layer. Models are trained, scored and used by one command."""

AFTER: tuple[tuple[str, ...], ...] = (("export",), ("campaigns", "results"), ("report",), ("activate",))
"""Commands that follow the steps, in the order of a local run. What a brake holds back fails the last one alone."""

_HEADER = "# Made by `segmentation docs` from the declarations and conf/bundle. Do not edit.\n"
_WHEEL = "../dist/*.whl"
_NOTIFY = ["${var.notify}"]
_TELLS_ITSELF = {
    "email_notifications": {"on_failure": _NOTIFY},
    "notification_settings": {"alert_on_last_attempt": True},
}
"""For a task that others follow whatever comes of it: a job has failed only when one of its last tasks has."""


class JobRule(Strict):
    """When a job runs and how long it may take."""

    title: str
    description: str
    cron: str
    timezone: str
    timeout_seconds: int = Field(ge=60)
    warn_after_seconds: int = Field(ge=60)


class ClusterRule(Strict):
    """Size of the job cluster of the cluster variant."""

    num_workers: int = Field(ge=0)


class JobRules(Strict):
    """All of `conf/bundle/jobs.yml`."""

    sources: tuple[str, ...] = Field(min_length=1)
    packages: tuple[str, ...] = ()
    daily: JobRule
    maintenance: JobRule
    scheduled_on: Variant
    tags: dict[str, str]
    cluster: ClusterRule


def load_jobs(conf_dir: Path) -> JobRules:
    """Read `bundle/jobs.yml`.

    Raises:
        SettingsError: listing every problem.
    """
    path = conf_dir / "bundle" / "jobs.yml"
    rules = read_model(path, JobRules)
    unknown = [s for s in rules.sources if not (conf_dir / "sources" / f"{s}.yml").is_file()]
    if unknown:
        raise SettingsError(f"{path}: no file in conf/sources for {', '.join(unknown)}")
    return rules


def write_jobs(folder: Path, conf_dir: Path | None = None) -> list[Path]:
    """Write every generated file of the bundle into `folder`; returns their paths."""
    files = render_jobs(conf_dir or find_conf())
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in files.items():
        path = folder / name
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def render_jobs(conf_dir: Path) -> dict[str, str]:
    """Text of every generated file by name."""
    rules, access = load_jobs(conf_dir), load_access(conf_dir)
    serverless = {"segmentation_daily": _daily(rules, access, "serverless")}
    cluster = {"segmentation_daily_on_cluster": _daily(rules, access, "cluster")}
    maintenance = {"segmentation_maintenance": _maintenance(rules, access)}
    return {
        "daily.job.yml": _text({"resources": {"jobs": serverless}}),
        "daily_on_cluster.job.yml": _text({"resources": {"jobs": cluster}}),
        "maintenance.job.yml": _text({"resources": {"jobs": maintenance}}),
        "data.yml": _text(_data(access)),
    }


def stages() -> list[tuple[tuple[str, ...], list[Step]]]:
    """Commands of a run in order, each with the steps it runs.

    Raises:
        DeclarationError: when a layer has no command, or no order of commands respects the reads.
    """
    steps = plan_steps()
    unknown = sorted({s.layer for s in steps} - set(COMMANDS))
    if unknown:
        raise DeclarationError(f"No command runs the layers {', '.join(unknown)}; see lakehouse.bundle.COMMANDS.")
    grouped: dict[tuple[str, ...], list[Step]] = {c: [] for c in dict.fromkeys(COMMANDS.values())}
    command_of = {s.producer: COMMANDS[s.layer] for s in steps}
    for s in steps:
        grouped[command_of[s.producer]].append(s)
    made_by = {o.name: s.producer for s in steps for o in s.outputs}
    order: list[tuple[str, ...]] = []
    waiting = [c for c, found in grouped.items() if found]
    while waiting:
        ready = next(
            (
                c
                for c in waiting
                if {command_of[p] for s in grouped[c] for p in dependencies(s, made_by)} <= {c, *order}
            ),
            None,
        )
        if ready is None:
            raise DeclarationError(f"These commands wait for one another: {', '.join(' '.join(c) for c in waiting)}")
        order.append(ready)
        waiting.remove(ready)
    return [(c, grouped[c]) for c in order]


def _daily(rules: JobRules, access: Access, variant: Variant) -> dict[str, Any]:
    tasks: list[dict[str, Any]] = []
    for source in rules.sources:
        # One source that cannot be read does not keep the next from landing.
        after = {"depends_on": [{"task_key": tasks[-1]["task_key"]}], "run_if": "ALL_DONE"} if tasks else {}
        task = _task(f"ingest_{source}", ("ingest", "--source", source), variant, rules.packages)
        tasks.append(task | _TELLS_ITSELF | after)
    landed = [t["task_key"] for t in tasks]
    previous: str | None = None
    commands = [c for c, _ in stages()] + list(AFTER)
    for command in commands:
        key = "_".join(p for p in command if not p.startswith("--"))
        # In a row even where reads would allow side by side: all of them commit to the same record tables.
        if previous is None:
            # A refused file fails its task, and keeps no other from being built on.
            after = {"depends_on": [{"task_key": k} for k in landed], "run_if": "ALL_DONE"}
        else:
            after = {"depends_on": [{"task_key": previous}]}
        tasks.append(_task(key, command, variant, rules.packages) | after)
        previous = key
    title = rules.daily.title if variant == rules.scheduled_on else f"{rules.daily.title} (on demand, {variant})"
    job = _job(rules.daily.model_copy(update={"title": title}), rules, access, tasks, variant)
    if variant == rules.scheduled_on:
        job["schedule"] = _schedule(rules.daily)
    return job


def _maintenance(rules: JobRules, access: Access) -> dict[str, Any]:
    after = {"depends_on": [{"task_key": "maintain"}], "run_if": "ALL_DONE"}
    tasks = [
        _task("maintain", ("maintain",), rules.scheduled_on, ()) | _TELLS_ITSELF,
        _task("reconcile", ("segments", "reconcile"), rules.scheduled_on, ()) | after,
    ]
    job = _job(rules.maintenance, rules, access, tasks, rules.scheduled_on)
    return job | {"schedule": _schedule(rules.maintenance)}


def _schedule(rule: JobRule) -> dict[str, str]:
    # Without a pause_status: a stated one would override that development deployments are paused.
    return {"quartz_cron_expression": rule.cron, "timezone_id": rule.timezone}


def _job(
    rule: JobRule, rules: JobRules, access: Access, tasks: list[dict[str, Any]], variant: Variant
) -> dict[str, Any]:
    job: dict[str, Any] = {
        "name": rule.title,
        "description": rule.description,
        "tags": dict(rules.tags),
        "max_concurrent_runs": 1,
        "queue": {"enabled": True},
        "timeout_seconds": rule.timeout_seconds,
        "email_notifications": {
            "on_failure": _NOTIFY,
            "on_duration_warning_threshold_exceeded": _NOTIFY,
        },
        "health": {
            "rules": [{"metric": "RUN_DURATION_SECONDS", "op": "GREATER_THAN", "value": rule.warn_after_seconds}]
        },
        "permissions": [
            {"group_name": access.operators, "level": "CAN_MANAGE_RUN"},
        ],
        "tasks": tasks,
    }
    if variant == "serverless":
        spec = {"environment_version": "${var.environment_version}", "dependencies": [_WHEEL, *rules.packages]}
        job["environments"] = [{"environment_key": "default", "spec": spec}]
    else:
        cluster = {
            "spark_version": "${var.spark_version}",
            "node_type_id": "${var.node_type_id}",
            "num_workers": rules.cluster.num_workers,
            # Standard: a dedicated cluster reads tables with policies by serverless, which such workspaces lack.
            "data_security_mode": "USER_ISOLATION",
            "custom_tags": dict(rules.tags),
        }
        job["job_clusters"] = [{"job_cluster_key": "main", "new_cluster": cluster}]
    return job


def _task(key: str, command: tuple[str, ...], variant: Variant, packages: Iterable[str]) -> dict[str, Any]:
    task: dict[str, Any] = {
        "task_key": key,
        "python_wheel_task": {
            "package_name": "retail-segmentation",
            "entry_point": "segmentation",
            "parameters": [*command, "--target", "${bundle.target}"],
        },
        # A step that failed resumes where it stopped, so trying once more is cheap and safe.
        "max_retries": 1,
        "min_retry_interval_millis": 60000,
    }
    if variant == "serverless":
        return task | {"environment_key": "default"}
    libraries: list[dict[str, Any]] = [{"whl": _WHEEL}, *({"pypi": {"package": p}} for p in packages)]
    return task | {"job_cluster_key": "main", "libraries": libraries}


def _data(access: Access) -> dict[str, Any]:
    # Not in dev: a development deployment renames its schemas, while the declarations name them plainly. There they
    # are made once, by the SQL of `segmentation tables ddl --target unity`.
    return {"targets": {target: {"resources": _schemas_and_volumes(access)} for target in ("staging", "prod")}}


def _schemas_and_volumes(access: Access) -> dict[str, Any]:
    schemas = {
        name: {
            "catalog_name": "${var.catalog}",
            "name": name,
            "comment": comment,
            "grants": _grants(access.privileges_on(name)),
            "lifecycle": {"prevent_destroy": True},
        }
        for name, comment in SCHEMAS.items()
    }
    volumes = {
        v.name: {
            "catalog_name": "${var.catalog}",
            "schema_name": f"${{resources.schemas.{v.schema_name}.name}}",
            "name": v.name,
            "volume_type": "MANAGED",
            "comment": v.comment,
            "grants": _grants(access.privileges_on_volume(v)),
            "lifecycle": {"prevent_destroy": True},
        }
        for v in access.volumes
    }
    return {"schemas": schemas, "volumes": volumes}


def _grants(of_groups: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    return [
        {"principal": group, "privileges": [p.replace(" ", "_") for p in privileges]}
        for group, privileges in of_groups.items()
    ]


def _text(content: dict[str, Any]) -> str:
    return _HEADER + yaml.dump(content, Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """No anchors: a reader of the file should not have to look up."""
        return True


if __name__ == "__main__":
    write_jobs(Path("resources"))
