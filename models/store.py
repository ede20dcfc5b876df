"""Where models are kept, and versions of any kind of model in it: registered, gated, found for a day, taken back.

A version carries the day it has learnt up to and whether its gate let it through. The champion of a day is the newest
accepted version that has seen nothing of that day, so a run for a past day never scores with a model that knows more;
and that takes what models of its kind are given today, for another cannot score.

Locally the store is an SQLite file under the data directory; on Databricks it is the workspace's, with models in Unity
Catalog. The same names and aliases work in both.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import pandas as pd

from lakehouse.errors import ModelError
from lakehouse.logs import get_logger
from lakehouse.settings import Settings

log = get_logger(__name__)

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"
WITHDRAWN: Final = "withdrawn"
CLUSTERS: Final = "customer_clusters"
OUTLOOK: Final = "customer_outlook"
TRAINED_WHEN_DUE: Final = (CLUSTERS, OUTLOOK)
"""Kinds of model that are trained by themselves; the others are when somebody asks."""
DUE_DAYS: Final = 30
_INPUTS: Final = {CLUSTERS: ("models.clustering", "FEATURES"), OUTLOOK: ("models.rhythm", "NAMES")}
"""Where the names of what a kind of model is given stand."""
_UNSAID: Final = {CLUSTERS: "aaa6c994551de57a", OUTLOOK: "9c3728b090f54708"}
"""Inputs of versions and attempts from before they said any."""
_NO_MODEL: Final = "no model"
_PICKLE: Final = "model.pkl"
_SAID: Final = "version"
"""Tag of a run with all that is said of its version; one of an earlier release carries it itself."""
_STATUS: Final = "segmentation_status"
"""Tag of a version. In Unity Catalog such a tag holds 256 characters, and may be read far away."""


@dataclass(frozen=True)
class ModelStore:
    """Where models are kept.

    Attributes:
        tracking_uri: MLflow tracking store.
        registry_uri: MLflow model registry.
        folder: Local folder of store and artifacts; None when the store is a workspace's.
        catalog: First part of registered names.
    """

    tracking_uri: str
    registry_uri: str
    folder: Path | None
    catalog: str

    @classmethod
    def of(cls, settings: Settings) -> ModelStore:
        """Returns the store of the settings: the workspace's when there is a catalog, else under `data_dir`."""
        if settings.catalog:
            return cls("databricks", "databricks-uc", None, settings.catalog)
        folder = settings.data_dir.resolve() / "mlflow"
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        return cls(uri, uri, folder, "local")

    def model_name(self, kind: str, merchant_id: str) -> str:
        """Returns the registered name of a merchant's model of a kind, `catalog.schema.model`."""
        return f"{self.catalog}.feature.{kind}_{re.sub(r'[^a-z0-9]+', '_', merchant_id.lower())}"


@dataclass(frozen=True)
class Version:
    """One registered version of a model.

    Attributes:
        name: Registered name.
        number: Version number.
        merchant_id: Retailer it is for.
        as_of: It has learnt from nothing of this day or later.
        status: accepted, refused by its gate, or withdrawn by a roll-back.
        reason: What the gate said.
        run_id: MLflow run that trained it.
        file: The pickled model within the local folder of the store; None when the store is a workspace's.
        inputs: Fingerprint of the names of what it is given; see `inputs_of`.
        numbers_given: From here on numbers of clusters are new, whatever versions there were; None where that was not
            kept, and of other kinds.
    """

    name: str
    number: int
    merchant_id: str
    as_of: str
    status: str
    reason: str
    run_id: str
    file: str | None
    inputs: str = ""
    numbers_given: int | None = None

    @property
    def label(self) -> str:
        """What a scored row carries: `name/number`."""
        return f"{self.name}/{self.number}"


