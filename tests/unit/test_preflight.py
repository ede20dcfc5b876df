"""Real files in every bad state: each is refused with a reason a person can act on, or passes with what was found."""

from __future__ import annotations

import gzip
import re
import zipfile
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from lakehouse.errors import MachineError
from pipelines.bronze import preflight, scratch
from pipelines.bronze.preflight import inspect, match_columns
from pipelines.bronze.rows import Part, alike
from tests.support.feeds import HEADER, csv_text, make_source, put

ROW = "7,email,granted,2020-01-01 10:00:00\n"


def look(path: Path, **feed: object):
    return inspect(path, make_source(path, **feed).feeds[0])


def refusal(path: Path, **feed: object) -> tuple[str, str]:
    found = look(path, **feed)
    assert found.refusal is not None
    return found.refusal


@pytest.mark.parametrize(
    ("name", "content", "code", "said"),
    [
        ("a.csv", b"", "empty_file", "0 bytes"),
        ("a.csv.gz", b"\x1f\x8b" + gzip.compress(b"", mtime=0)[2:], "empty_file", "once decompressed"),
        (
            "a.csv.gz",
            gzip.compress(csv_text(*map(str, range(5000))).encode(), mtime=0)[:-40],
            "truncated_gzip",
            "too early",
        ),
        ("a.csv.gz", gzip.compress(b"x" * 99, mtime=0)[:20] + b"garbage!" * 9, "corrupt_gzip", "damaged"),
        ("a.csv", gzip.compress(b"x", mtime=0), "unnamed_gzip", "does not end in .gz"),
        ("a.csv.gz", gzip.compress(csv_text("1").encode(), mtime=0) + b"\0" * 600, "corrupt_gzip", "zeros follow"),
        ("a.csv", csv_text("1").replace(",", ";").encode(), "wrong_delimiter", "semicolon"),
        ("a.csv", csv_text("1").replace(",", "\t").encode(), "wrong_delimiter", "tab"),
        ("a.csv", b"\n\n  \n", "no_header", "blank cells only"),
        ("a.csv", ROW.encode(), "no_header", "is the header missing"),
        ("a.csv", b"id,ID,when\n1,2,3\n", "ambiguous_column", "both stand for 'id'"),
        ("a.csv", csv_text("é").encode("utf-16")[:-1], "truncated", "middle of a utf-16"),
    ],
)
def test_a_file_that_cannot_be_read_whole_is_refused(
    tmp_path: Path, name: str, content: bytes, code: str, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    got, reason = refusal(path)
    assert got == code
    assert said in reason


TAIL = ",email,granted,2020-01-01 10:00:00"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ('1,email,granted,"DE\n2,email,granted,FR\n', "opens on line 2 is never closed"),
        ('1,email,granted,x\n2,email,granted,"a\n\n\n', "opens on line 3 is never closed"),
        ('1,email,granted,"DE\n2,email,granted,FR\n3,email,granted,"IT"\n', "line 2 meets the next on line 4"),
        ('1,email,granted,"DE\n2,5",granted,FR\n', "opens on line 2 and that ends on line 3 has 6 cells"),
    ],
)
def test_a_quote_that_takes_in_other_rows_refuses_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str, said: str
) -> None:
    monkeypatch.setattr(preflight, "_CHUNK", 3)
    code, reason = refusal(put(tmp_path, "a.csv", f"{HEADER}\n{rows}"))
    assert code == "unbalanced_quote"
    assert said in reason
    assert refusal(put(tmp_path, "b.csv", f"{HEADER}\n{rows}".replace("\n", "\r\n")))[0] == "unbalanced_quote"


def test_quoted_line_breaks_and_stray_quotes_are_counted_as_they_are_read(tmp_path: Path) -> None:
    kept = f'1,"a\n""b"",\n\n",granted,x\n\n2,5" pipe,"a"b,"x"\n""{TAIL}'
    found = look(put(tmp_path, "a.csv", f"{HEADER}\n{kept}"))
    assert (found.refusal, found.rows, found.notes) == (None, 3, ())
    escaped = look(put(tmp_path, "b.csv", f'{HEADER}\n1,"a\\"\n\\\\",b,c\n'), options={"escape": "\\"})
    assert (escaped.refusal, escaped.rows) == (None, 1)
    whole = look(put(tmp_path, "c.csv", f'{HEADER}\n1,email,granted,"DE\n2,email,granted,FR"\n'))
    assert whole.notes == (
        "1 quoted cell(s) hold line breaks and as many delimiters as whole rows, first on line 2: is a quote missing?",
    )
    lines = look(put(tmp_path, "d.jsonl", '{"id": "a"}\n\n{"id": "\\"b"}'), format="jsonl")
    assert (lines.refusal, lines.rows) == (None, 2)


