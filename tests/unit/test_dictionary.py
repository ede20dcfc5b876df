"""The generated pages are those the declarations give."""

from __future__ import annotations

import re
from pathlib import Path

from lakehouse.declare import tables
from lakehouse.dictionary import FOLDER, render_dictionary, write_dictionary

ROOT = Path(__file__).parents[2]
PAGES = render_dictionary(ROOT / "conf")


def test_the_pages_in_docs_are_up_to_date() -> None:
    stored = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "docs" / FOLDER).glob("*.md")}
    assert stored.keys() == PAGES.keys()
    stale = [name for name in PAGES if stored[name] != PAGES[name]]
    assert stale == [], "run `segmentation docs`"


def test_every_table_and_column_has_its_entry() -> None:
    for t in tables().values():
        page = PAGES[f"{t.schema}.md"].split(f"\n## {t.short}\n")[1].split("\n## ")[0]
        assert all(f"| `{c}`" in page for c in t.column_names), t.name
        assert t.owner in page


def test_links_lead_somewhere() -> None:
    headings = {name: set(re.findall(r"^## (\S+)$", text, re.M)) for name, text in PAGES.items()}
    for name, text in PAGES.items():
        for page, anchor in re.findall(r"\]\((\w+\.md)(?:#(\w+))?\)", text):
            assert page in PAGES, f"{name}: {page}"
            assert not anchor or anchor in headings[page], f"{name}: {page}#{anchor}"


def test_a_page_of_a_schema_that_is_gone_goes(tmp_path: Path) -> None:
    old = tmp_path / FOLDER / "bygone.md"
    old.parent.mkdir()
    old.write_text("x", encoding="utf-8")
    written = write_dictionary(tmp_path, ROOT / "conf")
    assert not old.exists()
    assert {p.name for p in written} == set(PAGES)
