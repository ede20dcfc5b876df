"""What is registered is found again, in a registry that answers as Unity Catalog's does and in a local one."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from datetime import date
from functools import partialmethod
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lakehouse.errors import ModelError
from models.store import (
    CLUSTERS,
    OUTLOOK,
    ModelStore,
    Training,
    Version,
    all_versions,
    champion_for,
    experiment,
    is_due,
    load_if_readable,
    load_model,
    log_attempt,
    mlflow_at,
    register_version,
    roll_back,
    versions_of,
)

AS_OF = date(2018, 1, 1)
LATER = date(2018, 6, 1)
NOTHING = Training({}, {}, "card", {}, {})


def unity(mlflow: Any) -> type:
    """A client of which searches take and give what Unity Catalog's do, one thing a page."""
    from mlflow.entities.model_registry.model_version_search import ModelVersionSearch
    from mlflow.entities.model_registry.registered_model_search import RegisteredModelSearch
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
    from mlflow.store.entities import PagedList

    class Unity(mlflow.MlflowClient):  # type: ignore[misc, name-defined]
        def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
            if len(value) > 256:
                raise MlflowException("Tag values have at most 256 characters.")
            super().set_model_version_tag(name, version, key, value)

        def search_registered_models(self, filter_string: str | None = None, *, page_token: Any = None) -> Any:
            if filter_string:
                raise MlflowException("Argument 'filter_string' is unsupported for models in the Unity Catalog.")
            found = super().search_registered_models(max_results=1, page_token=page_token)
            return PagedList([RegisteredModelSearch(m.name) for m in found], found.token)

        def search_model_versions(self, filter_string: str, *, page_token: Any = None) -> Any:
            found = super().search_model_versions(filter_string, max_results=1, page_token=page_token)
            if not found:
                raise MlflowException("There is no such model.", error_code=RESOURCE_DOES_NOT_EXIST)
            return PagedList([ModelVersionSearch(v.name, v.version, v.creation_timestamp) for v in found], found.token)

    return Unity


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store nothing has been logged to: making its tables takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with mlflow_at(store_in(folder)) as mlflow:
        mlflow.MlflowClient().search_registered_models()
    return folder


@pytest.fixture
def local(empty_store: Path, tmp_path: Path) -> ModelStore:
    shutil.copytree(empty_store, tmp_path / "mlflow")
    return store_in(tmp_path / "mlflow")