@pytest.mark.parametrize(
    ("content", "rewritten"),
    [
        (f"{HEADER}\n1{TAIL}\n", ()),
        (f"{HEADER}\r\n1{TAIL}\r\n", ()),
        (f'{HEADER}\r\n1,"a\nb",c,d\r\n', ()),
        (f"{HEADER}\r\n1{TAIL}\n2{TAIL}\n", ("\r\n",)),
        (f"{HEADER}\n1{TAIL}\r\n2{TAIL}\r\n", ("\r\n",)),
        (f'"id\r\n",channel,status,when\n1{TAIL}\n', ("\r\n",)),
        (f"{HEADER}\r1{TAIL}\r\r", ("\r\n", "\r")),
    ],
)
def test_mixed_line_breaks_are_noticed_where_records_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, rewritten: tuple[str, ...]
) -> None:
    for chunk in (1 << 20, 1):
        monkeypatch.setattr(preflight, "_CHUNK", chunk)
        found = look(put(tmp_path, "a.csv", content))
        assert (found.refusal, found.other_breaks) == (None, rewritten)
        assert found.rows == content.count(TAIL) + content.count('"a\nb"')


def test_mixed_line_breaks_are_rewritten_however_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "a.csv.gz", f"{HEADER}\n1{TAIL}\r\n2,\r{TAIL}\r\n")
    feed = make_source(path).feeds[0]
    monkeypatch.setattr(scratch, "_CHUNK", 1)
    with scratch.Scratch(tmp_path / "lake", 1) as aside:
        read = Path(aside.parts(feed, inspect(path, feed), 1000)[0].path)
        assert read.read_bytes().decode() == f"{HEADER}\n1{TAIL}\n2,\r{TAIL}\n"


@pytest.mark.parametrize(
    ("name", "kept"), [("a.csv.deflate", ".csv"), ("a.csv.bz2", ".csv"), ("a.snappy", ""), ("a.CSV.GZ", ".csv.gz")]
)
def test_spark_cannot_take_a_name_for_a_way_of_packing(tmp_path: Path, name: str, kept: str) -> None:
    content = csv_text("1").encode()
    path = put(tmp_path, name, gzip.compress(content, mtime=0) if name.endswith("GZ") else content)
    feed = make_source(path).feeds[0]
    with scratch.Scratch(tmp_path / "lake", 1) as aside:
        found = inspect(path, feed)
        part = aside.parts(feed, found, 1000)[0]
        assert Path(part.path).name == found.identity.sha256 + kept
        assert part.delivery == name


def test_where_spark_runs_elsewhere_files_on_this_disk_are_copied_to_where_it_sees_them(tmp_path: Path) -> None:
    near, far = tmp_path / "lake" / "inbox", tmp_path / "site-packages"
    for folder in (near, far):
        folder.mkdir(parents=True)
    for is_remote, folder, is_copied in ((True, far, True), (True, near, False), (False, far, False)):
        path = put(folder, "a.csv", csv_text("1"))
        with scratch.Scratch(tmp_path / "lake", 1, is_remote=is_remote) as aside:
            part = aside.parts(make_source(path).feeds[0], inspect(path, make_source(path).feeds[0]), 1000)[0]
            assert Path(part.path).is_relative_to(tmp_path / "lake" / "_ingest") == is_copied
            assert Path(part.path).read_bytes() == path.read_bytes()
            assert (part.file_path, part.delivery) == (str(path), "a.csv")


def test_a_row_of_blank_cells_stands_for_the_header_as_it_does_for_spark(tmp_path: Path) -> None:
    code, reason = refusal(put(tmp_path, "a.csv", ",,,\n" + csv_text("1")))
    assert code == "no_header"
    assert "Remove what is above the header" in reason
    assert look(put(tmp_path, "b.csv", "\n\n" + csv_text("1"))).rows == 1


