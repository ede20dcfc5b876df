from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Sequence
from datetime import date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from rich.console import Console

from connectors.audience import Audience, plan_audience
from connectors.base import Connector, Export, ExportedSegment, FileDestination, Holdout
from connectors.delivery import export_segments
from connectors.destinations import load_destinations
from connectors.exchange import NotEligible
from connectors.files import FileConnector
from connectors.remote_files import RemoteFileConnector
from connectors.suppression import suppress
from connectors.switch import set_switch
from jobs import publish
from jobs.context import Job
from jobs.progress import Progress
from lakehouse.errors import SettingsError
from lakehouse.lake import Lake
from lakehouse.runner import Run
from lakehouse.settings import Settings
from tests.support.rows import rows

pytestmark = pytest.mark.spark

AS_OF = date(2018, 1, 1)
AT = datetime(2018, 1, 1, 6)
VIP, NEW = ExportedSegment("vip", "VIP", "v1"), ExportedSegment("new", "New", "v2")
FILES = FileDestination(name="files", kind="files")
LEFT_OUT = {"suppressed": 0, "no_consent": 2, "region": 0, "no_identifier": 1, "held_out": 0}
SECRETS = ("ann@x.example", "+15550100", "bob", "cy-77")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def members(spark: SparkSession, *of: tuple[str, int]) -> DataFrame:
    names = {1: "ann-1", 2: "bob-2", 3: "cy-77", 4: "dee-4", 5: "eve-5"}
    return rows(
        spark,
        "gold.customer_segment_customer",
        [{"segment_id": s, "website_id": "shop", "customer_key": k, "customer_id": names[k]} for s, k in of],
    )


def customers(spark: SparkSession) -> DataFrame:
    def one(key: int, name: str, **more: Any) -> dict[str, Any]:
        made = {"customer_sk": key, "customer_key": key, "merchant_id": "shop", "customer_id": name, "is_current": True}
        return made | {"is_sample_contact": True} | more

    return rows(
        spark,
        "gold.dim_customer",
        [
            one(1, "ann-1", email=" Ann@X.example ", phone="+1 555 0100"),
            one(1, "ann-1", email="old@x.example", is_current=False, customer_sk=9),
            one(2, "bob-2", email="bob@x.example"),
            one(3, "cy-77"),
            one(4, "dee-4", email="not an address", phone="+1 555 0104"),
            one(1, "ann-1", merchant_id="other", email="stranger@x.example", customer_sk=10),
        ],
    )


def consents(spark: SparkSession, *granted: str, denied: Sequence[str] = ("bob-2",)) -> DataFrame:
    choices = [(name, "ads", True) for name in granted] + [(name, "ads", False) for name in denied]
    choices += [("bob-2", "email", True), ("eve-5", "email", True)]
    return rows(
        spark,
        "silver.consent",
        [{"merchant_id": "shop", "customer_id": n, "channel": c, "is_granted": g} for n, c, g in choices],
    )


def deliver(
    spark: SparkSession, folder: Path, audience: Audience, config: FileDestination = FILES, run_id: str = "run"
) -> tuple[Export, ...]:
    connector: Connector = FileConnector(config, folder / "exports")
    return connector.deliver(audience, [VIP, NEW], as_of=AS_OF, run_id=run_id, started_at=AT)


def audience_of(
    spark: SparkSession,
    *of: tuple[str, int],
    granted: Sequence[str] = ("ann-1", "cy-77", "dee-4"),
    config: FileDestination = FILES,
    barred: Sequence[dict[str, Any]] = (),
) -> Audience:
    return plan_audience(
        members(spark, *of),
        customers(spark),
        consents(spark, *granted),
        rows(spark, "gold.activation_suppression", barred),
        destination=config,
    )


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_only_consented_members_leave_and_only_as_digests(spark: SparkSession) -> None:
    audience = audience_of(spark, *[("vip", k) for k in (1, 2, 3, 4, 5)])

    found = {r.member_id: r for r in audience.frame.collect()}

    ids = {k: sha(f"shop\u001f{n}") for k, n in {1: "ann-1", 2: "bob-2", 3: "cy-77", 4: "dee-4", 5: "eve-5"}.items()}
    assert {k: (found[ids[k]].email_sha256, found[ids[k]].phone_sha256, found[ids[k]].excluded) for k in ids} == {
        1: (sha("ann@x.example"), sha("+15550100"), None),
        2: (None, None, "no_consent"),
        3: (None, None, "no_identifier"),
        4: (None, sha("+15550104"), None),
        5: (None, None, "no_consent"),
    }
    said = json.dumps([r.asDict() for r in found.values()])
    assert not [s for s in SECRETS if s in said]


