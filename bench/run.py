"""One command that measures this product against DuckDB and Polars on the same work: `make bench`.

Every engine reads the same delivered files, refuses and deduplicates, writes the fact, 60 features per customer with
RFM scores, and who is in which of ten segments. Engines run one after the other, in turn, each in a process of its
own; what they wrote must agree row by row, and what is reported are ratios, for seconds depend on the machine and on
whatever else it does.

    python -m bench --size 1m                     all engines, then 1 % new lines against a full rebuild
    python -m bench --engines duckdb-layers,ours  against an engine that also writes what landed and the clean lines
    python -m bench --size 100k --rounds 2        twice in turn; the lower of each is taken
    python -m bench --engines ours --profile      only ours, with what each step cost
    python -m bench --engines duckdb,ours-sail    our transforms, unchanged, on a native engine behind Spark Connect
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bench import generate
from bench.compare import Result, delta_sql, differences, parquet_result, summary
from bench.measure import Cost, read_json, run_measured

RESULTS = Path(__file__).with_name("results")
REFERENCE, LAYERED = "duckdb", "duckdb-layers"
LABELS = {
    "ours": "this product (Spark, cold JVM)",
    "ours-warm": "this product (Spark, warm session)",
    "ours-sail": "this product's transforms on Sail",
    "duckdb": "DuckDB",
    "duckdb-layers": "DuckDB, writing bronze and silver too",
    "polars": "Polars",
    "polars-layers": "Polars, writing bronze and silver too",
}
MODULES = {
    "ours": "bench.engines.ours",
    "ours-sail": "bench.engines.sail",
    "duckdb": "bench.engines.duck",
    "polars": "bench.engines.pola",
}


@dataclass
class Measured:
    """One engine's lowest cost over the rounds, and its steps."""

    name: str
    cost: Cost
    steps: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        size: Name in `generate.SIZES`.
        work: Folder for data, lakehouses and logs.
        engines: In the order of a round.
        rounds: How often each engine runs.
        threads: Threads or cores for each engine.
        memory_gb: What each engine is told to stay within; for the JVM, its heap.
        incremental: Whether to measure 1 % of new lines as well.
    """

    size: str
    work: Path
    engines: tuple[str, ...]
    rounds: int
    threads: int
    memory_gb: float
    incremental: bool


def run(plan: Plan) -> dict[str, Any]:
    """Run everything and return the report; what disagrees is in `differences`."""
    data = plan.work / "data" / plan.size
    say(f"data of size {plan.size} in {data}")
    manifest = generate.ensure(data, generate.SIZES[plan.size])
    as_of = date.fromisoformat(manifest["as_of"])
    # Ours lands from links, so that the increment can be put beside what a lakehouse has already landed.
    shutil.rmtree(_our_data(plan), ignore_errors=True)
    shutil.copytree(data / "base", _our_data(plan), copy_function=os.link)
    measured: dict[str, Measured] = {}
    for i in range(plan.rounds):
        for engine in plan.engines:
            from_ = _our_data(plan) if engine.startswith("ours") else data / "base"
            _keep_lowest(measured, _measure(plan, engine, from_, as_of))
            say(f"round {i + 1}: {LABELS[engine]}: {measured[engine].cost}")
    report: dict[str, Any] = {
        "size": plan.size,
        "lines": manifest["base"]["delivered"],
        "customers": manifest["size"]["customers"],
        "cores": plan.threads,
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "engines": {n: {**asdict(m.cost), "steps": m.steps} for n, m in measured.items()},
    }
    results = [_result(plan, engine, manifest["base"]["delivered"]) for engine in plan.engines if "warm" not in engine]
    report["summary"] = summary(results[0])
    report["differences"] = _check(results, manifest["base"])
    if plan.incremental and "ours" in plan.engines:
        report["incremental"] = _incremental(plan, data, manifest, measured["ours"])
        report["differences"] += report["incremental"].pop("differences")
    return report


def _our_data(plan: Plan) -> Path:
    return plan.work / "data" / f"{plan.size}_delivered"


def _measure(plan: Plan, engine: str, data: Path, as_of: date, *more: str, out: str | None = None) -> Measured:
    base, _, variant = engine.partition("-")
    folder = plan.work / (out or engine)
    command = [
        sys.executable, "-m", MODULES.get(engine, MODULES[base]), "--data", data, "--out", folder, "--as-of", as_of,
        "--threads", plan.threads, "--memory-gb", plan.memory_gb, *more,
    ]  # fmt: skip
    if variant in ("layers", "warm"):
        command.append({"layers": "--layers", "warm": "--again"}[variant])
    env = {"POLARS_MAX_THREADS": str(plan.threads), "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    cost = run_measured([str(c) for c in command], plan.work / "logs" / f"{out or engine}.log", env)
    if variant == "warm":
        # The process did everything twice; only the second time, without the session's start, is the warm cost.
        steps = read_json(folder / "steps_warm.json")
        cpu, wall = (round(sum(s[k] for s in steps.values()), 2) for k in ("cpu", "wall"))
        return Measured(engine, Cost(wall, cpu, cost.peak_gb), steps)
    return Measured(engine, cost, read_json(folder / "steps.json"))


def _keep_lowest(measured: dict[str, Measured], new: Measured) -> None:
    old = measured.get(new.name)
    if old is None or new.cost.cpu < old.cost.cpu:
        measured[new.name] = new


def _result(plan: Plan, engine: str, delivered: int) -> Result:
    if engine.partition("-")[0] != "ours":
        return parquet_result(engine, plan.work / engine, delivered)
    return _our_result(engine, plan.work / engine / "lake")


def _our_result(name: str, lake: Path, as_of: date | None = None) -> Result:
    import duckdb

    con = duckdb.connect()

    def one(query: str) -> int:
        row = con.execute(query).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    counted = delta_sql(lake / "silver" / "transaction_line")
    refused = one(f"SELECT count(*) FROM ({delta_sql(lake / 'silver' / 'transaction_reject')})")
    staged = lake / "bronze" / "stg_transactions"
    if (staged / "_delta_log").is_dir():
        refused += one(f"SELECT count(*) FROM ({delta_sql(staged)}) AS s WHERE s.parse_errors IS NOT NULL")
    features = delta_sql(lake / "feature" / "customer")
    if as_of is not None:
        features += f" WHERE as_of = DATE '{as_of}'"
    columns = {r[0] for r in con.execute(f"DESCRIBE {counted}").fetchall()}
    held = "len(superseded)" if "superseded" in columns else "duplicate_count"
    return Result(
        name,
        delta_sql(lake / "gold" / "fact_transactions"),
        features,
        delta_sql(lake / "gold" / "customer_membership"),
        refused,
        one(f"SELECT sum(coalesce({held}, 0)) FROM ({counted})"),
    )


def _check(results: Sequence[Result], expected: dict[str, int]) -> list[str]:
    """Compare every engine with the first, and the first with what the generator put in."""
    first = results[0]
    said = summary(first)
    found = [
        f"{name}: {first.name} {said[mine]}, generated {expected[name]}"
        for name, mine in (("accepted", "accepted"), ("invalid", "rejected"), ("duplicates", "duplicates"))
        if said[mine] != expected[name]
    ]
    for other in results[1:]:
        found += differences(first, other)
    return found


def _incremental(plan: Plan, data: Path, manifest: dict[str, Any], full: Measured) -> dict[str, Any]:
    """Deliver 1 % more to our lakehouse, bring it up to date a day later, and compare with a rebuild from nothing."""
    as_of = date.fromisoformat(manifest["as_of_increment"])
    folder = _our_data(plan)
    for path in sorted((data / "increment" / "lines").glob("*.parquet")):
        os.link(path, folder / "lines" / path.name)
    changed = _measure(plan, "ours", folder, as_of, "--keep")
    _measure(plan, "ours", folder, as_of, out="ours_rebuilt")
    grown = _our_result("incremental", plan.work / "ours" / "lake", as_of)
    rebuilt = _our_result("rebuilt", plan.work / "ours_rebuilt" / "lake", as_of)
    say(f"1 % new lines: {changed.cost}")
    return {
        "lines": manifest["increment"]["delivered"],
        **asdict(changed.cost),
        "steps": changed.steps,
        "cpu_share": round(changed.cost.cpu / full.cost.cpu, 3),
        "wall_share": round(changed.cost.wall / full.cost.wall, 3),
        "cpu_share_without_session": round(_without_session(changed) / _without_session(full), 3),
        "differences": differences(grown, rebuilt),
    }


def _without_session(measured: Measured) -> float:
    return sum(s["cpu"] for name, s in measured.steps.items() if name != "session")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {p: version(p) for p in ("pyspark", "delta-spark", "duckdb", "polars")}


# Saying it ----------------------------------------------------------------------------------------------------------


def markdown(report: dict[str, Any], *, profile: bool = False) -> str:
    """The report as a page; ratios first, seconds beside them."""
    lines = [
        f"# Benchmark: {report['customers']:,} customers, {report['lines']:,} delivered lines",
        "",
        f"{report['finished_at']}, {report['cores']} cores used, {report['machine']}. "
        + ", ".join(f"{k} {v}" for k, v in report["versions"].items()),
        "",
    ]
    engines = report["engines"]
    base = engines.get(REFERENCE) or next(iter(engines.values()))
    name = REFERENCE if REFERENCE in engines else next(iter(engines))
    lines += [
        f"Ratios are to {LABELS[name]}; CPU is user and system seconds of all processes of an engine.",
        "",
        "| engine | CPU ratio | wall ratio | peak memory GB | CPU s | wall s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {LABELS[n]} | {e['cpu'] / base['cpu']:.2f} | {e['wall'] / base['wall']:.2f} | {e['peak_gb']:.1f} "
        f"| {e['cpu']:.1f} | {e['wall']:.1f} |"
        for n, e in engines.items()
    ]
    if "ours" in engines and LAYERED in engines:
        ours, same = engines["ours"], engines[LAYERED]
        said = (
            f"To {LABELS[LAYERED]}, as a lakehouse does: CPU {ours['cpu'] / same['cpu']:.2f}, "
            f"wall {ours['wall'] / same['wall']:.2f}."
        )
        lines += ["", said]
    grown = report.get("incremental")
    if grown:
        said = (
            f"{grown['lines']:,} new lines (1 %, a day later) in our lakehouse cost {grown['cpu_share']:.1%} of the "
            f"CPU and {grown['wall_share']:.1%} of the wall time of a full run; without the session's start "
            f"{grown['cpu_share_without_session']:.1%} of the CPU. Peak memory {grown['peak_gb']:.1f} GB."
        )
        lines += ["", said]
    wrong = report["differences"]
    lines += ["", "All results agree." if not wrong else "**Results differ:**", *(f"- {w}" for w in wrong)]
    if profile:
        for n, e in [*engines.items(), *([("1 % new lines", grown)] if grown else [])]:
            lines += [
                "",
                f"## Steps of {LABELS.get(n, n)}",
                "",
                "| step | CPU s | share | wall s |",
                "|---|---:|---:|---:|",
            ]
            total = sum(s["cpu"] for s in e["steps"].values()) or 1
            lines += [
                f"| {step} | {s['cpu']:.1f} | {s['cpu'] / total:.0%} | {s['wall']:.1f} |"
                for step, s in e["steps"].items()
            ]
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    print(f"bench: {text}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(generate.SIZES), default="100k")
    parser.add_argument("--work", type=Path, default=Path("data/bench"), help="folder for everything it makes")
    parser.add_argument("--engines", default="duckdb,duckdb-layers,ours,polars", help=f"of {', '.join(LABELS)}")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 2))
    parser.add_argument("--memory-gb", type=float, default=3.0, help="limit each engine is given; the heap of the JVM")
    parser.add_argument("--no-incremental", action="store_true")
    parser.add_argument("--profile", action="store_true", help="show what each step cost")
    args = parser.parse_args(argv)
    engines = tuple(e.strip() for e in args.engines.split(",") if e.strip())
    unknown = [e for e in engines if e not in LABELS]
    if unknown:
        parser.error(f"unknown engine {', '.join(unknown)}; engines are {', '.join(LABELS)}")
    plan = Plan(
        args.size, args.work.resolve(), engines, args.rounds, args.threads, args.memory_gb, not args.no_incremental
    )
    report = run(plan)
    page = markdown(report, profile=args.profile)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{args.size}.json").write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    (RESULTS / f"{args.size}.md").write_text(markdown(report, profile=True), encoding="utf-8")
    print(page)
    return 1 if report["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