def test_a_name_in_gz_without_gzip_content(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_text(csv_text("1"))
    assert refusal(path)[0] == "not_gzip"


def test_a_row_that_stands_for_the_header_is_never_shown(tmp_path: Path) -> None:
    assert "anna@example.com" not in refusal(put(tmp_path, "a.csv", "anna@example.com,1,2\n"))[1]


def test_a_vanished_file_and_one_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(tmp_path / "gone.csv")[0] == "vanished"
    path = put(tmp_path, "a.csv", csv_text("1"))
    monkeypatch.setattr(preflight, "unchanged", lambda _: False)
    assert refusal(path)[0] == "changed_while_read"


def test_bytes_outside_the_encoding_are_counted_by_line(tmp_path: Path) -> None:
    content = f"{HEADER}\n{ROW}".encode() + b"8,caf\xe9,granted,2020-01-01\n" + ROW.encode() + b"9,\xff,x,y"
    found = look(put(tmp_path, "a.csv", content))
    assert found.refusal is None
    assert (found.undecodable, found.undecodable_lines, found.lines) == (2, (3, 5), 5)
    assert look(put(tmp_path, "b.csv", content), options={"encoding": "windows-1252"}).undecodable == 0


def test_lines_are_numbered_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_CHUNK", 7)
    content = csv_text(*map(str, range(20))).encode() + b"x,\xe9,y,z\n"
    found = look(put(tmp_path, "a.csv", content))
    assert (found.undecodable_lines, found.lines) == ((22,), 22)


@pytest.mark.parametrize(
    ("encoding", "found_as"),
    [("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be")],
)
def test_marks_and_wide_encodings_are_noticed(tmp_path: Path, encoding: str, found_as: str) -> None:
    found = look(put(tmp_path, "a.csv", csv_text("é", "2").encode(encoding)))
    assert (found.refusal, found.encoding, found.lines) == (None, found_as, 3)
    assert [c.declared for c in found.columns] == ["id", "channel", "status", "when"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_wide_file_without_the_mark_its_encoding_asks_for_is_told_what_to_declare(
    tmp_path: Path, encoding: str
) -> None:
    path = put(tmp_path, "a.csv", csv_text("1").encode(f"{encoding}-le"))
    code, reason = refusal(path, options={"encoding": encoding})
    assert code == "undecodable"
    assert f"declare {encoding}-le or {encoding}-be" in reason


def test_headers_that_differ_in_capitals_only_are_told_apart_or_refused(tmp_path: Path) -> None:
    found = look(put(tmp_path, "a.csv", f"{HEADER},Note,note\n"))
    assert [c.header for c in found.columns if c.declared is None] == ["Note", "note (2)"]
    columns = {"id": ["1"], "when": ["2020-01-01"], "Note": ["a"], "note": ["b"]}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet", format="parquet") == (
        "ambiguous_column",
        "columns 'Note' and 'note' differ in capitals only; give one another name.",
    )


def test_renamed_missing_and_extra_columns(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "idn,Channel,status,when,shoe size,shoe size\n")
    found = look(path)
    assert found.refusal is None
    assert found.missing == ("id",)
    assert [c.header for c in found.columns if c.declared is None] == ["idn", "shoe size", "shoe size (2)"]
    assert found.notes[0].startswith(
        "missing column(s) 'id'. Was 'id' renamed to 'idn'? Undeclared columns delivered: idn"
    )
    assert "add its new name under aliases. Then deliver the file again with a change" in found.notes[0]
    code, reason = refusal(path, missing_columns="refuse_file")
    assert code == "missing_column"
    assert "deliver" not in reason.rpartition("renamed")[2], "a refused file is read anew as it is"


def test_headers_match_by_alias_case_and_punctuation() -> None:
    columns, missing = match_columns(make_source("x").feeds[0], ["\ufeffID no", "CHANNEL", "Sta-tus", ""])
    assert [(c.header, c.declared) for c in columns[1:]] == [
        ("CHANNEL", "channel"),
        ("Sta-tus", "status"),
        ("column_4", None),
    ]
    assert missing == ("when",)


def test_a_million_character_cell_passes(tmp_path: Path) -> None:
    found = look(put(tmp_path, "a.csv", f"{HEADER}\n7,{'x' * 1_000_000},granted,2020-01-01\n"))
    assert (found.refusal, found.lines) == (None, 2)
    wide = look(put(tmp_path, "b.csv", f"{HEADER},{'y' * 200_000}\n"))
    assert wide.refusal is None


def test_a_header_alone_passes_and_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    assert look(put(tmp_path, "a.csv", HEADER + "\n")).refusal is None
    members = gzip.compress(f"{HEADER}\n".encode()) + gzip.compress(ROW.encode())
    assert look(put(tmp_path, "b.csv.gz", members)).lines == 2


def test_a_json_array_is_not_json_lines(tmp_path: Path) -> None:
    assert refusal(put(tmp_path, "a.jsonl", '[{"id": 1}]'), format="jsonl")[0] == "json_array"
    found = look(put(tmp_path, "b.jsonl", '{"id": 1, "more": 2}\nbroken\n'), format="jsonl")
    assert [c.header for c in found.columns] == ["id", "more"]
    spelled = look(put(tmp_path, "c.jsonl", '{"id": 1}\n{"ID": 2}\n'), format="jsonl")
    assert (spelled.refusal, [c.declared for c in spelled.columns]) == (None, ["id", "id"])


def test_a_key_that_no_record_of_json_lines_has_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_RECORDS", 2)
    early = '{"id": 1, "when": 1, "a": 1}\n' * 3
    late = put(tmp_path, "a.jsonl.gz", early + 'broken\n[1]\n{"Chan-nel": 2, "STATUS": 3, "b": 1}\n')
    found = look(late, format="jsonl")
    assert (found.refusal, found.missing) == (None, ())
    assert {c.header: c.declared for c in found.columns} == {
        "id": "id", "when": "when", "a": None, "Chan-nel": "channel", "STATUS": "status"
    }  # fmt: skip
    told = look(put(tmp_path, "b.jsonl", early), format="jsonl", missing_columns="refuse_file")
    assert (told.refusal, told.missing) == (None, ("channel", "status"))
    assert told.notes[0].startswith("missing column(s) 'channel', 'status'.")
    code, reason = refusal(put(tmp_path, "c.jsonl", '{"idn": 1}\n'), format="jsonl", missing_columns="refuse_file")
    assert (code, "Was 'id' renamed to 'idn'?" in reason) == ("missing_column", True)
    assert look(put(tmp_path, "d.jsonl", "broken\n"), format="jsonl", missing_columns="refuse_file").refusal is None


def test_parquet_types_nanoseconds_and_truncation(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1], pa.int64()),
            "channel": pa.array(["a"], pa.large_string()),
            "when": pa.array([0], pa.timestamp("ns")),
            "status": pa.array([0], pa.timestamp("us", tz="UTC")),
        }
    )
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    found = look(path, format="parquet")
    assert {c.header: (c.stored, c.is_nanoseconds, c.is_instant) for c in found.columns} == {
        "id": ("bigint", False, False),
        "channel": ("string", False, False),
        "when": ("bigint", True, False),
        "status": ("timestamp", False, True),
    }
    assert found.rows == 1
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(path, format="parquet")[0] == "unreadable_parquet"
    parquet.write_table(pa.table({"id": pa.nulls(1)}), path)
    assert [c.stored for c in look(path, format="parquet").columns] == ["void"]
    parquet.write_table(pa.table({"id": pa.array([[1]])}), path)
    code, reason = refusal(path, format="parquet")
    assert code == "unsupported_column"
    assert reason.startswith("column 'id' is of type list<")