@dataclass(frozen=True)
class Training:
    """What a training run leaves behind.

    Attributes:
        params: Anything that decided the outcome: seed, features, settings.
        metrics: Numbers it was judged by, those of baselines among them.
        card: Plain-language card, Markdown.
        figures: Plots by file name.
        data_versions: Delta version of each table it read.
        curves: Metrics by a step such as the number of clusters.
    """

    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    card: str
    figures: Mapping[str, Any]
    data_versions: Mapping[str, int | None]
    curves: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """A training that gave no model.

    Attributes:
        kind: Kind of model.
        merchant_id: Retailer.
        as_of: Day it was to be for.
        inputs: See `Version`.
    """

    kind: str
    merchant_id: str
    as_of: str
    inputs: str = ""


def log_attempt(
    store: ModelStore, kind: str, *, merchant_id: str, as_of: date, reason: str, training: Training | None = None
) -> None:
    """Log a training that gave no model, and why; it counts as tried (see `is_due`)."""
    with mlflow_at(store) as mlflow:
        client = mlflow.MlflowClient()
        with mlflow.start_run(experiment_id=experiment(client, store, kind), run_name=f"{merchant_id} {as_of}"):
            _log_training(mlflow, training or Training({}, {}, f"{reason}\n", {}, {}), merchant_id, as_of)
            # Last, because an attempt counts only with these tags.
            mlflow.set_tags({"outcome": _NO_MODEL, "reason": reason[:5000], "inputs": inputs_of(kind)})
        _refresh(client, store)


def inputs_of(kind: str) -> str:
    """Returns a fingerprint of the names of what models of a kind are given; of those that bring their own, nothing."""
    if kind not in _INPUTS:
        return ""
    module, name = _INPUTS[kind]
    return hashlib.sha256(", ".join(getattr(importlib.import_module(module), name)).encode()).hexdigest()[:16]


def is_due(store: ModelStore, kind: str, merchant_id: str, as_of: date, waits_days: Callable[[Version], int]) -> bool:
    """Whether a new version should be tried.

    That is when none was with today's inputs, or when the last attempt, fruitless or not, is 30 days old and the
    champion at least as old as it takes until there are days to compare on that it has not seen.

    Args:
        store: Where versions are.
        kind: Kind of model.
        merchant_id: Retailer.
        as_of: The day; what was tried for later ones does not count.
        waits_days: Days a champion stays without a rival.
    """
    name = store.model_name(kind, merchant_id)
    versions, attempts = _known(store, name)
    tried = [v.as_of for v in versions if v.name == name and _takes_todays(v, kind)]
    tried += [a.as_of for a in attempts if (a.kind, a.merchant_id) == (kind, merchant_id) and _takes_todays(a, kind)]
    days = [d for d in map(date.fromisoformat, tried) if d <= as_of]
    if not days:
        return True
    champion = champion_for(store, kind, merchant_id, as_of)
    is_young = champion is not None and (as_of - date.fromisoformat(champion.as_of)).days < waits_days(champion)
    return (as_of - max(days)).days >= DUE_DAYS and not is_young