def test_suppressed_members_outsiders_and_the_held_out_stay(spark: SparkSession) -> None:
    # Recorded after the day the members are of, which makes no difference.
    barred = [
        {"website_id": "shop", "member_id": sha(f"shop\u001f{n}"), "destination": d, "suppressed_on": date(2019, 1, 1)}
        for n, d in (("ann-1", "*"), ("dee-4", "other"))
    ]
    names = {sha(f"shop\u001f{n}"): n for n in ("ann-1", "dee-4")}

    def found(config: FileDestination, barred: Sequence[dict[str, Any]] = ()) -> dict[str, str | None]:
        audience = audience_of(spark, ("vip", 1), ("vip", 4), config=config, barred=barred)
        return {names[r.member_id]: r.excluded for r in audience.frame.collect()}

    assert found(FILES, barred) == {"ann-1": "suppressed", "dee-4": None}
    # Neither has a country on record, and who is nowhere known is in no region.
    abroad = FILES.model_copy(update={"regions": ("DE",)})
    assert found(abroad) == {"ann-1": "region", "dee-4": "region"}
    # Outside of regions and shops is not withdrawn: a brake looks at who would leave for it.
    for config in (abroad, FILES.model_copy(update={"websites": ("shp",)})):
        permitted = audience_of(spark, ("vip", 1), config=config, barred=barred).permitted.collect()
        assert {n for r in permitted if (n := names.get(r.member_id))} == {"dee-4"}
    held = {
        salt: found(FILES.model_copy(update={"holdouts": {"vip": Holdout(share=0.5, salt=salt)}}))
        for salt in ("a", "b", "c", "d")
    }
    for salt, reasons in held.items():
        for name, reason in reasons.items():
            position = int(sha("\u001f".join([salt, "shop", name]))[:13], 16) / 16**13
            assert reason == ("held_out" if position < 0.5 else None)
    assert {r for reasons in held.values() for r in reasons.values()} == {"held_out", None}


def test_json_lines_carry_every_name(spark: SparkSession, tmp_path: Path) -> None:
    config = FILES.model_copy(update={"formats": ("jsonl",)})

    _, vip = deliver(spark, tmp_path, audience_of(spark, ("vip", 1), ("vip", 4), ("new", 2), config=config), config)

    lines = [json.loads(line) for line in vip.files[0].path.read_text().splitlines()]
    assert {line["member_id"]: line["email_sha256"] for line in lines} == {
        sha("shop\u001fann-1"): sha("ann@x.example"),
        sha("shop\u001fdee-4"): None,
    }


def test_files_are_written_for_the_audience_planned_for_them_alone(spark: SparkSession, tmp_path: Path) -> None:
    audience = audience_of(spark, ("vip", 1), config=FILES.model_copy(update={"consent": "email"}))
    with pytest.raises(NotEligible):
        deliver(spark, tmp_path, audience)


