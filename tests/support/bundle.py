"""A structural check of a Databricks asset bundle, since the CLI's own check is not ours to ship.

It knows the fields the product uses. Any other is a problem: the CLI only warns of those, and drops them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Json = Any

TOP = {"bundle", "include", "variables", "artifacts", "resources", "targets", "workspace"}
TARGET = {"mode", "default", "workspace", "run_as", "permissions", "variables", "resources", "presets"}
JOB = {
    "name", "description", "tags", "max_concurrent_runs", "queue", "timeout_seconds", "email_notifications", "health",
    "permissions", "tasks", "environments", "job_clusters", "schedule", "trigger", "parameters", "run_as",
}  # fmt: skip
TASK = {
    "task_key", "depends_on", "run_if", "python_wheel_task", "environment_key", "job_cluster_key", "libraries",
    "max_retries", "min_retry_interval_millis", "timeout_seconds", "email_notifications", "notification_settings",
}  # fmt: skip
SCHEMA = {"catalog_name", "name", "comment", "grants", "lifecycle"}
VOLUME = {"catalog_name", "schema_name", "name", "volume_type", "comment", "grants", "lifecycle"}
CLUSTER = {"spark_version", "node_type_id", "num_workers", "data_security_mode", "custom_tags", "autoscale"}
RUN_IF = {"ALL_SUCCESS", "ALL_DONE", "AT_LEAST_ONE_SUCCESS", "NONE_FAILED", "AT_LEAST_ONE_FAILED", "ALL_FAILED"}
LEVELS = {"CAN_VIEW", "CAN_MANAGE_RUN", "CAN_MANAGE", "CAN_RUN", "IS_OWNER"}
PRIVILEGES = {
    "USE_SCHEMA", "SELECT", "MODIFY", "CREATE_TABLE", "CREATE_MODEL", "EXECUTE", "MANAGE", "APPLY_TAG", "READ_VOLUME",
    "WRITE_VOLUME",
}  # fmt: skip
BUILT_IN = {
    "bundle.name",
    "bundle.target",
    "workspace.root_path",
    "workspace.file_path",
    "workspace.current_user.userName",
}


def load_bundle(root: Path) -> dict[str, Json]:
    """`databricks.yml` with its includes merged in, as the CLI merges them: deep, a key set twice is an error there."""
    whole: dict[str, Json] = yaml.safe_load((root / "databricks.yml").read_text(encoding="utf-8"))
    for pattern in whole.get("include", []):
        for path in sorted(root.glob(pattern)):
            _merge(whole, yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    return whole


def _merge(into: dict[str, Json], more: Mapping[str, Json], where: str) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, f"{where}.{key}")
        elif key in into:
            raise AssertionError(f"{where}: {key} is defined twice")
        else:
            into[key] = value


def problems_of(whole: dict[str, Json], root: Path) -> list[str]:
    """Everything wrong with a merged bundle."""
    return [*_unknown("bundle file", whole, TOP), *_targets(whole), *_resources(whole, root), *_references(whole)]


def _unknown(where: str, found: Mapping[str, Json], known: set[str]) -> Iterator[str]:
    for key in sorted(set(found) - known):
        yield f"{where}: unknown field '{key}'"


def _targets(whole: dict[str, Json]) -> Iterator[str]:
    for name, v in whole.get("variables", {}).items():
        if not v.get("description"):
            yield f"variable {name} has no description"
        yield from _unknown(f"variable {name}", v, {"description", "default", "type", "lookup"})
    targets = whole.get("targets", {})
    if sum(bool(t.get("default")) for t in targets.values()) != 1:
        yield "exactly one target must be the default"
    for name, t in targets.items():
        yield from _unknown(f"target {name}", t, TARGET)
        for v, spec in whole.get("variables", {}).items():
            if "default" not in spec and v not in t.get("variables", {}):
                yield f"target {name}: variable {v} has no value"
        for v in set(t.get("variables", {})) - set(whole.get("variables", {})):
            yield f"target {name}: variable {v} is not declared"
        if t.get("mode") == "production" and not (t.get("run_as") and t.get("workspace", {}).get("root_path")):
            yield f"target {name}: production needs run_as and a root_path"
        yield from _permissions(f"target {name}", t.get("permissions", []))
        for key, job in whole.get("resources", {}).get("jobs", {}).items():
            for who in _named(t.get("permissions", [])) & _named(job.get("permissions", [])):
                yield f"target {name}: {who} is also named in jobs.{key}, and only that entry would count"


def _resources(whole: dict[str, Json], root: Path) -> Iterator[str]:
    seen: dict[str, str] = {}
    layers = [("", whole.get("resources", {})), *((n, t.get("resources", {})) for n, t in whole["targets"].items())]
    for target, resources in layers:
        yield from _unknown(f"resources {target}".strip(), resources, {"jobs", "schemas", "volumes"})
        for kind, named in resources.items():
            for key, spec in named.items():
                # The CLI wants keys unique over all kinds of resources.
                if seen.setdefault(key, kind) != kind:
                    yield f"{kind}.{key} is also the key of one of {seen[key]}"
                where = f"{kind}.{key}"
                match kind:
                    case "jobs":
                        yield from _job(where, spec, root)
                    case "schemas":
                        yield from _unknown(where, spec, SCHEMA)
                        yield from _grants(where, spec)
                    case "volumes":
                        yield from _unknown(where, spec, VOLUME)
                        yield from _grants(where, spec)


def _grants(where: str, spec: Mapping[str, Json]) -> Iterator[str]:
    for grant in spec.get("grants", []):
        for privilege in set(grant["privileges"]) - PRIVILEGES:
            yield f"{where}: unknown privilege {privilege}"


def _permissions(where: str, permissions: list[Mapping[str, str]]) -> Iterator[str]:
    for p in permissions:
        if p["level"] not in LEVELS:
            yield f"{where}: unknown permission level {p['level']}"
        if not set(p) & {"group_name", "service_principal_name", "user_name"}:
            yield f"{where}: a permission for nobody"


def _named(permissions: list[Mapping[str, str]]) -> set[str]:
    return {v for p in permissions for k, v in p.items() if k != "level"}


def _job(where: str, job: Mapping[str, Json], root: Path) -> Iterator[str]:
    yield from _unknown(where, job, JOB)
    yield from _permissions(where, job.get("permissions", []))
    if "schedule" in job:
        yield from _unknown(f"{where}.schedule", job["schedule"], {"quartz_cron_expression", "timezone_id"})
        if not is_quartz(job["schedule"]["quartz_cron_expression"]):
            yield f"{where}: no Quartz schedule: {job['schedule']['quartz_cron_expression']}"
    tasks = {t["task_key"]: t for t in job["tasks"]}
    if len(tasks) != len(job["tasks"]):
        yield f"{where}: a task key is used twice"
    environments = {e["environment_key"] for e in job.get("environments", [])}
    clusters = {c["job_cluster_key"] for c in job.get("job_clusters", [])}
    for c in job.get("job_clusters", []):
        yield from _unknown(f"{where}.{c['job_cluster_key']}", c["new_cluster"], CLUSTER)
    for e in job.get("environments", []):
        yield from _unknown(f"{where}.{e['environment_key']}", e["spec"], {"environment_version", "dependencies"})
        if "environment_version" not in e["spec"]:
            yield f"{where}: an environment needs its version"
    for key, task in tasks.items():
        here = f"{where}.{key}"
        yield from _unknown(here, task, TASK)
        if not re.fullmatch(r"[\w-]{1,100}", key):
            yield f"{here}: no task key"
        for d in task.get("depends_on", []):
            if d["task_key"] not in tasks:
                yield f"{here}: depends on {d['task_key']}, which is no task"
        if task.get("run_if", "ALL_SUCCESS") not in RUN_IF:
            yield f"{here}: unknown run_if"
        if (task.get("environment_key") in environments) == (task.get("job_cluster_key") in clusters):
            yield f"{here}: needs one environment or one cluster that the job defines"
        yield from _wheel(here, task.get("python_wheel_task", {}), root)
    if _has_cycle(tasks):
        yield f"{where}: its tasks wait for one another"


def _wheel(where: str, task: Mapping[str, Json], root: Path) -> Iterator[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if task.get("package_name") != project["name"]:
        yield f"{where}: package {task.get('package_name')} is not {project['name']}"
    if task.get("entry_point") not in project["scripts"]:
        yield f"{where}: {task.get('entry_point')} is no entry point of the wheel"
    yield from _unknown(where, task, {"package_name", "entry_point", "parameters", "named_parameters"})


def _has_cycle(tasks: Mapping[str, Mapping[str, Json]]) -> bool:
    done: set[str] = set()
    while True:
        ready = {
            k for k, t in tasks.items() if k not in done and {d["task_key"] for d in t.get("depends_on", [])} <= done
        }
        if not ready:
            return len(done) < len(tasks)
        done |= ready


def is_quartz(expression: str) -> bool:
    """Whether an expression has Quartz's six or seven fields, exactly one of the two day fields being `?`."""
    fields = expression.split()
    if len(fields) not in (6, 7) or (fields[3] == "?") == (fields[5] == "?"):
        return False
    names = "SUN|MON|TUE|WED|THU|FRI|SAT|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
    part = rf"(?:\*|\?|L|(?:\d+|{names})(?:-(?:\d+|{names}))?)(?:/\d+)?(?:#\d)?"
    limits = [59, 59, 23, 31, 12, 7]
    for field, limit in zip(fields[:6], limits, strict=True):
        if not re.fullmatch(rf"{part}(?:,{part})*", field):
            return False
        if any(int(n) > limit for n in re.findall(r"(?<![/#\d])\d+", field)):
            return False
    return True


def _references(whole: dict[str, Json]) -> Iterator[str]:
    known = set(BUILT_IN) | {f"var.{v}" for v in whole.get("variables", {})}
    layers = [whole.get("resources", {}), *(t.get("resources", {}) for t in whole["targets"].values())]
    for resources in layers:
        for kind, named in resources.items():
            for key, spec in named.items():
                known |= {f"resources.{kind}.{key}.{f}" for f in (*spec, "id")}
    for text in _texts(whole):
        for reference in re.findall(r"\$\{([^}]*)\}", text):
            if reference not in known:
                yield f"${{{reference}}} refers to nothing"


def _texts(node: Json) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)
