from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import pytest

from lakehouse import jars
from lakehouse.jars import Jar, JarsUnavailable, cache_folder, ensure_jars, is_whole, needed_jars


def write_jar(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("content.txt", "x" * 1000)


class Shop:
    """Stands in for the network: fails as often as told, then delivers."""

    def __init__(self, failures: int = 0, damaged: int = 0) -> None:
        self.failures, self.damaged, self.asked = failures, damaged, []

    def __call__(self, wanted: tuple[Jar, ...], folder: Path) -> None:
        self.asked.append(tuple(jar.artifact for jar in wanted))
        if len(self.asked) <= self.failures:
            raise ConnectionError("no route to host")
        for jar in wanted:
            write_jar(folder / jar.file_name)
            if len(self.asked) <= self.damaged:
                whole = (folder / jar.file_name).read_bytes()
                (folder / jar.file_name).write_bytes(whole[: len(whole) // 2])


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars.time, "sleep", lambda _: None)


def test_names_follow_the_installed_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "version", {"pyspark": "4.1.1", "delta-spark": "4.3.1"}.__getitem__)
    delta, storage, files = (jar.file_name for jar in needed_jars())
    assert (delta, storage) == ("delta-spark_4.1_2.13-4.3.1.jar", "delta-storage-4.3.1.jar")
    assert files.endswith(".jar")


def test_a_cold_cache_is_filled_and_a_warm_one_asks_nobody(tmp_path: Path) -> None:
    shop = Shop()
    first = ensure_jars(tmp_path, shop)
    assert ensure_jars(tmp_path, shop) == first
    assert len(shop.asked) == 1
    assert all(is_whole(file) for file in first)


def test_only_the_damaged_jar_is_fetched_again(tmp_path: Path) -> None:
    shop = Shop()
    delta, *_ = ensure_jars(tmp_path, shop)
    delta.write_bytes(delta.read_bytes()[:100])
    ensure_jars(tmp_path, shop)
    assert shop.asked[1] == (needed_jars()[0].artifact,)
    assert is_whole(delta)


@pytest.mark.parametrize("shop", [Shop(failures=2), Shop(damaged=2)], ids=["unreachable", "damaged on the way"])
def test_a_fetch_that_fails_twice_is_tried_again(tmp_path: Path, shop: Shop) -> None:
    assert all(is_whole(file) for file in ensure_jars(tmp_path, shop))
    assert len(shop.asked) == 3


def test_offline_and_cold_says_what_to_do_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    with pytest.raises(JarsUnavailable, match=r"no route to host\. Connect to the network once .* SEGMENTATION_JARS"):
        ensure_jars(tmp_path, Shop(failures=99))
    assert [file.name for file in tmp_path.iterdir() if file.name != ".lock"] == []


def test_parallel_callers_fetch_once(tmp_path: Path) -> None:
    shop = Shop()
    callers = [threading.Thread(target=ensure_jars, args=(tmp_path, shop)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(shop.asked) == 1


@pytest.mark.parametrize("content", [b"", b"not a jar", b"PK\x05\x06" + bytes(18)], ids=["empty", "text", "no entries"])
def test_a_file_that_is_no_jar_is_not_whole(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "some.jar"
    file.write_bytes(content)
    assert not is_whole(file)


def test_one_flipped_byte_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "some.jar"
    write_jar(file)
    content = bytearray(file.read_bytes())
    content[content.index(b"xxx")] ^= 1
    file.write_bytes(content)
    assert not is_whole(file)


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGMENTATION_JARS", str(tmp_path))
    assert cache_folder() == tmp_path
