"""A run killed at any moment and started again ends as one clean run does."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lakehouse.lake import Lake
from lakehouse.session import TEST_CONF
from lakehouse.settings import load_settings
from tests.support.shop import Shop, open_shop
from tests.support.state import state

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KILLS = int(os.environ.get("SEGMENTATION_KILLS", "0"))
"""How many runs to kill; each goes on where the one before died, or begins anew where that one came to its end."""


def command(shop: Shop, data_dir: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "jobs.cli",
        "run",
        "--data-dir",
        str(data_dir),
        "--source",
        "corner_shop",
        "--var",
        f"shop={shop.folder}",
    ]


def start(shop: Shop, data_dir: Path) -> subprocess.Popen[bytes]:
    environ = os.environ | {
        "SEGMENTATION_BASE_CURRENCY": "EUR",
        "SEGMENTATION_CONF_DIR": str(shop.conf),
        "SEGMENTATION_SPARK": json.dumps({"driver_memory": "2g", "shuffle_partitions": 1, "conf": dict(TEST_CONF)}),
    }
    out = (data_dir.parent / "out.txt").open("ab")
    return subprocess.Popen(command(shop, data_dir), env=environ, stdout=out, stderr=out, start_new_session=True)


def read_state(spark: SparkSession, shop: Shop, data_dir: Path) -> dict[str, tuple[int, int]]:
    lake = Lake(spark, load_settings("local", shop.conf, data_dir=data_dir))
    return state(lake, schemas=("bronze", "silver", "gold", "feature"))


@pytest.mark.skipif(not KILLS, reason="takes half an hour; SEGMENTATION_KILLS=20 runs it")
def test_killed_runs_started_again_end_like_a_clean_run(spark: SparkSession, tmp_path: Path) -> None:
    shop = open_shop(tmp_path / "shop")
    clean = tmp_path / "clean" / "lake"
    clean.mkdir(parents=True)
    began = time.monotonic()
    assert start(shop, clean).wait(timeout=900) == 0, (clean.parent / "out.txt").read_text()[-2000:]
    whole = time.monotonic() - began
    dice = random.Random(int(os.environ.get("SEGMENTATION_KILL_SEED", "7")))
    expected = read_state(spark, shop, clean)
    hits = 0
    for attempt in range(KILLS):
        # A lakehouse that came to its end in spite of the kills is compared, and the next one is begun.
        lake = tmp_path / f"killed-{attempt}" / "lake"
        lake.mkdir(parents=True)
        ended = None
        while hits < KILLS and ended is None:
            run = start(shop, lake)
            try:
                ended = run.wait(timeout=dice.uniform(0.1, 0.4) * whole)
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                hits += 1
                print(f"kill {hits} of {KILLS}, lakehouse {attempt + 1}")
        if ended is None:
            ended = start(shop, lake).wait(timeout=900)
        assert ended == 0, (lake.parent / "out.txt").read_text()[-2000:]
        assert read_state(spark, shop, lake) == expected
        if hits == KILLS:
            return
    pytest.fail(f"runs finished before their kills: only {hits} of {KILLS} were hit")
