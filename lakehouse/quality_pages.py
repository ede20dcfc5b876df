"""The data docs of the checks: one page per table with its latest results, and an index, readable without network."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path
from typing import Any

from lakehouse.declare import Table
from lakehouse.runner import Run


def write_pages(folder: Path, checked: Iterable[tuple[Table, list[Any], Run]]) -> Path:
    """Write the pages of the tables just checked; pages of other tables stay, and the index lists all.

    Args:
        folder: Holds `results/` (JSON) and `site/` (HTML).
        checked: Table, its Great Expectations results, and the run they are from.

    Returns:
        The index page.
    """
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    context = _context(folder)
    written = []
    for table, results, run in {t.name: (t, r, u) for t, r, u in checked}.values():
        suite = ExpectationSuiteIdentifier(name=table.name)
        for old in (folder / "results", folder / "site" / "validations"):
            shutil.rmtree(old.joinpath(*table.name.split(".")), ignore_errors=True)
        passed = sum(bool(r.success) for r in results)
        begun = run.started_at.replace(tzinfo=UTC)
        # A name that reads like a time is read as one: 20261127T115811-2560ad would be 26 hours west of Greenwich.
        of_run = RunIdentifier(run_name=f"run_{run.run_id}", run_time=begun)
        outcome = ExpectationSuiteValidationResult(
            success=passed == len(results),
            results=results,
            suite_name=table.name,
            statistics={
                "evaluated_expectations": len(results),
                "successful_expectations": passed,
                "unsuccessful_expectations": len(results) - passed,
                "success_percent": 100 * passed / len(results) if results else None,
            },
            meta={
                "run_id": of_run,
                "batch_markers": {},
                "active_batch_definition": {"data_asset_name": table.name},
            },
        )
        key = ValidationResultIdentifier(
            expectation_suite_identifier=suite,
            run_id=of_run,
            batch_identifier="latest",
        )
        context.validation_results_store.store_validation_results(outcome, key, suite)
        written.append(key)
    context.build_data_docs(resource_identifiers=written)
    return folder / "site" / "index.html"


def _context(folder: Path) -> Any:
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig

    def files(kind: str, under: str) -> dict[str, Any]:
        return {
            "class_name": kind,
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder / under)},
        }

    def memory(kind: str) -> dict[str, Any]:
        return {"class_name": kind, "store_backend": {"class_name": "InMemoryStoreBackend"}}

    site = files("SiteBuilder", "site") | {
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = DataContextConfig(
        stores={
            "expectations_store": memory("ExpectationsStore"),
            "validation_definition_store": memory("ValidationDefinitionStore"),
            "checkpoint_store": memory("CheckpointStore"),
            "validation_results_store": files("ValidationResultsStore", "results"),
        },
        expectations_store_name="expectations_store",
        validation_results_store_name="validation_results_store",
        checkpoint_store_name="checkpoint_store",
        data_docs_sites={"site": site},
        analytics_enabled=False,
        progress_bars={"globally": False},
    )
    return gx.get_context(project_config=config, mode="ephemeral")
