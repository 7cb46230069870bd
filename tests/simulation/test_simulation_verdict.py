"""What a simulation says beside its figures: refusals by reason with the remedy, and whether anything was learned."""

import msgspec
import pytest
from rich.console import Console

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.errors import ConfigurationError, Reason
from workbench.recipe_folder import find_recipe
from workbench.simulation.ledger import Count, Point, Summary
from workbench.simulation.show import Request, as_wanted, report_failure
from workbench.simulation.summary_table import print_summary
from workbench.simulation.verdict import failure, remarks

GOOD = Summary(
    devices=4,
    seed=1,
    virtual_seconds=3600.0,
    versions=5,
    updates=20,
    measure="accuracy",
    first_score=0.1,
    score=0.9,
    target=None,
    reached=None,
    uplink_bytes=1000,
    total_bytes=2000,
    bytes_up={"update": 1000},
    bytes_down={"weights": 1000},
    staleness={0: 20},
    refused={},
    set_aside=0,
    stopped="",
    collapses=0,
    crashes=0,
    rounds_lost=0,
    rounds_diverged=Count(),
    rounds_withheld={},
    guard_refusals={},
    devices_short_of_samples=0,
)


def changed(**fields: object) -> Summary:
    return msgspec.structs.replace(GOOD, **fields)


def test_a_good_run_says_nothing_more_and_ends_well(capsys):
    assert list(remarks(GOOD)) == []
    assert report_failure(GOOD) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"updates": 0, "versions": 0}, "no update was accepted; a round takes 32 new samples: run longer (--hours)"),
        ({"updates": 3, "versions": 0}, "3 updates make no version; run longer, or lower --buffer-size"),
        ({"stopped": "no longer finite"}, "versions stopped after 5: no longer finite; scale the inputs"),
        ({"score": 0.1}, "nothing was learned: accuracy is 0.1000, that of version 0 was 0.1000"),
        ({"score": float("nan")}, "nothing was learned: accuracy is nan"),
        ({"score": 0.1}, "; run longer (--hours), or check that labels follow from inputs"),
        ({"refused": {"out_of_bounds": Count(21, "x")}}, "21 messages were refused, more than the 20 updates"),
    ],
)
def test_a_run_that_is_worth_nothing_ends_with_status_1_and_words(capsys, fields, words):
    assert report_failure(changed(**fields)) == 1
    told = capsys.readouterr().err
    assert told.startswith("edgeflock: ")
    assert words in told
    assert told.count("\n") == 1


def test_running_longer_is_no_remedy_where_rounds_diverge_or_guards_defer_them():
    summary = changed(updates=0, versions=0, rounds_diverged=Count(7, "the loss is nan"))
    assert failure(summary).startswith(
        "nothing was learned: no update was accepted: each of 7 rounds diverged, the first: the loss is nan; scale"
    )
    summary = changed(updates=0, versions=0, guard_refusals={"too hot": 5, "no power": 2})
    assert failure(summary).endswith("accepted; guards deferred 7 rounds, most often (5 times): too hot")


def test_running_longer_is_no_remedy_where_no_device_has_enough_samples():
    summary = changed(updates=0, versions=0, devices_short_of_samples=4)
    assert failure(summary) == "nothing was learned: no update was accepted"
    (remark,) = remarks(summary)
    assert remark.startswith("4 of 4 devices never train")


@pytest.mark.parametrize("score", [0.2, 0.19])
def test_score_no_better_than_that_of_one_answer_to_all_samples_is_told(score):
    (remark,) = remarks(changed(score=score, one_answer=0.2))
    assert remark.startswith(
        f"accuracy is {score:.4f}, and one answer to all samples would give 0.2000: the model does"
    )


def test_labels_that_are_all_equal_are_told_whether_the_score_rose_or_not():
    (remark,) = remarks(changed(score=1.0, one_answer=1.0))
    assert remark.endswith(
        "all samples held out have the same label: give some of every label, or correct what labels them"
    )
    unchanged = changed(score=1.0, first_score=1.0, one_answer=1.0)
    assert "all samples held out have the same label" in failure(unchanged)
    assert list(remarks(unchanged)) == []


@pytest.mark.parametrize("one_answer", [0.89, None])
def test_better_score_than_that_of_one_answer_is_nothing_to_tell(one_answer):
    assert list(remarks(changed(one_answer=one_answer))) == []


def test_fewer_refusals_than_updates_are_told_and_do_not_fail():
    summary = changed(refused={"too_stale": Count(20, "based on version 1, 9 versions old")})
    assert failure(summary) is None
    (remark,) = remarks(summary)
    assert remark.startswith("20 refused as too_stale, the first: based on version 1, 9 versions old; ")
    assert "max_staleness" in remark


@pytest.mark.parametrize("reason", [Reason.OUT_OF_BOUNDS, Reason.NOT_FINITE])
def test_what_is_too_large_names_scale_and_learning_rate(reason):
    (remark,) = remarks(changed(refused={reason.value: Count(2, "the delta's norm is 386")}))
    assert "scale the inputs" in remark
    assert "lower [training] learning_rate" in remark


def test_divergence_and_devices_that_never_train_are_told():
    summary = changed(rounds_diverged=Count(7, "training diverged at step 3 of 20"), devices_short_of_samples=2)
    diverged, short = remarks(summary)
    assert diverged == "7 rounds diverged, the first: training diverged at step 3 of 20"
    assert short.startswith("2 of 4 devices never train")


@pytest.mark.parametrize(
    ("reached", "words"),
    [(None, "not in this time"), (Point(7200.0, 2, 12, 600, 900, 100, 0.5), "after 2.00 h and 12 updates, 600 B")],
)
def test_a_wanted_score_is_told_reached_or_not(reached, words):
    console = Console(width=120, record=True)
    print_summary(changed(target=0.5, reached=reached), console, 1.0)
    told = console.export_text()
    assert "0.5 reached" in told
    assert words in told


def test_options_that_contradict_the_task_are_refused_before_the_simulation():
    request = Request(4, ["pi-4"], None, "digits", None, 4, None, None, None, None, as_json=True)
    bundle = load_bundle(find_recipe("digits") / "bundle")
    plan = msgspec.structs.replace(bundle.description.aggregation, strategy="fedasync", buffer_size=1)
    changed = Bundle(msgspec.structs.replace(bundle.description, aggregation=plan), bundle.files)
    with pytest.raises(ConfigurationError, match=r"digits as simulated: .*buffer_size"):
        as_wanted(changed, request)
