"""What the `segmentation segments` commands answer, over a small lakehouse of published segments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from jobs import segments
from jobs.cli import app
from jobs.context import Job
from jobs.segment_status import FAILED_RUN
from jobs.segments import published_definitions, published_versions, split
from lakehouse.errors import SettingsError
from lakehouse.lake import Lake
from lakehouse.settings import Settings
from segments.evaluation import Plan
from segments.language import ask_for
from segments.load import load_segments
from tests.support.lakes import opened_lake
from tests.support.rows import rows

pytestmark = [pytest.mark.spark, pytest.mark.delta]

DAY = date(2018, 1, 1)
OFTEN = "{segment_id: often, name: Often, rule: {feature: frequency, op: at_least, value: 5}}"
HI = "{segment_id: hi, name: Hi, rule: {feature: frequency, op: at_least, value: 7}}"
BOTH = "{segment_id: both, name: Both, rule: {all: [{feature: recency_days, op: at_most, value: 9}, {in_segment: %s}]}}"

Ask = Callable[..., str]


class Shelf:
    """The folder of definitions, and what is published of it."""

    def __init__(self, lake: Lake, folder: Path):
        self.lake, self.folder = lake, folder
        (folder / "lists").mkdir(parents=True)

    def define(self, *texts: str) -> None:
        """Replace every definition."""
        (self.folder / "all.yml").write_text("segments:\n" + "".join(f"  - {t}\n" for t in texts), encoding="utf-8")

    def list(self, name: str, *customer_ids: str) -> None:
        """Replace a static list."""
        (self.folder / "lists" / f"{name}.csv").write_text("\n".join(["customer_id", *customer_ids]), encoding="utf-8")

    def version(self, segment_id: str) -> str:
        """Version of a definition."""
        return next(s.version for s in load_segments(self.folder) if s.segment_id == segment_id)

    def publish(self, *texts: str) -> None:
        """Define, and note the definitions as published."""
        self.define(*texts)
        found = [
            s.to_dict()
            | {
                "conditions": s.conditions_json,
                "version": s.version,
                "customer_group_ids": s.customer_group_ids or None,
            }
            for s in load_segments(self.folder)
        ]
        plain = [{k: v for k, v in row.items() if k != "rule"} for row in found]
        self.lake.write("gold.customer_segment", rows(self.lake.spark, "gold.customer_segment", plain))


@pytest.fixture(scope="module")
def prepared(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten customers, of whom number n bought n times, the first nine of them lately; nothing is published."""
    bought: list[dict[str, Any]] = [
        {"customer_id": str(n), "customer_key": n, "frequency": n, "recency_days": n} for n in range(1, 11)
    ]
    base = {"merchant_id": "shop", "as_of": DAY, "r_score": 1, "f_score": 1, "m_score": 1}
    with opened_lake(spark, tmp_path_factory.mktemp("shelf") / "lake") as lake:
        frame = rows(spark, "feature.customer", [base | b for b in bought])
        lake.write("feature.customer", frame, slice_of={"as_of": DAY})
        lake.ensure("gold.customer_segment")
        return lake.settings.data_dir


@pytest.fixture
def shelf(lake: Lake, tmp_path: Path) -> Shelf:
    return Shelf(lake, tmp_path / "conf" / "segments")


@pytest.fixture
def job(lake: Lake, tmp_path: Path) -> Job:
    """A job over the lakehouse and the folder of definitions."""
    job = Job(Settings(data_dir=lake.settings.data_dir, conf_dir=tmp_path / "conf", as_of=DAY))
    job.__dict__["lake"] = lake
    return job


