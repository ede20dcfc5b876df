"""Names of uploads in the inbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.bronze.uploads import _stored_name


@pytest.mark.parametrize(("stem", "suffix"), [("x" * 246, ".csv"), ("é" * 120, ".csv.gz"), ("_" + "x" * 250, ".csv")])
def test_a_long_name_is_cut_before_its_suffix(tmp_path: Path, stem: str, suffix: str) -> None:
    stored = [_stored_name(Path(stem + suffix), sha) for sha in ("a" * 64, "b" * 64)]
    assert stored[0] != stored[1]
    for name in stored:
        assert name.endswith(("x", "é")[stem[0] == "é"] + suffix)
        (tmp_path / f"{name}.part").touch()
    assert _stored_name(Path("may.csv"), "c" * 64) == f"{'c' * 12}-may.csv"
