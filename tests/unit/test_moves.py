"""Moving files and folders, also where nothing can be renamed."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from lakehouse.moves import move


@pytest.fixture(params=["renames", "copies"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system, one that renames and one that does not."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    if request.param == "copies":
        monkeypatch.setattr(Path, "replace", refuse)
    return tmp_path


def export_at(folder: Path) -> dict[str, str]:
    held = {"_SUCCESS": "", "A.csv": "1", "b/c.csv": "2", "manifest.json": "{}"}
    for name, content in held.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return held


def held_in(folder: Path) -> dict[str, str]:
    found = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in found}


def test_a_file_takes_the_place_of_another(place: Path) -> None:
    (place / "old").write_text("1", encoding="utf-8")
    (place / "new").write_text("2", encoding="utf-8")
    move(place / "new", place / "old")
    assert held_in(place) == {"old": "2"}


def test_a_folder_goes_as_a_whole(place: Path) -> None:
    held = export_at(place / "ready")
    move(place / "ready", place / "final")
    assert held_in(place / "final") == held
    assert not (place / "ready").exists()


def test_half_of_a_folder_has_no_marker_wherever_a_move_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    copy, unlink = shutil.copyfile, Path.unlink
    steps = 0

    def killed_after(done: int) -> None:
        def counted(act: object) -> None:
            nonlocal steps
            steps += 1
            if steps > done:
                raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "copyfile", lambda a, b: (counted(a), copy(a, b)))
        monkeypatch.setattr(Path, "unlink", lambda p: (counted(p), unlink(p)))

    monkeypatch.setattr(Path, "replace", refuse)
    for done in range(8):
        source, target, steps = tmp_path / f"{done}" / "ready", tmp_path / f"{done}" / "final", 0
        held = export_at(source)
        killed_after(done)
        with pytest.raises(KeyboardInterrupt):
            move(source, target)
        for folder in (source, target):
            assert "_SUCCESS" not in held_in(folder) or held_in(folder) == held


def test_another_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        move(tmp_path / "gone", tmp_path / "there")