@pytest.fixture
def ask(job: Job, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a question and returns its answer without breaks of lines."""
    monkeypatch.setattr("jobs.context.Job.start", lambda *_, **__: job)

    def answer(*arguments: str, exit_code: int = 0) -> str:
        asked = CliRunner().invoke(app, ["segments", *arguments])
        assert asked.exit_code == exit_code, asked.output or asked.exception
        return " ".join(asked.output.split())

    return answer


def test_what_was_published_asks_for_segments_as_they_were_published(shelf: Shelf, ask: Ask) -> None:
    shelf.publish(OFTEN, BOTH % "often")
    assert ask("diff", "both").endswith("shop 0 0 5")

    shelf.define(OFTEN.replace("value: 5", "value: 500"), BOTH % "often")
    assert ask("diff", "both").endswith("shop 0 5 0")


def test_nobody_is_in_by_a_definition_that_is_inactive(shelf: Shelf, ask: Ask) -> None:
    idle = OFTEN.replace("name: Often", "name: Often, is_active: false")
    shelf.publish(OFTEN)
    shelf.define(idle)
    assert ask("diff", "often").endswith("shop 0 6 0")

    shelf.publish(idle)
    assert ask("diff", "often").endswith("shop 0 0 0")
    shelf.define(OFTEN)
    assert ask("diff", "often").endswith("shop 6 0 0")


def test_what_was_published_may_ask_for_a_segment_that_is_gone(shelf: Shelf, ask: Ask) -> None:
    shelf.publish(HI, BOTH % "hi")
    shelf.define("{segment_id: both, name: Both, rule: {feature: recency_days, op: at_most, value: 9}}")
    assert ask("diff", "both").endswith("shop 6 0 3")


def test_a_list_with_other_members_is_compared_with_who_was_published(shelf: Shelf, ask: Ask) -> None:
    listed = "{segment_id: listed, name: Listed, rule: {in_list: vip}}"
    shelf.list("vip", "1", "2", "3")
    shelf.publish(listed)
    members = [{"website_id": "shop", "customer_key": n, "segment_ids": ["listed"]} for n in (1, 2, 3, 99)]
    shelf.lake.write("gold.customer_membership", rows(shelf.lake.spark, "gold.customer_membership", members))
    was = load_segments(shelf.folder)[0].version
    assert "published members" not in ask("diff", "listed")

    shelf.list("vip", "3", "4")
    answer = ask("diff", "listed")
    assert f"{was} -> {load_segments(shelf.folder)[0].version}" in answer
    assert "compared with its published members" in answer
    # 99 has no features any more, and so leaves as well.
    assert answer.endswith("shop 1 3 1")


def test_an_explanation_tells_what_is_published_and_why_it_may_differ(shelf: Shelf, ask: Ask) -> None:
    spark = shelf.lake.spark
    shelf.publish(
        OFTEN,
        HI.replace("name: Hi", "name: Hi, refresh_mode: manual"),
        OFTEN.replace("often", "sleepy").replace("Often", "Sleepy, is_active: false"),
    )
    member = {"segment_id": "often", "website_id": "shop", "added_on": date(2017, 12, 24)}
    stays = [member | {"customer_key": n} for n in (1, 9)]
    shelf.lake.write("gold.customer_segment_customer", rows(spark, "gold.customer_segment_customer", stays))
    pinned = {"segment_id": "often", "website_id": "shop", "pinned_at": datetime(2017, 12, 23, 8)}
    pins = [
        pinned | {"customer_key": 1, "is_in": True, "note": "a friend of the house"},
        pinned | {"customer_key": 8, "is_in": False},
        pinned | {"customer_key": 9, "is_in": False},
    ]
    shelf.lake.write("gold.customer_segment_pin", rows(spark, "gold.customer_segment_pin", pins))

    friend = ask("explain", "1", "often")
    assert "false in segment often" in friend
    assert friend.endswith(
        "published: a member since 2017-12-24 pinned in on 2017-12-23, whatever the rule says: a friend of the house"
    )
    assert ask("explain", "8", "often").endswith(
        "published: not a member pinned out on 2017-12-23, whatever the rule says"
    )
    assert ask("explain", "9", "often").endswith("whatever the rule says from the next refresh on")
    assert ask("explain", "2", "often").endswith("published: not a member")
    assert "the segment is manual, so its members stay until it is asked for" in ask("explain", "9", "hi")
    assert ask("explain", "9", "sleepy").endswith(
        "published: not a member the segment is inactive, so a refresh leaves no one in it, whatever the rule says"
    )


def test_what_cannot_be_explained_says_whether_customer_day_or_retailer_is_missing(
    shelf: Shelf, ask: Ask, tmp_path: Path
) -> None:
    shelf.publish(OFTEN)
    (tmp_path / "conf" / "sources").mkdir()
    silent = {"merchant_id": "shop", "customer_id": "77", "customer_key": 77, "valid_from": datetime(2017, 1, 1)}
    person = rows(shelf.lake.spark, "gold.dim_customer", [silent]).drop("customer_sk", "valid_to", "is_current")
    shelf.lake.write("gold.dim_customer", person)
    assert "The customer has no features on 2018-01-01" in ask("explain", "77", "often", exit_code=2)
    assert "No customer has this number, as written" in ask("explain", "78", "often", exit_code=2)
    asked = ("explain", "78", "often", "--website")
    assert "No customer has this number at 'shop'" in ask(*asked, "shop", exit_code=2)
    assert "No retailer is called 'shp'; there are shop. Did you mean 'shop'?" in ask(*asked, "shp", exit_code=2)


def test_who_logged_in_is_in_a_segment_of_guests(shelf: Shelf, ask: Ask) -> None:
    spark = shelf.lake.spark
    shelf.publish("{segment_id: big, name: Big, entity: guest, rule: {feature: net_amount, op: at_least, value: 9}}")
    known = [{"website_id": "shop", "customer_key": n, "customer_id": str(n), "segment_ids": []} for n in (1, 2)]
    shelf.lake.write("gold.customer_membership", rows(spark, "gold.customer_membership", known))
    one = {"segment_id": "big", "website_id": "shop", "customer_key": 1, "customer_id": "1"}
    promoted = rows(spark, "gold.customer_segment_promotion", [one | {"visitor_id": "a"}])
    shelf.lake.write("gold.customer_segment_promotion", promoted)
    member = rows(spark, "gold.customer_segment_customer", [one | {"added_on": date(2017, 12, 24)}])
    shelf.lake.write("gold.customer_segment_customer", member)
    assert ask("explain", "1", "big").endswith(
        "published: a member since 2017-12-24 of visitors who logged in as this customer the rule is true of 1"
    )
    assert ask("explain", "2", "big").endswith(
        "published: not a member of visitors who logged in as this customer the rule is true of 0"
    )
    assert "leave --as-of out" in ask("explain", "1", "big", "--as-of", "2018-01-01", exit_code=2)


def test_members_are_split_in_proportion_and_stay_where_they_are(shelf: Shelf, job: Job) -> None:
    shelf.define("{segment_id: all, name: All, rule: {feature: frequency, op: at_least, value: 1}}")
    member = {"segment_id": "all", "website_id": "shop"}

    def publish(*keys: int) -> None:
        made = rows(job.lake.spark, "gold.customer_segment_customer", [member | {"customer_key": k} for k in keys])
        job.lake.write("gold.customer_segment_customer", made)

    shares = {"treated": 0.5, "holdout": 0.5}
    publish(1, 2, 3, 4)
    first = split(job, "all", salt="spring", shares=shares, strata=["r_score"]).localCheckpoint()
    publish(5, 6, 7, 8, 11)  # the last one has no features
    again = {r.customer_key: r.arm for r in split(job, "all", salt="spring", shares=shares, assigned=first).collect()}

    early = {r.customer_key: r.arm for r in first.collect()}
    assert sorted(early.values()) == ["holdout", "holdout", "treated", "treated"]
    assert {k: again[k] for k in early} == early
    assert len(again) == 9
    with pytest.raises(SettingsError, match="Did you mean 'rfm_group'"):
        split(job, "all", salt="spring", shares=shares, strata=["rfm_grp"])
    with pytest.raises(SettingsError, match="add up to 1"):
        split(job, "all", salt="spring", shares={"treated": 0.9, "holdout": 0.2})


def test_pairs_equally_alike_stand_in_the_order_of_their_names(shelf: Shelf, ask: Ask) -> None:
    ids = ["a", "b", "c", "d", "e"]
    members = [{"website_id": w, "customer_key": 1, "segment_ids": ids, "is_present": True} for w in ("shop", "inn")]
    shelf.lake.write("gold.customer_membership", rows(shelf.lake.spark, "gold.customer_membership", members))
    pairs = [f"{w} {one} {other} 1 1.00" for w in ("inn", "shop") for one, other in combinations(ids, 2)]
    assert ask("overlap").endswith(" ".join(pairs))


def test_members_that_were_kept_stand_for_what_was_published(shelf: Shelf, ask: Ask) -> None:
    shelf.publish(OFTEN)
    spark, version = shelf.lake.spark, load_segments(shelf.folder)[0].version
    size = {"segment_id": "often", "website_id": "shop", "as_of": DAY, "version": "older"}
    shelf.lake.write("gold.customer_segment_size", rows(spark, "gold.customer_segment_size", [size]))
    members = [{"website_id": "shop", "customer_key": n, "segment_ids": ["often"]} for n in (9, 1)]
    shelf.lake.write("gold.customer_membership", rows(spark, "gold.customer_membership", members))
    refresh = {
        "segment_id": "often",
        "website_id": "shop",
        "as_of": DAY,
        "refresh_status": "error",
        "message": "7 of 2",
    }
    frame = rows(spark, "gold.customer_segment_refresh", [refresh])
    shelf.lake.write("gold.customer_segment_refresh", frame, slice_of={"as_of": DAY})

    answer = ask("diff", "often")
    assert f"older -> {version} The last refresh was held back" in answer
    assert answer.endswith("shop 5 1 1")
    assert ask("explain", "1", "often").endswith("the refresh of 2018-01-01 was held back: 7 of 2")


def test_an_edit_is_no_drift(shelf: Shelf, ask: Ask) -> None:
    listed = "{segment_id: listed, name: Listed, rule: {in_list: vip}}"
    shelf.list("vip", "1")
    shelf.publish(OFTEN, listed)
    spark = shelf.lake.spark
    kept = [
        {"website_id": "shop", "customer_key": n, "segment_ids": ["listed"] * (n == 1) + ["often"] * (n >= 5)}
        for n in range(1, 11)
    ]
    shelf.lake.write("gold.customer_evaluation", rows(spark, "gold.customer_evaluation", kept))
    refreshed = [
        {"segment_id": s.segment_id, "website_id": "shop", "as_of": DAY, "version": s.version}
        for s in load_segments(shelf.folder)
    ]
    frame = rows(spark, "gold.customer_segment_refresh", refreshed)
    shelf.lake.write("gold.customer_segment_refresh", frame, slice_of={"as_of": DAY})

    shelf.define(OFTEN.replace("value: 5", "value: 6"), listed)
    assert ask("reconcile") == "drift: none"
    shelf.list("vip", "2")
    assert ask("reconcile").startswith("listed: left out, for the definition of its last refresh cannot be told")
    wrong = [kept[0] | {"segment_ids": ["often"]}]
    shelf.lake.write("gold.customer_evaluation", rows(spark, "gold.customer_evaluation", wrong))
    assert ask("reconcile", exit_code=6).endswith("shop often: 1 customers drift: 1 segments")


def test_a_manual_segment_asked_for_was_refreshed_as_if_by_itself(shelf: Shelf, job: Job) -> None:
    """So that the next run, which is not asked for it, knows by what everyone was evaluated."""
    shelf.publish(OFTEN, HI.replace("name: Hi", "name: Hi, refresh_mode: manual"))
    assert {s.segment_id: s.refresh_mode for s in published_definitions(job)} == {"often": "auto", "hi": "manual"}

    for day, ids, mode in ((DAY, ("often", "hi"), "auto"), (DAY + timedelta(days=1), ("often",), "manual")):
        refreshed = [{"segment_id": i, "website_id": "shop", "as_of": day} for i in ids]
        frame = rows(shelf.lake.spark, "gold.customer_segment_refresh", refreshed)
        shelf.lake.write("gold.customer_segment_refresh", frame, slice_of={"as_of": day})
        by = ask_for(load_segments(shelf.folder), ids)
        assert {s.segment_id: s.refresh_mode for s in by} == {"often": "auto", "hi": mode}
        assert Plan.of(published_definitions(job)).definitions == Plan.of(by).definitions


def test_a_list_that_went_with_its_segment_leaves_the_others_known(shelf: Shelf, job: Job) -> None:
    shelf.list("vip", "1")
    listed = "{segment_id: listed, name: Listed, is_active: %s, rule: {in_list: vip}}"
    shelf.publish(OFTEN, listed % "true")
    shelf.list("vip", "1", "2")
    assert published_definitions(job) == ()
    shelf.publish(OFTEN, listed % "false")
    shelf.list("vip", "1")
    assert [s.segment_id for s in published_definitions(job)] == ["often"]


def test_a_run_that_failed_says_nothing_of_the_refresh_before_it(shelf: Shelf, job: Job) -> None:
    shelf.publish(OFTEN, HI)
    was = [r.asDict() | {"refresh_status": "error"} for r in shelf.lake.read("gold.customer_segment").collect()]
    was = [r | {"refresh_message": FAILED_RUN * (r["segment_id"] == "hi") + "no disk"} for r in was]
    shelf.lake.write("gold.customer_segment", rows(shelf.lake.spark, "gold.customer_segment", was))
    assert published_versions(job) == {"hi": shelf.version("hi")}


def test_a_refresh_that_was_cut_off_asks_for_a_segment_not_published_as_active(shelf: Shelf, ask: Ask) -> None:
    shelf.publish(OFTEN, BOTH % "often")
    was = [r.asDict() for r in shelf.lake.read("gold.customer_segment").collect()]
    was = [r | {"is_active": r["segment_id"] != "often"} for r in was]
    shelf.lake.write("gold.customer_segment", rows(shelf.lake.spark, "gold.customer_segment", was))
    refreshed = {"segment_id": "both", "website_id": "shop", "as_of": DAY, "version": shelf.version("both")}
    frame = rows(shelf.lake.spark, "gold.customer_segment_refresh", [refreshed])
    shelf.lake.write("gold.customer_segment_refresh", frame, slice_of={"as_of": DAY})

    assert ask("reconcile").startswith("both: left out, for the definition of its last refresh cannot be told")


def test_a_day_without_features_is_no_empty_answer(shelf: Shelf, ask: Ask, tmp_path: Path) -> None:
    shelf.publish(OFTEN)
    shelf.lake.write("feature.customer", shelf.lake.read("feature.customer").where("false"), slice_of={"as_of": DAY})
    for question in ("preview", "diff"):
        assert "There are no features of 2018-01-01" in ask(question, "often", exit_code=2)
    assert "There is nothing to draw" in ask("history", "often", "--plot", str(tmp_path / "x.png"), exit_code=2)
    assert not (tmp_path / "x.png").exists()


def test_the_stays_of_guests_are_a_history(shelf: Shelf, ask: Ask) -> None:
    shelf.publish("{segment_id: big, name: Big, entity: guest, rule: {feature: net_amount, op: at_least, value: 9}}")
    stay = {"segment_id": "big", "website_id": "shop", "entered_on": DAY, "entry_version": "v1"}
    later = {"exited_on": date(2018, 1, 3), "exit_reason": "logged_in", "exit_version": "v1"}
    stays = [stay | {"visitor_id": "a"}, stay | {"visitor_id": "b"} | later]
    frame = rows(shelf.lake.spark, "gold.customer_segment_guest_history", stays)
    shelf.lake.write("gold.customer_segment_guest_history", frame)
    answer = ask("history", "big")
    assert answer.endswith("shop 2018-01-01 v1 2 2 0 shop 2018-01-03 v1 1 0 1 1 left: logged_in")


def test_a_pin_and_its_end_are_told(shelf: Shelf, ask: Ask) -> None:
    shelf.publish(OFTEN)
    known = [{"website_id": "shop", "customer_key": 7, "customer_id": "7"}]
    shelf.lake.write("gold.customer_evaluation", rows(shelf.lake.spark, "gold.customer_evaluation", known))
    where = ("7", "often", "--website", "shop")
    assert ask("unpin", *where) == "The customer had no pin in 'often'; nothing was changed."
    assert ask("pin", *where, "--out") == "The customer is kept out of 'often' from the next refresh on."
    assert ask("unpin", *where).startswith("The pin was taken away")


def test_the_pin_of_a_customer_without_features_can_be_taken_away(shelf: Shelf, ask: Ask) -> None:
    shelf.define(OFTEN)
    pinned = {"segment_id": "often", "website_id": "shop", "customer_key": 99, "customer_id": "99", "is_in": True}
    shelf.lake.write("gold.customer_segment_pin", rows(shelf.lake.spark, "gold.customer_segment_pin", [pinned]))
    where = ("99", "often", "--website", "shop")
    assert "no evaluated customer" in ask("pin", *where, "--out", exit_code=2)
    shelf.publish(OFTEN)
    shelf.define(HI)
    assert "no segment 'often' in" in ask("pin", *where, exit_code=2)
    assert ask("unpin", *where).startswith("The pin was taken away")
    assert "no evaluated customer" in ask("unpin", *where, exit_code=2)


def test_the_largest_losses_by_priority_come_first(shelf: Shelf, ask: Ask) -> None:
    members = [
        {"website_id": "shop", "customer_key": n, "segment_ids": ["a", "b"][: 1 + n % 3], "primary_segment_id": "a"}
        for n in range(9)
    ]
    for row in members:
        row["is_present"] = True
    shelf.lake.write("gold.customer_membership", rows(shelf.lake.spark, "gold.customer_membership", members))
    assert ask("overlap", "--primary", "--rows", "1").endswith("shop a itself 9")


def test_who_moved_is_told_over_all_days_or_of_one(shelf: Shelf, ask: Ask, job: Job) -> None:
    def moved(customer: int, day: date) -> list[dict[str, Any]]:
        base = {"website_id": "shop", "customer_key": customer, "customer_id": f"{customer}"}
        left = {"segment_id": "a", "entered_on": date(2017, 1, 1), "exited_on": day}
        return [base | left, base | {"segment_id": "b", "entered_on": day}]

    stays = [*moved(1, DAY), *moved(2, DAY), *moved(3, date(2018, 1, 2))]
    frame = rows(shelf.lake.spark, "gold.customer_segment_history", stays)
    shelf.lake.write("gold.customer_segment_history", frame)
    assert ask("flows").endswith("shop a b 3")
    assert ask("flows", "--day", "2018-01-01").endswith("shop a b 2")
    assert segments.flows(job, DAY) == [{"website_id": "shop", "left": "a", "entered": "b", "customers": 2}]


def test_what_was_never_published_is_told_before_it_is_compared(shelf: Shelf, job: Job) -> None:
    shelf.publish(OFTEN)
    with pytest.raises(SettingsError, match=r"'oftn' was never published; .* Did you mean 'often'"):
        segments.diff(job, segments.find(job, "often"), segments.published(job, "oftn"))


@pytest.mark.parametrize("question", ["history", "events"])
def test_a_segment_that_never_was_is_no_empty_answer(shelf: Shelf, ask: Ask, question: str) -> None:
    shelf.publish(OFTEN)
    shelf.define(HI)
    assert "Did you mean 'often'?" in ask(question, "ofen", exit_code=2)
    ask(question, "often")
    ask(question, "hi")


def test_a_waterfall_ends_at_the_size_also_of_a_segment_for_some(shelf: Shelf, ask: Ask) -> None:
    shelf.define(OFTEN.replace("name: Often", "name: Often, website_ids: [shop], customer_group_ids: [staff]"))
    answer = ask("preview", "often")
    assert "0 of 10 customers" in answer
    assert 'website_id in ["shop"] 10 10 customer_group_id in ["staff"] 0 0 frequency at_least 5 6 0' in answer