def register_version(
    store: ModelStore,
    kind: str,
    model: Any,
    training: Training,
    *,
    merchant_id: str,
    as_of: date,
    is_accepted: bool,
    reason: str,
    predict: Callable[[pd.DataFrame], Any],
    example: pd.DataFrame,
    numbers_given: int | None = None,
) -> Version:
    """Log a training run, register its model, and give it the alias its gate earned.

    Args:
        store: Where to.
        kind: First part of the registered model's own name, such as `customer_outlook`.
        model: The model itself; pickled for scoring in Spark.
        training: What to log.
        merchant_id: Retailer.
        as_of: Day it has learnt up to, exclusive.
        is_accepted: Whether the gate let it through.
        reason: What the gate said.
        predict: What the model answers whoever loads it by its alias.
        example: Input example for that; made up, because it stays with the model for ever.
        numbers_given: See `Version`.
    """
    import cloudpickle
    import sklearn

    name = store.model_name(kind, merchant_id)
    with mlflow_at(store) as mlflow:
        client = mlflow.MlflowClient()
        with mlflow.start_run(experiment_id=experiment(client, store, kind), run_name=f"{merchant_id} {as_of}") as run:
            _log_training(mlflow, training, merchant_id, as_of)
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=_served(predict),
                signature=mlflow.models.infer_signature(example, predict(example)),
                input_example=example,
                pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
            )
            if _if_there(client.get_registered_model, name) is None:
                client.create_registered_model(name)
            made = client.create_model_version(name, logged.model_uri, run_id=run.info.run_id, model_id=logged.model_id)
            number = int(made.version)
            kept = _keep(store, client, run.info.run_id, f"{kind}-{number}.pkl", cloudpickle.dumps(model))
            status = ACCEPTED if is_accepted else REFUSED
            day, inputs = as_of.isoformat(), inputs_of(kind)
            said = (status, reason, run.info.run_id, kept, inputs, numbers_given)
            version = Version(name, number, merchant_id, day, *said)
            mlflow.set_tag(_SAID, json.dumps(asdict(version)))
            # Last, because a version counts only with this tag: a run that dies before leaves nothing half made.
            client.set_model_version_tag(name, str(number), _STATUS, status)
        _set_aliases(client, store, name)
        _refresh(client, store)
    return version


def _served(answer: Callable[[pd.DataFrame], Any]) -> Any:
    import mlflow.pyfunc

    class Served(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
            return answer(model_input)

    return Served()


def _log_training(mlflow: Any, training: Training, merchant_id: str, as_of: date) -> None:
    mlflow.log_params({"merchant_id": merchant_id, "as_of": as_of.isoformat(), **training.params})
    mlflow.log_params({f"version of {t}": v for t, v in training.data_versions.items()})
    mlflow.log_metrics({k: float(v) for k, v in training.metrics.items()})
    for metric, by_step in training.curves.items():
        for step, value in by_step.items():
            mlflow.log_metric(metric, float(value), step=step)
    mlflow.log_text(training.card, "model_card.md")
    for file, figure in training.figures.items():
        mlflow.log_figure(figure, file)


def all_versions(store: ModelStore) -> list[Version]:
    """Every gated version of every model, by name and number."""
    return sorted(_known(store)[0], key=lambda v: (v.name, v.number))


def versions_of(store: ModelStore, kind: str, merchant_id: str) -> list[Version]:
    """Every version of a merchant's model, oldest first."""
    name = store.model_name(kind, merchant_id)
    return sorted((v for v in _known(store, name)[0] if v.name == name), key=lambda v: v.number)


def champion_for(store: ModelStore, kind: str, merchant_id: str, as_of: date) -> Version | None:
    """Returns the newest accepted version that has seen nothing of a day and takes today's inputs; None without one."""
    usable = [
        v
        for v in versions_of(store, kind, merchant_id)
        if v.status == ACCEPTED and date.fromisoformat(v.as_of) <= as_of and _takes_todays(v, kind)
    ]
    return max(usable, key=lambda v: (v.as_of, v.number), default=None)


def load_model(store: ModelStore, version: Version) -> Any:
    """Returns the model of a version as it was registered.

    Raises:
        ModelError: Its file is gone, or is of code that is.
    """
    import cloudpickle

    try:
        if version.file is not None and store.folder is not None:
            return cloudpickle.loads((store.folder / version.file).read_bytes())
        with mlflow_at(store) as mlflow:
            local = mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path=_PICKLE)
            return cloudpickle.loads(Path(local).read_bytes())
    except Exception as e:  # of the file, of the store, or whatever code of another release raises
        kind = next((k for k in TRAINED_WHEN_DUE if store.model_name(k, version.merchant_id) == version.name), OUTLOOK)
        raise ModelError(
            f"Model {version.label} cannot be read any more ({type(e).__name__}). Train another with `segmentation "
            f"segments --retrain`, or go back to the one before with `segmentation models rollback "
            f"{version.merchant_id} --kind {kind}`."
        ) from e