def test_extra_columns_of_no_plain_values_are_left_out_and_told(tmp_path: Path) -> None:
    extra = {
        "view": pa.array(["a"], pa.string_view()),
        "tags": pa.array([["a"]]),
        "at": pa.array([0], pa.time64("us")),
        "blob": pa.array([b"a"]),
        "wide": pa.array([Decimal(1)], pa.decimal256(50, 2)),
    }
    parquet.write_table(pa.table({"id": ["1"], "when": [datetime(2020, 1, 1)]} | extra), tmp_path / "a.parquet")
    found = look(tmp_path / "a.parquet", format="parquet", columns={"id": {"to": "customer_id"}})
    assert (found.refusal, [c.header for c in found.columns if c.is_left_out]) == (None, ["tags", "at", "blob", "wide"])
    left_out, kept = found.notes
    assert left_out.startswith("undeclared column(s) of no plain values, which are not kept: tags (list<")
    assert kept == "undeclared column(s) kept aside: when, view."


def test_only_files_that_their_names_tell_apart_are_read_together() -> None:
    def grouped(*paths: str) -> list[list[str]]:
        parts = [Part(p, "columns", (), p, p, p, 1) for p in paths]
        return [[p.path for p in group] for group in alike(parts)]

    assert grouped("a/1.parquet", "a/2.parquet") == [["a/1.parquet", "a/2.parquet"]]
    assert grouped("m 1.parquet", "m2.parquet", "m3.parquet") == [["m 1.parquet"], ["m2.parquet", "m3.parquet"]]
    assert grouped("ü.parquet", "[x].parquet", "m.parquet") == [["ü.parquet"], ["[x].parquet"], ["m.parquet"]]
    assert grouped("a/1.parquet", "b/1.parquet") == [["a/1.parquet"], ["b/1.parquet"]]