def test_files_hold_who_may_leave_and_the_manifest_says_who_did_not(spark: SparkSession, tmp_path: Path) -> None:
    audience = audience_of(spark, *[("vip", k) for k in (1, 2, 3, 4, 5)], ("new", 2))

    new, vip = deliver(spark, tmp_path, audience)

    folder = tmp_path / "exports" / "files" / "shop" / "vip" / "as_of=2018-01-01"
    assert sorted(p.name for p in folder.iterdir()) == ["_SUCCESS", "manifest.json", "vip.csv", "vip.parquet"]
    with (folder / "vip.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    ann, dee = sha("shop\u001fann-1"), sha("shop\u001fdee-4")
    expected = sorted([[ann, sha("ann@x.example"), sha("+15550100")], [dee, "", sha("+15550104")]])
    assert lines == [["member_id", "email_sha256", "phone_sha256"], *expected]
    table = pq.read_table(folder / "vip.parquet", partitioning=None)
    assert [[c or "" for c in row.values()] for row in table.to_pylist()] == expected
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"] == {"members": 5, "exported": 2, "excluded": LEFT_OUT}
    assert (manifest["is_sample"], "sample" in manifest["sample_note"]) == (True, True)
    assert (manifest["segment_version"], manifest["as_of"], manifest["consent"]) == ("v1", "2018-01-01", "ads")
    for file in manifest["files"]:
        assert file["sha256"] == hashlib.sha256((folder / file["name"]).read_bytes()).hexdigest()
        assert (file["rows"], file["bytes"]) == (2, (folder / file["name"]).stat().st_size)
    everything = b"".join(content for content, _ in snapshot(tmp_path).values())
    assert not [s for s in SECRETS if s.encode() in everything]
    assert (vip.members, vip.eligible, vip.excluded) == (5, 2, LEFT_OUT)

    assert (new.eligible, [f.rows for f in new.files]) == (0, [0, 0])
    assert new.files[0].path.read_text() == "member_id,email_sha256,phone_sha256\n"
    assert pq.read_table(new.files[1].path, partitioning=None).num_rows == 0
    assert not (tmp_path / "exports" / "files" / "_staging").exists()


def test_the_same_members_again_leave_every_byte_alone(spark: SparkSession, tmp_path: Path) -> None:
    audience = audience_of(spark, ("vip", 1), ("vip", 4), ("new", 4))
    first = deliver(spark, tmp_path, audience)
    before = snapshot(tmp_path)

    again = deliver(spark, tmp_path, audience_of(spark, ("new", 4), ("vip", 4), ("vip", 1)), run_id="later")

    assert snapshot(tmp_path) == before
    assert [e.is_new for e in first] == [True, True]
    assert [(e.is_new, e.run_id) for e in again] == [(False, "run"), (False, "run")]
    elsewhere = tmp_path / "elsewhere"
    deliver(spark, elsewhere, audience)
    assert {k: v[0] for k, v in snapshot(elsewhere).items()} == {k: v[0] for k, v in before.items()}


def test_withdrawn_consent_replaces_the_files_of_the_day(spark: SparkSession, tmp_path: Path) -> None:
    deliver(spark, tmp_path, audience_of(spark, ("vip", 1), ("vip", 4)))
    vip_csv = tmp_path / "exports" / "files" / "shop" / "vip" / "as_of=2018-01-01" / "vip.csv"
    assert sha("ann@x.example") in vip_csv.read_text()

    deliver(spark, tmp_path, audience_of(spark, ("vip", 1), ("vip", 4), granted=["dee-4"]))
    assert sha("ann@x.example") not in vip_csv.read_text()
    assert sha("+15550104") in vip_csv.read_text()

    (empty,) = deliver(spark, tmp_path, audience_of(spark))
    assert (empty.segment, empty.members) == (VIP, 0)
    assert vip_csv.read_text() == "member_id,email_sha256,phone_sha256\n"


def test_a_damaged_or_half_written_export_is_made_again(spark: SparkSession, tmp_path: Path) -> None:
    audience = audience_of(spark, ("vip", 1))
    deliver(spark, tmp_path, audience)
    before = {k: v[0] for k, v in snapshot(tmp_path).items()}
    folder = tmp_path / "exports" / "files" / "shop" / "vip" / "as_of=2018-01-01"

    def spoil_bytes() -> None:
        (folder / "vip.csv").write_text("half")

    def lose_the_marker() -> None:
        (folder / "_SUCCESS").unlink()

    def die_between_the_moves() -> None:
        shutil.move(folder, tmp_path / "exports" / "files" / "_staging" / "replaced" / "vip")

    for spoil in (spoil_bytes, lose_the_marker, die_between_the_moves):
        spoil()
        (export,) = deliver(spark, tmp_path, audience)
        assert export.is_new
        assert {k: v[0] for k, v in snapshot(tmp_path).items()} == before


def test_large_segments_are_cut_into_parts(spark: SparkSession, tmp_path: Path) -> None:
    small = FILES.model_copy(update={"max_rows_per_file": 1, "formats": ("csv",)})

    (export,) = deliver(spark, tmp_path, audience_of(spark, ("vip", 1), ("vip", 4), config=small), small)

    assert [(f.path.name, f.rows) for f in export.files] == [("vip-00001.csv", 1), ("vip-00002.csv", 1)]
    assert [len(f.path.read_text().splitlines()) for f in export.files] == [2, 2]


def test_no_website_name_leads_out_of_the_folder(spark: SparkSession, tmp_path: Path) -> None:
    hostile = ["..", "../../up", "/etc", "a b", "x=y%2F", "\u00fc", "."]
    audience = rows(
        spark,
        "gold.customer_segment_customer",
        [
            {"segment_id": "vip", "website_id": w, "customer_key": i, "customer_id": str(i)}
            for i, w in enumerate(hostile)
        ],
    )
    people = rows(
        spark,
        "gold.dim_customer",
        [
            {"merchant_id": w, "customer_key": i, "customer_id": str(i), "email": f"{i}@x.example", "is_current": True}
            for i, w in enumerate(hostile)
        ],
    )
    choices = rows(
        spark,
        "silver.consent",
        [
            {"merchant_id": w, "customer_id": str(i), "channel": "ads", "is_granted": True}
            for i, w in enumerate(hostile)
        ],
    )

    exports = deliver(
        spark,
        tmp_path / "in",
        plan_audience(audience, people, choices, rows(spark, "gold.activation_suppression"), destination=FILES),
    )

    assert {e.website_id for e in exports} == set(hostile)
    assert all(e.eligible == 1 and f.path.is_file() for e in exports for f in e.files)
    assert len({e.manifest for e in exports}) == len(hostile)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert all(len(f.path.read_text().splitlines()) == 2 for e in exports for f in e.files if f.format == "csv")


def test_destinations_are_typed_and_all_problems_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text("kind: files\n")
    assert [d.name for d in load_destinations(tmp_path)] == ["good"]
    (tmp_path / "bad.yml").write_text("kind: files\nconcent: ads\nfolder: ../../out\n")
    (tmp_path / "worse.yml").write_text("kind: pigeon\n")
    (tmp_path / "worst.yml").write_text("- 1\n")

    with pytest.raises(SettingsError) as raised:
        load_destinations(tmp_path)

    said = str(raised.value)
    assert "bad.yml" in said
    assert "Did you mean 'consent'?" in said
    assert "worse.yml" in said
    assert "pigeon" in said
    assert "worst.yml: is not a YAML mapping" in said


@pytest.mark.slow
def test_exports_are_written_down(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "conf" / "destinations").mkdir(parents=True)
    (tmp_path / "conf" / "destinations" / "files.yml").write_text("kind: files\n")
    settings = Settings(data_dir=tmp_path / "lake", conf_dir=tmp_path / "conf", parallel_steps=1)
    lake = Lake(spark, settings)
    lake.write(
        "gold.customer_segment",
        rows(
            spark,
            "gold.customer_segment",
            [
                {"segment_id": "vip", "name": "VIP", "version": "v1", "is_active": True},
                {"segment_id": "old", "name": "Old", "version": "v1", "is_active": False},
            ],
        ),
    )
    lake.write("gold.customer_segment_customer", members(spark, ("vip", 1), ("vip", 2)))

    def export(run_id: str) -> None:
        export_segments(lake, settings, as_of=AS_OF, run_id=run_id, started_at=AT)

    job = Job(settings, Run("one", AT))
    job.lake = lake
    publish.export(job, Progress(Console(file=StringIO())), AS_OF)  # no consent is on record at all
    (audited,) = lake.read("ingest.audit_transforms").collect()
    assert (audited.table_name, audited.rows_read, audited.rows_written) == ("gold.segment_export", 4, 2)
    assert audited.checksum is not None
    lake.write("silver.consent", consents(spark, "ann-1"))
    lake.write(
        "gold.dim_customer", customers(spark).where("customer_sk = 1").drop("customer_sk", "valid_to", "is_current")
    )
    export("two")
    export("three")

    ledger = lake.read("gold.segment_export").orderBy("run_id", "format").collect()
    assert [(r.run_id, r.format, r.rows, r.members, r.eligible, r.version) for r in ledger] == [
        ("one", "csv", 0, 2, 0, "v1"),
        ("one", "parquet", 0, 2, 0, "v1"),
        ("two", "csv", 1, 2, 1, "v1"),
        ("two", "parquet", 1, 2, 1, "v1"),
    ]
    assert ledger[2].path == "exports/files/shop/vip/as_of=2018-01-01/vip.csv"
    assert ledger[2].sha256 == hashlib.sha256((tmp_path / "lake" / ledger[2].path).read_bytes()).hexdigest()


def test_the_switch_stops_files_until_they_may_go_on(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "conf" / "destinations").mkdir(parents=True)
    for name in ("files", "more"):
        (tmp_path / "conf" / "destinations" / f"{name}.yml").write_text("kind: files\nformats: [csv]\n")
    settings = Settings(data_dir=tmp_path / "lake", conf_dir=tmp_path / "conf", parallel_steps=1)
    job = Job(settings, Run("one", AT))
    lake = job.lake = Lake(spark, settings)
    vip = {"segment_id": "vip", "name": "VIP", "version": "v1", "is_active": True}
    lake.write("gold.customer_segment", rows(spark, "gold.customer_segment", [vip]))
    lake.write("gold.customer_segment_customer", members(spark, ("vip", 1)))
    said = StringIO()

    def export(name: str, *, is_stopped: bool) -> list[str]:
        set_switch(lake, name, is_stopped=is_stopped, reason=None, changed_at=AT, run_id="one")
        return sorted({p.parents[2].name for p in publish.export(job, Progress(Console(file=said)), AS_OF)})

    assert export("*", is_stopped=True) == []
    assert not list(tmp_path.rglob("*.csv"))
    assert "files is stopped by the switch" in said.getvalue()
    set_switch(lake, "*", is_stopped=False, reason=None, changed_at=AT, run_id="one")
    assert export("files", is_stopped=True) == ["more"]
    assert export("files", is_stopped=False) == ["files", "more"]


@pytest.mark.slow
def test_a_segment_that_is_switched_off_empties_its_files_of_the_day_and_ends_no_run(
    spark: SparkSession, tmp_path: Path
) -> None:
    folder = tmp_path / "conf" / "destinations"
    folder.mkdir(parents=True)
    (folder / "all.yml").write_text("kind: files\nformats: [csv]\n")
    (folder / "bucket.yml").write_text(f"kind: files\nformats: [csv]\nlocation: {tmp_path.as_uri()}\nsegments: [vip]\n")
    (folder / "named.yml").write_text("kind: files\nformats: [csv]\nsegments: [vip]\n")
    settings = Settings(data_dir=tmp_path / "lake", conf_dir=tmp_path / "conf", parallel_steps=1)
    lake = Lake(spark, settings)
    lake.write("silver.consent", consents(spark, "ann-1"))
    people = customers(spark).where("customer_sk = 1").drop("customer_sk", "valid_to", "is_current")
    lake.write("gold.dim_customer", people)
    lake.write("gold.customer_segment_customer", members(spark, ("vip", 1)))

    def export(*, is_active: bool) -> list[tuple[str, int, bool]]:
        said = {"segment_id": "vip", "name": "VIP", "version": "v1", "is_active": is_active}
        lake.write("gold.customer_segment", rows(spark, "gold.customer_segment", [said]))
        exports, _ = export_segments(lake, settings, as_of=AS_OF, run_id="run", started_at=AT)
        return [(e.destination, e.eligible, e.is_new) for e in exports]

    assert export(is_active=True) == [("all", 1, True), ("bucket", 1, True), ("named", 1, True)]
    # Members that are not taken away yet leave no more either.
    assert export(is_active=False) == [("all", 0, True), ("named", 0, True)]
    assert export(is_active=False) == [("all", 0, False), ("named", 0, False)]
    written = [p.read_text("utf-8") for p in tmp_path.rglob("*.csv")]
    assert written == ["member_id,email_sha256,phone_sha256\n"] * 2

    (folder / "named.yml").write_text("kind: files\nsegments: [vpi]\n")
    with pytest.raises(SettingsError, match="No active segment is published as vpi"):
        export(is_active=True)


@pytest.mark.slow
def test_on_days_that_are_not_a_campaign_s_its_files_lose_who_withdrew_and_gain_nobody(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "conf" / "destinations").mkdir(parents=True)
    (tmp_path / "conf" / "destinations" / "files.yml").write_text("kind: files\nformats: [csv]\nsegments: [new]\n")
    (tmp_path / "conf" / "campaigns").mkdir()
    said = {"segment": "vip", "destination": "files", "holdout": {"share": 0.001, "salt": "a"}}
    spring = tmp_path / "conf" / "campaigns" / "spring.yml"
    spring.write_text(json.dumps(said | {"schedule": {"weekdays": ["mon"]}}))
    settings = Settings(data_dir=tmp_path / "lake", conf_dir=tmp_path / "conf", parallel_steps=1)
    lake = Lake(spark, settings)
    known = [{"segment_id": s.segment_id, "name": s.name, "version": "v1", "is_active": True} for s in (VIP, NEW)]
    lake.write("gold.customer_segment", rows(spark, "gold.customer_segment", known))
    lake.write("gold.customer_segment_customer", members(spark, *[("vip", k) for k in (1, 2, 4)]))
    people = customers(spark).where("merchant_id = 'shop' AND is_current")
    lake.write("gold.dim_customer", people.drop("customer_sk", "valid_to", "is_current"))
    names = {sha(f"shop\u001f{n}"): n for n in ("ann-1", "bob-2", "dee-4")}
    told: list[str] = []

    def export(day: int, as_of: date = AS_OF) -> set[str]:
        started = datetime(2018, 1, day)
        export_segments(lake, settings, as_of=as_of, run_id=f"{day}", started_at=started, told=told.append)
        found = tmp_path / "lake" / "exports" / "files" / "shop" / "vip" / f"as_of={as_of}" / "vip.csv"
        written = csv.DictReader(found.read_text("utf-8").splitlines()) if found.exists() else []
        return {names[r["member_id"]] for r in written}

    def arms() -> set[str]:
        return {names[r.member_id] for r in lake.read("gold.campaign_member").collect()}

    lake.write("silver.consent", consents(spark, "ann-1", "dee-4"))
    assert (export(1), arms()) == ({"ann-1", "dee-4"}, {"ann-1", "dee-4"})  # a Monday
    lake.write("silver.consent", consents(spark, "bob-2", denied=["ann-1"]))
    assert (export(2), arms()) == ({"dee-4"}, {"ann-1", "dee-4"})
    assert export(2, date(2018, 1, 2)) == set()

    suppress(lake, "shop", ["dee-4"], reason="erased", suppressed_on=AS_OF, run_id="s")
    assert (export(3), arms()) == (set(), {"ann-1"})
    assert export(8) == {"bob-2"}  # the next Monday

    # A holdout that is changed keeps neither withdrawals nor other destinations waiting, and nobody changes arms.
    lake.write("gold.customer_segment_customer", members(spark, ("new", 2)))
    (tmp_path / "conf" / "destinations" / "other.yml").write_text("kind: files\nformats: [csv]\nsegments: [new]\n")
    spring.write_text(json.dumps(said | {"holdout": {"share": 0.999, "salt": "b"}}))
    assert export(15) == {"bob-2"}
    assert "files vip: holdout_changed" in told[-1]
    export(15, date(2018, 1, 15))
    found = (tmp_path / "lake" / "exports").rglob("as_of=2018-01-15")
    assert {p.relative_to(tmp_path / "lake" / "exports").parts[0] for p in found} == {"files", "other"}
    assert list((tmp_path / "lake" / "exports" / "files" / "shop" / "vip").glob("as_of=2018-01-15")) == []
    lake.write("silver.consent", consents(spark, denied=["bob-2"]))
    assert export(15) == set()
    set_switch(lake, "files", is_stopped=True, reason=None, changed_at=AT, run_id="s")
    export(15)
    assert told[-1] == "files is stopped by the switch, nothing was written"


def test_files_where_only_spark_can_write_are_told_by_a_manifest_that_comes_last(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FileDestination(
        name="bucket", kind="files", location=tmp_path.as_uri(), formats=("csv", "parquet", "jsonl")
    )

    def write(*of: tuple[str, int], run_id: str) -> tuple[Export, ...]:
        connector: Connector = RemoteFileConnector(config, spark)
        audience = audience_of(spark, *of, config=config)
        return connector.deliver(audience, [VIP, NEW], as_of=AS_OF, run_id=run_id, started_at=AT)

    vip, new = sorted(
        write(("vip", 1), ("vip", 2), ("vip", 4), ("new", 3), run_id="one"), key=lambda e: e.eligible, reverse=True
    )
    day = tmp_path / "bucket" / "as_of=2018-01-01"
    (manifest,) = [json.loads(p.read_text("utf-8")) for p in (day / "manifest").glob("part-*.txt")]
    assert (day / "manifest" / "_SUCCESS").exists()
    assert (vip.eligible, vip.excluded["no_consent"], new.eligible, new.files) == (2, 1, 0, ())
    assert [f["format"] for f in manifest["files"]] == ["csv", "parquet", "jsonl"]
    for told in manifest["files"]:
        content = (day / told["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest(), told["rows"]) == (told["bytes"], told["sha256"], 2)
    csv_file = next(f for f in vip.files if f.format == "csv")
    with Path(str(csv_file.path).removeprefix("file://")).open(encoding="utf-8", newline="") as lines:
        found = {r["member_id"]: r["phone_sha256"] for r in csv.DictReader(lines)}
    assert found == {sha("shop\u001fann-1"): sha("+15550100"), sha("shop\u001fdee-4"): sha("+15550104")}

    assert "website_id=shop" in str(csv_file.path)
    before = snapshot(day)
    (again, _) = write(("vip", 1), ("vip", 2), ("vip", 4), ("new", 3), run_id="two")
    assert (again.is_new, again.run_id, snapshot(day)) == (False, "one", before)

    # Somebody left: the files of that day must not keep them. A run that died while writing is made up for.
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RemoteFileConnector, "_describe", die)
        with pytest.raises(KeyboardInterrupt):
            write(("vip", 4), run_id="dead")
    (unfinished,) = [json.loads(p.read_text("utf-8")) for p in (day / "manifest").glob("part-*.txt")]
    assert unfinished == {"is_being_written": True}
    (third,) = write(("vip", 4), run_id="three")
    assert (third.is_new, third.eligible) == (True, 1)
    assert sha("+15550100") not in "".join(p.read_text("utf-8") for p in day.rglob("*.csv"))

    # Another format for the same day is written, too.
    config = config.model_copy(update={"formats": ("jsonl",)})
    (fourth,) = write(("vip", 4), run_id="four")
    assert (fourth.is_new, [f.format for f in fourth.files]) == (True, ["jsonl"])


def test_a_location_is_an_address_without_credentials() -> None:
    for good in ("s3a://bucket/x", "abfss://box@account.dfs.core.windows.net/x", "gs://bucket", "file:///tmp/x"):
        FileDestination(name="f", kind="files", location=good)
    for bad in ("/tmp/x", "s3a://key:secret@bucket/x", "http://bucket/x", "s3a://bucket/x?token=1"):
        with pytest.raises(ValueError, match="location"):
            FileDestination(name="f", kind="files", location=bad)