def load_if_readable(store: ModelStore, version: Version | None) -> Any | None:
    """Returns the model of a version; None without one, or when it cannot be read: that must not end training."""
    try:
        return load_model(store, version) if version is not None else None
    except ModelError as e:
        log.warning("model not readable", extra={"error": str(e)})
        return None


def roll_back(store: ModelStore, kind: str, merchant_id: str) -> tuple[Version, Version]:
    """Withdraw the champion and put the version before it back; returns both.

    Raises:
        ModelError: when there is no champion, or none before it.
    """
    usable = [v for v in versions_of(store, kind, merchant_id) if _takes_todays(v, kind)]
    accepted = [v for v in usable if v.status == ACCEPTED]
    accepted.sort(key=lambda v: (v.as_of, v.number))
    if len(accepted) < 2:
        raise ModelError(
            f"{store.model_name(kind, merchant_id)} has {len(accepted)} accepted version(s); a roll-back needs the "
            "champion and one before it."
        )
    before, champion = accepted[-2:]
    withdrawn = Version(**asdict(champion) | {"status": WITHDRAWN})
    with mlflow_at(store) as mlflow:
        client = mlflow.MlflowClient()
        client.set_model_version_tag(champion.name, str(champion.number), _STATUS, WITHDRAWN)
        _set_aliases(client, store, champion.name)
        _refresh(client, store)
    return withdrawn, before