def test_workbooks(tmp_path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    book.active.title = "May"
    book.active.append(["id", "channel", "status", "when"])
    book.create_sheet("Empty")
    book.save(tmp_path / "a.xlsx")
    found = look(tmp_path / "a.xlsx", format="excel")
    assert [s.name for s in found.sheets] == ["May"]
    assert refusal(tmp_path / "a.xlsx", format="excel", options={"sheets": ["June"]})[0] == "missing_sheet"
    assert refusal(put(tmp_path, "b.xlsx", b"PK not a zip"), format="excel")[0] == "unreadable_workbook"
    assert refusal(put(tmp_path, "c.xls", b"old"), format="excel")[0] == "not_a_workbook"


def workbook(path: Path, *rows: list[object], size: str | None = None) -> Path:
    """A workbook of one sheet that says a size of itself."""
    from openpyxl import Workbook

    book = Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path if size is None else rewritten(path, "sheet1.xml", rb'ref="[^"]*"', f'ref="{size}"'.encode())


def rewritten(path: Path, member: str, pattern: bytes, by: bytes) -> Path:
    """The same workbook with part of one of its files replaced."""
    with zipfile.ZipFile(path) as book:
        files = {name: book.read(name) for name in book.namelist()}
    with zipfile.ZipFile(path, "w") as book:
        for name, content in files.items():
            book.writestr(name, re.sub(pattern, by, content, count=1) if name.endswith(member) else content)
    return path


def copied(path: Path, tmp_path: Path) -> tuple[list[str], list[tuple[object, ...]]]:
    """Headers and cells of a workbook's sheet as Spark gets them."""
    feed = make_source(path, format="excel").feeds[0]
    with scratch.Scratch(tmp_path / "lake", 1) as aside:
        part = aside.parts(feed, inspect(path, feed), 1000)[0]
        assert [c.header for c in part.columns] == parquet.read_schema(part.path).names
        table = parquet.read_table(part.path)
        return table.schema.names, [tuple(r.values()) for r in table.to_pylist()]


SHEET_HEADER: list[object] = ["id", "channel", "status", "when"]


@pytest.mark.parametrize("size", ["A1", "A1:B2", "A1:D1", "A1:XFD9", None])
def test_what_a_sheet_says_of_its_size_is_not_believed(tmp_path: Path, size: str | None) -> None:
    path = workbook(tmp_path / "a.xlsx", SHEET_HEADER, ["1", "email", "granted", "x"], [2, None, "denied"], size=size)
    headers, rows = copied(path, tmp_path)
    assert headers == SHEET_HEADER
    assert rows == [("1", "email", "granted", "x"), ("2", None, "denied", None)]


def test_a_cell_without_a_header_is_kept_beside_the_others(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", SHEET_HEADER, ["1"], ["2", None, None, None, None, "note"], size="A1:D3")
    headers, rows = copied(path, tmp_path)
    assert headers == [*SHEET_HEADER, "column_5", "column_6"]
    assert rows == [("1", *[None] * 5), ("2", *[None] * 4, "note")]


def test_empty_rows_above_the_header_and_between_rows_are_passed_over(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", [], [None, None], SHEET_HEADER, ["1"], [], ["2"])
    assert look(path, format="excel").refusal is None
    assert [r[0] for r in copied(path, tmp_path)[1]] == ["1", "2"]
    title = workbook(tmp_path / "b.xlsx", [], ["Sales of May"], SHEET_HEADER, ["1"])
    assert refusal(title, format="excel")[0] == "no_header"


def test_a_sheet_that_is_a_chart_holds_no_rows(tmp_path: Path) -> None:
    from openpyxl import load_workbook
    from openpyxl.chart import BarChart

    path = workbook(tmp_path / "a.xlsx", SHEET_HEADER, ["1"])
    book = load_workbook(path)
    book.create_chartsheet("Chart").add_chart(BarChart())
    book.save(path)
    assert [s.name for s in look(path, format="excel").sheets] == ["Sheet"]
    assert "sheets are Sheet." in refusal(path, format="excel", options={"sheets": ["Chart"]})[1]


def test_a_formula_whose_result_is_not_stored_refuses_the_file(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", SHEET_HEADER, ["1", "email", "granted", "x"], ["2", "=B2", "granted", "x"])
    code, reason = refusal(path, format="excel")
    assert (code, reason.startswith("cell B3 of sheet 'Sheet' ")) == ("formula_without_result", True)
    stored = rewritten(path, "sheet1.xml", rb"<v ?/>|<v></v>", b"<v>email</v>")
    blank = rewritten(path, "sheet1.xml", rb'<c r="B3"', b'<c r="B3" t="str"')
    for computed in (stored, blank):
        assert look(computed, format="excel").refusal is None
    path = workbook(tmp_path / "b.xlsx", [*SHEET_HEADER, "<f>"], ["1", "<f>", "=", "x"])
    assert look(path, format="excel").refusal is None
    aside = workbook(tmp_path / "c.xlsx", SHEET_HEADER, ["1", "email", "granted", "x", None, None, "=1+1"])
    assert look(aside, format="excel").refusal is None


def test_cells_of_several_rows_that_are_merged_refuse_the_file(tmp_path: Path) -> None:
    from openpyxl import load_workbook

    path = workbook(tmp_path / "a.xlsx", [], SHEET_HEADER, ["1", "email", "granted", "x"], ["2", None, "granted", "x"])
    for cells, code in (("A1:D1", None), ("A2:B2", None), ("C3:D3", None), ("B3:B4", "merged_cells")):
        book = load_workbook(path)
        book.active.merge_cells(cells)
        book.save(tmp_path / "b.xlsx")
        refused = look(tmp_path / "b.xlsx", format="excel").refusal
        assert (refused and refused[0]) == code, cells
    headed = workbook(tmp_path / "c.xlsx", SHEET_HEADER, [], ["1", "email", "granted", "x"], ["2"])
    book = load_workbook(headed)
    for cells in ("A1:A2", "B1:B2", "B4:D6", "H3:J5"):
        book.active.merge_cells(cells)
    book.save(headed)
    assert look(headed, format="excel").refusal is None


def test_a_damaged_workbook_is_refused_whatever_it_fails_with(tmp_path: Path) -> None:
    torn = rewritten(workbook(tmp_path / "a.xlsx", SHEET_HEADER), "sheet1.xml", rb"<sheetData>.*", b"<sheetData><row")
    assert refusal(torn, format="excel")[0] == "unreadable_workbook"
    path = workbook(tmp_path / "b.xlsx", SHEET_HEADER)
    with zipfile.ZipFile(path) as book:
        packed = book.getinfo("xl/workbook.xml").header_offset + 50
    content = bytearray(path.read_bytes())
    content[packed : packed + 40] = b"\xff" * 40
    assert refusal(put(tmp_path, "c.xlsx", bytes(content)), format="excel")[0] == "unreadable_workbook"


def test_a_file_that_fails_unforeseen_is_refused_and_one_that_the_machine_fails_on_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "a.csv", csv_text("1"))

    def failing(error: BaseException) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(preflight, "_inspect_text", fail)

    failing(RuntimeError("anna@example.com"))
    found = look(path)
    assert found.refusal == (
        "unexpected",
        "it could not be looked into (RuntimeError); check it, and deliver it again.",
    )
    assert found.identity.sha256
    for error in (MemoryError(), MachineError("no disk"), KeyboardInterrupt()):
        failing(error)
        with pytest.raises(type(error)):
            look(path)
