"""Cluster models in MLflow: what was tried, what was chosen and why, and which version scores."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

from models.card import describe_training
from models.clustering import FEATURES, ClusterModel, apply_numbers
from models.selection import BOOTSTRAPS, SEED, Selection
from models.store import CHAMPION, ModelStore, experiment, mlflow_at, stamp_of

EXPERIMENT: Final = "customer-clusters"
_NUMBERS: Final = "cluster_model.json"


def find_clusters(store: ModelStore, merchant_id: str, as_of: date) -> ClusterModel | None:
    """Returns the newest version trained on features no younger than `as_of`, None when there is none.

    A run for a past day so never scores with a model that has seen later days.
    """
    models = [_model_of(m) for m in _known(store)["models"]]
    known = [m for m in models if m.merchant_id == merchant_id and m.as_of <= as_of]
    return max(known, key=lambda m: (m.as_of, _number(m)), default=None)


def was_tried(store: ModelStore, merchant_id: str, month: date) -> bool:
    """Whether training for a merchant was tried in a month without giving a model."""
    return f"{merchant_id}@{month:%Y-%m}" in _known(store)["fruitless"]


def register_clusters(
    store: ModelStore,
    selection: Selection,
    *,
    merchant_id: str,
    as_of: date,
    data_versions: Mapping[str, int | None],
    moved: float | None = None,
) -> ClusterModel | None:
    """Log a training run and, when it gave a model, register it.

    The `champion` alias goes to the version of the latest day, so retraining a past day does not replace it.

    Args:
        store: Where to.
        selection: What training gave.
        merchant_id: Retailer.
        as_of: Day of the features.
        data_versions: Delta version of each table the features came from.
        moved: Part of the customers in another cluster than by the version before; None for the first.

    Returns:
        The model with its registered version, `name/number`; None when training gave none.
    """
    model = None
    with mlflow_at(store) as mlflow:
        client = mlflow.MlflowClient()
        name = store.cluster_model_name(merchant_id)
        of_clusters = experiment(client, store, EXPERIMENT)
        with mlflow.start_run(experiment_id=of_clusters, run_name=f"{merchant_id} {as_of}"):
            _log_training(mlflow, selection, merchant_id, as_of, data_versions)
            if moved is not None:
                mlflow.log_metric("moved_share", moved)
            if selection.model is not None:
                version = _log_model(mlflow, selection, name)
                model = replace(selection.model, version=f"{name}/{version}")
                mlflow.log_dict(asdict(model) | {"as_of": as_of.isoformat()}, _NUMBERS)
                # Last, because a version counts only with this tag: a run that dies before leaves nothing half made.
                client.set_model_version_tag(name, str(version), "as_of", as_of.isoformat())
        if model is not None:
            of_merchant = [m for m in _registered(client, store) if m.merchant_id == merchant_id]
            newest = max(of_merchant, key=lambda m: (m.as_of, _number(m)))
            client.set_registered_model_alias(name, CHAMPION, str(_number(newest)))
        _refresh_copy(client, store)
    return model


def _log_training(
    mlflow: Any, selection: Selection, merchant_id: str, as_of: date, data_versions: Mapping[str, int | None]
) -> None:
    chosen = selection.model.k if selection.model else None
    mlflow.log_params(
        {
            "merchant_id": merchant_id,
            "as_of": as_of.isoformat(),
            "features": ", ".join(FEATURES),
            "seed": SEED,
            "bootstraps": BOOTSTRAPS,
            "rows": selection.rows,
            "k": chosen,
            **{f"version of {table}": version for table, version in data_versions.items()},
        }
    )
    mlflow.set_tag("outcome", "model" if selection.model else "no model")
    for c in selection.candidates:
        for metric, value in {
            "ari": c.ari,
            "ari_min": c.ari_min,
            "jaccard_min": c.jaccard_min,
            "min_share": c.min_share,
            **({"spend_r2": c.spend_r2} if c.spend_r2 is not None else {}),
        }.items():
            mlflow.log_metric(f"by_k_{metric}", value, step=c.k)
            if c.k == chosen:
                mlflow.log_metric(metric, value)
    mlflow.log_text(describe_training(selection, merchant_id, as_of), "model_card.md")


def _log_model(mlflow: Any, selection: Selection, name: str) -> int:
    import numpy as np
    import pandas as pd
    import sklearn

    if selection.model is None or selection.pipeline is None:
        raise ValueError("there is no model to log")
    pipeline = apply_numbers(selection.pipeline, selection.model)
    # Made up, because an example stays with the model for ever: no customer's own numbers.
    example = pd.DataFrame([[7.0, 20.0, 500.0], [90.0, 2.0, 30.0]], columns=list(FEATURES))
    logged = mlflow.sklearn.log_model(
        pipeline,
        name="model",
        signature=mlflow.models.infer_signature(example, pipeline.predict(example)),
        input_example=example,
        # Inferring them takes over 50 times as long as saying them.
        pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"numpy=={np.__version__}"],
        serialization_format="cloudpickle",
    )
    # By hand rather than by `registered_model_name`, which prints to stderr.
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    made = client.create_model_version(name, logged.model_uri, run_id=logged.run_id, model_id=logged.model_id)
    return int(made.version)


def _registered(client: Any, store: ModelStore) -> list[ClusterModel]:
    """Every registered cluster model with its numbers."""
    import mlflow

    prefix = store.cluster_model_name("")
    found: list[ClusterModel] = []
    for registered in client.search_registered_models():
        if not registered.name.startswith(prefix):
            continue
        for version in client.search_model_versions(f"name='{registered.name}'"):
            if "as_of" in version.tags:  # without the tag the run died before it logged the numbers
                numbers = mlflow.artifacts.load_dict(f"runs:/{version.run_id}/{_NUMBERS}")
                found.append(_model_of(numbers))
    return found


def _fruitless(client: Any, store: ModelStore) -> list[str]:
    """Merchant and month of every training that gave no model."""
    runs = client.search_runs([experiment(client, store, EXPERIMENT)], "tags.outcome = 'no model'", max_results=1_000)
    return sorted({f"{r.data.params['merchant_id']}@{r.data.params['as_of'][:7]}" for r in runs})


# A copy of the numbers beside the local store: importing MLflow takes seconds, and a run with nothing to train needs
# nothing else of it. It counts only as long as the store is as it was when the copy was made.


def _known(store: ModelStore) -> dict[str, Any]:
    stamp = stamp_of(store)
    if store.folder and stamp is None:
        return {"models": [], "fruitless": []}
    path = store.folder / "clusters.json" if store.folder else None
    if path is not None and path.exists():
        copy: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if copy["stamp"] == stamp:
            return copy
    with mlflow_at(store) as mlflow:
        return _refresh_copy(mlflow.MlflowClient(), store)


def _refresh_copy(client: Any, store: ModelStore) -> dict[str, Any]:
    models = [asdict(m) | {"as_of": m.as_of.isoformat()} for m in _registered(client, store)]
    content = {"models": models, "fruitless": _fruitless(client, store), "stamp": stamp_of(store)}
    if store.folder:
        with tempfile.NamedTemporaryFile("w", dir=store.folder, delete=False, encoding="utf-8") as written:
            json.dump(content, written)
        Path(written.name).replace(store.folder / "clusters.json")
    return content


def _model_of(numbers: Mapping[str, Any]) -> ClusterModel:
    return ClusterModel(
        merchant_id=numbers["merchant_id"],
        version=numbers["version"],
        as_of=date.fromisoformat(numbers["as_of"]),
        means=tuple(numbers["means"]),
        scales=tuple(numbers["scales"]),
        centres=tuple(tuple(c) for c in numbers["centres"]),
        names=tuple(numbers["names"]),
    )


def _number(model: ClusterModel) -> int:
    return int(model.version.rpartition("/")[2])