@contextmanager
def mlflow_at(store: ModelStore) -> Iterator[Any]:
    """MLflow pointed at the store, quiet, and pointed back afterwards."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if store.folder:
        store.folder.mkdir(parents=True, exist_ok=True)
    import mlflow
    import mlflow.pyfunc
    import mlflow.sklearn

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(store.tracking_uri)
    mlflow.set_registry_uri(store.registry_uri)
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


def experiment(client: Any, store: ModelStore, kind: str) -> str:
    """Returns the id of a kind's experiment, made when it is new.

    An experiment keeps for ever where its artifacts go. In a data directory that has been moved since, another one goes
    on, named after the place; else training would write outside of it.
    """
    name = _experiment_name(store, kind)
    # Without a location artifacts would land in the directory the command happens to be started from.
    location = (store.folder / "artifacts").as_uri() if store.folder else None
    known = {e.name: e for e in _experiments(client, store, kind)}
    if location and name in known and known[name].artifact_location != location:
        name = f"{name} in {store.folder}"
    if name in known:
        return str(known[name].experiment_id)
    return str(client.create_experiment(name, artifact_location=location))


def stamp_of(store: ModelStore) -> int | None:
    """Changes whenever the local store does; None without a local store or before its first use."""
    path = store.folder / "mlflow.db" if store.folder else None
    return path.stat().st_mtime_ns if path is not None and path.exists() else None


def _keep(store: ModelStore, client: Any, run_id: str, file: str, content: bytes) -> str | None:
    if store.folder is None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _PICKLE
            path.write_bytes(content)
            client.log_artifact(run_id, str(path))
        return None
    # Beside the artifacts as well: from here it is read without MLflow, whose import takes seconds.
    path = store.folder / "models" / run_id / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.relative_to(store.folder).as_posix()


def _takes_todays(tried: Version | Attempt, kind: str) -> bool:
    return (tried.inputs or _UNSAID.get(kind, "")) == inputs_of(kind)


def _set_aliases(client: Any, store: ModelStore, name: str) -> None:
    versions = _registered(client, store, name)
    accepted = [v for v in versions if v.status == ACCEPTED]
    champion = max(accepted, key=lambda v: (v.as_of, v.number), default=None)
    waiting = [v for v in versions if v.status == REFUSED and (champion is None or v.number > champion.number)]
    held = client.get_registered_model(name).aliases
    for alias, version in ((CHAMPION, champion), (CHALLENGER, max(waiting, key=lambda v: v.number, default=None))):
        if version is not None:
            client.set_registered_model_alias(name, alias, str(version.number))
        elif alias in held:
            client.delete_registered_model_alias(name, alias)


# A copy of what is registered beside the local store: importing MLflow takes seconds, and a run with nothing to train
# needs nothing else of it. It counts only as long as the store is as it was when the copy was made.


def _known(store: ModelStore, name: str | None = None) -> tuple[list[Version], list[Attempt]]:
    """Every version and attempt; of a workspace only the versions of `name`, since each of them costs a request."""
    stamp = stamp_of(store)
    if store.folder and stamp is None:
        return [], []
    path = store.folder / "versions.json" if store.folder else None
    if path is not None and path.exists():
        copy: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if copy["stamp"] == stamp and "attempts" in copy:
            return [Version(**v) for v in copy["versions"]], [Attempt(**a) for a in copy["attempts"]]
    with mlflow_at(store) as mlflow:
        client = mlflow.MlflowClient()
        return _refresh(client, store) if store.folder else (_registered(client, store, name), _attempts(client, store))


def _refresh(client: Any, store: ModelStore) -> tuple[list[Version], list[Attempt]]:
    if store.folder is None:
        return [], []
    versions, attempts = _registered(client, store), _attempts(client, store)
    copy = {
        "versions": [asdict(v) for v in versions],
        "attempts": [asdict(a) for a in attempts],
        "stamp": stamp_of(store),
    }
    fresh = store.folder / f"versions.{os.getpid()}.json"
    fresh.write_text(json.dumps(copy), encoding="utf-8")
    fresh.replace(store.folder / "versions.json")
    return versions, attempts


def _registered(client: Any, store: ModelStore, name: str | None = None) -> list[Version]:
    """Versions of one model or of all. Unity Catalog finds models by no filter, and versions without their tags."""
    ours = f"{store.catalog}.feature."
    names = [name] if name else [m.name for m in _all(client.search_registered_models) if m.name.startswith(ours)]
    found: list[Version] = []
    for of in names:
        for v in _if_there(_all, client.search_model_versions, f"name='{of}'") or ():
            whole = v if isinstance(v.tags, Mapping) else client.get_model_version(v.name, v.version)
            if _STATUS in whole.tags or _SAID in whole.tags:
                about = whole.tags if _SAID in whole.tags else client.get_run(whole.run_id).data.tags
                said = json.loads(about[_SAID])
                found.append(Version(**said | {"status": whole.tags.get(_STATUS, said["status"])}))
    return found


def _attempts(client: Any, store: ModelStore) -> list[Attempt]:
    found: set[tuple[str, str, str, str]] = set()
    for kind in TRAINED_WHEN_DUE:
        places = [e.experiment_id for e in _experiments(client, store, kind)]
        for run in _all(client.search_runs, places, f"tags.outcome = '{_NO_MODEL}'") if places else ():
            said = run.data.params
            # One begun by an earlier release may have been killed between its tags and its parameters.
            if {"merchant_id", "as_of"} <= said.keys():
                found.add((kind, said["merchant_id"], said["as_of"], run.data.tags.get("inputs", "")))
    return [Attempt(*a) for a in sorted(found)]


def _experiments(client: Any, store: ModelStore, kind: str) -> list[Any]:
    """Every experiment of a kind: of a local store one for each place it has been in."""
    name = _experiment_name(store, kind)
    if store.folder is None:
        found = client.get_experiment_by_name(name)
        return [found] if found else []
    known = _all(client.search_experiments)
    return [e for e in known if e.name == name or e.name.startswith(f"{name} in ")]


def _all(search: Callable[..., Any], *asked: Any) -> list[Any]:
    """What a search of MLflow finds, of every page."""
    page = search(*asked)
    found = list(page)
    while page.token:
        page = search(*asked, page_token=page.token)
        found += page
    return found


def _if_there(ask: Callable[..., Any], *asked: Any) -> Any | None:
    """What a registry answers; None where it holds no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask(*asked)
    except MlflowException as e:
        if e.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _experiment_name(store: ModelStore, kind: str) -> str:
    name = kind.replace("_", "-")
    return name if store.folder else f"/Shared/{store.catalog}-{name}"