@pytest.fixture
def workspace(local: ModelStore, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """The same as a workspace keeps it: in no folder of ours, and with Unity Catalog's searches."""
    assert local.folder is not None
    monkeypatch.chdir(local.folder)  # without a folder of ours, artifacts land where the command was started
    with mlflow_at(local) as mlflow:
        monkeypatch.setattr(mlflow, "MlflowClient", unity(mlflow))
    return ModelStore(local.tracking_uri, local.registry_uri, None, "main")


def store_in(folder: Path) -> ModelStore:
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    return ModelStore(uri, uri, folder, "local")


def register(store: ModelStore, model: object, as_of: date, kind: str = OUTLOOK) -> Version:
    return register_version(
        store,
        kind,
        model,
        NOTHING,
        merchant_id="shop",
        as_of=as_of,
        is_accepted=True,
        reason="good",
        predict=lambda given: given["n"],
        example=pd.DataFrame({"n": [1.0]}),
    )


def test_unity_catalog_registers_lists_finds_and_takes_back(workspace: ModelStore) -> None:
    assert versions_of(workspace, OUTLOOK, "shop") == []
    one, two = register(workspace, "first", AS_OF), register(workspace, "second", LATER)
    other = register(workspace, "other", AS_OF, CLUSTERS)

    assert all_versions(workspace) == [other, one, two]
    assert versions_of(workspace, OUTLOOK, "shop") == [one, two]
    assert champion_for(workspace, OUTLOOK, "shop", LATER) == two
    assert load_model(workspace, two) == "second"
    withdrawn, back = roll_back(workspace, OUTLOOK, "shop")
    assert (withdrawn.number, back) == (2, one)
    assert champion_for(workspace, OUTLOOK, "shop", LATER) == one


def test_versions_that_an_earlier_release_registered_are_found_and_taken_back(local: ModelStore) -> None:
    """They carry all that is said of them themselves."""
    one, two = register(local, "first", AS_OF), register(local, "second", LATER)
    with mlflow_at(local) as mlflow:
        client = mlflow.MlflowClient()
        for v in (one, two):
            client.set_model_version_tag(v.name, str(v.number), "version", json.dumps(asdict(v)))
            client.delete_model_version_tag(v.name, str(v.number), "segmentation_status")
            client.delete_tag(v.run_id, "version")

    assert versions_of(local, OUTLOOK, "shop") == [one, two]
    withdrawn, _ = roll_back(local, OUTLOOK, "shop")
    assert versions_of(local, OUTLOOK, "shop") == [one, withdrawn]


def test_models_beyond_the_first_page_are_seen(local: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with mlflow_at(local) as mlflow:
        mlflow.MlflowClient().create_registered_model("another.catalog.model")
        search = mlflow.MlflowClient.search_registered_models
        monkeypatch.setattr(mlflow.MlflowClient, "search_registered_models", partialmethod(search, max_results=1))

    one = register(local, "model", AS_OF)

    assert all_versions(local) == [one]


def test_a_model_whose_file_is_gone_says_which_and_what_to_do(local: ModelStore) -> None:
    lost = register(local, "first", AS_OF)
    assert local.folder is not None
    assert lost.file is not None
    (local.folder / lost.file).unlink()

    with pytest.raises(ModelError) as raised:
        load_model(local, lost)

    said = str(raised.value)
    assert f"Model {lost.label} cannot be read any more (FileNotFoundError)" in said
    assert "`segmentation segments --retrain`" in said
    assert "`segmentation models rollback shop --kind customer_outlook`" in said
    assert load_if_readable(local, lost) is None  # another is trained without it


def test_an_attempt_killed_half_way_is_none_and_stops_nobody(
    local: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("models.store._log_training", killed)
        with pytest.raises(KeyboardInterrupt):
            log_attempt(local, OUTLOOK, merchant_id="shop", as_of=AS_OF, reason="too few")
    # What an earlier release left behind when it was killed: tags without parameters.
    with mlflow_at(local) as mlflow:
        client = mlflow.MlflowClient()
        client.create_run(experiment(client, local, OUTLOOK), tags={"outcome": "no model"})

    assert is_due(local, OUTLOOK, "shop", AS_OF, lambda _: 90)
    log_attempt(local, OUTLOOK, merchant_id="shop", as_of=AS_OF, reason="too few")
    assert not is_due(local, OUTLOOK, "shop", AS_OF, lambda _: 90)
    monkeypatch.setattr("models.rhythm.NAMES", ("another",))
    assert is_due(local, OUTLOOK, "shop", AS_OF, lambda _: 90)


def test_a_store_that_was_moved_goes_on_where_it_is(local: ModelStore, tmp_path: Path) -> None:
    register(local, "first", AS_OF)
    log_attempt(local, CLUSTERS, merchant_id="shop", as_of=AS_OF, reason="too few")
    assert local.folder is not None
    moved = store_in(local.folder.rename(tmp_path / "moved here"))

    two = register(moved, "second", LATER)
    log_attempt(moved, CLUSTERS, merchant_id="shop", as_of=LATER, reason="too few")

    assert [load_model(moved, v) for v in versions_of(moved, OUTLOOK, "shop")] == ["first", "second"]
    assert not local.folder.exists()
    assert experiments(moved) == ["customer-outlook", f"customer-outlook in {moved.folder}"]
    with mlflow_at(moved) as mlflow:
        assert [f.path for f in mlflow.MlflowClient().list_artifacts(two.run_id)] == ["model_card.md"]
    for day in (AS_OF, LATER):
        assert not is_due(moved, CLUSTERS, "shop", day, lambda _: 90)


def test_a_folder_of_any_name_keeps_its_experiment(local: ModelStore, tmp_path: Path) -> None:
    assert local.folder is not None
    store = store_in(local.folder.rename(tmp_path / "my data, café"))

    for _ in range(2):
        with mlflow_at(store) as mlflow:
            experiment(mlflow.MlflowClient(), store, OUTLOOK)

    assert experiments(store) == ["customer-outlook"]


def experiments(store: ModelStore) -> list[str]:
    with mlflow_at(store) as mlflow:
        found = mlflow.MlflowClient().search_experiments(filter_string="name LIKE '%outlook%'")
        return sorted(e.name for e in found)
