"""What a run of the contest of split GANs says, whatever becomes of it, on a pair of linear layers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.huscf_gan import QUICK, Order, prepared, results
from benchmarks.split_gans.contest import Contest
from benchmarks.split_gans.judges import Judges
from benchmarks.split_gans.methods import METHODS
from benchmarks.split_gans.scenario import Scenario, unlike_devices
from benchmarks.split_gans.trainee import Training
from tests.support.barred_pictures import domain
from tests.support.tiny_pair import write_tiny_pair
from workbench.drawing.model_at_hand import from_file

pytestmark = pytest.mark.long

EFFORT = replace(QUICK, iterations=4)
JUDGED = 300
"""Pictures of each domain that who judges has seen."""
TRAINING = Training(EFFORT.iterations, learning_rate=1e-2, seed=1)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return unlike_devices([domain("lying", upright=False), domain("standing", upright=True)], seed=1)


@pytest.fixture(scope="module")
def contest(scenario, tmp_path_factory) -> Contest:
    folder = tmp_path_factory.mktemp("contest")
    return prepared(write_tiny_pair(folder / "pair"), judges(scenario, folder), EFFORT, kept=folder / "kept")


def judges(scenario: Scenario, folder: Path) -> Judges:
    return Judges(folder, {each.name: each.training.take(np.arange(JUDGED)) for each in scenario.domains})


def test_only_what_a_method_moves_is_counted(contest, scenario):
    found = {name: contest.run(name, METHODS[name], scenario, TRAINING).costs for name in ("plain_split", "fedgan")}
    found["pooled"] = contest.run("pooled", METHODS["pooled"], scenario, TRAINING).costs
    assert min(found["plain_split"].sessions) > 0
    assert found["fedgan"].sessions == found["pooled"].sessions == (0, 0)
    assert found["pooled"].federations == found["pooled"].federations_as_float32 == (0, 0)
    whole = 4 * contest.exported.task.parameter_count
    assert found["fedgan"].federations_as_float32 == (whole // 2, whole // 2)
    assert found["plain_split"].federations_as_float32[0] < whole // 2
    assert all(each.seconds_in_lockstep >= each.seconds > 0 for each in found.values())


@pytest.mark.parametrize("wire", ["float32", "int8"])
def test_a_run_that_diverges_says_when_and_the_last_good_weights_are_judged(contest, scenario, wire, tmp_path):
    hopeless = replace(TRAINING, learning_rate=3e38, wire=wire)
    with np.errstate(all="ignore"):
        found = replace(contest, kept=tmp_path).run("clustered", METHODS["clustered"], scenario, hopeless)
    assert found.diverged is not None
    assert found.diverged < EFFORT.iterations
    assert all(np.isfinite(scores.score) for scores in found.domains.values())
    kept = next(tmp_path.glob("*/*.safetensors"))
    assert np.isfinite(from_file(str(contest.kept / "bundle"), kept, None, None).weights).all()


def test_a_fall_of_the_score_is_said(contest, scenario, monkeypatch):
    falling = iter([8.0, 2.0, 7.0, 6.0])
    monkeypatch.setattr("benchmarks.split_gans.contest.inception_score", lambda _: next(falling))
    often = replace(contest, effort=replace(EFFORT, between_scores=2), kept=None)
    found = often.run("fedgan", METHODS["fedgan"], scenario, TRAINING)
    assert found.followed == {"lying": [8.0, 7.0], "standing": [2.0, 6.0]}
    assert found.collapsed == []
    falling = iter([8.0, 2.0, 3.9, 2.1])
    assert often.run("fedgan", METHODS["fedgan"], scenario, TRAINING).collapsed == ["lying"]


def test_each_pair_that_differs_is_kept_once_and_can_be_drawn(contest, scenario, tmp_path):
    keeping = replace(contest, kept=tmp_path)
    keeping.run("fedgan", METHODS["fedgan"], scenario, TRAINING)
    keeping.run("md_gan", METHODS["md_gan"], scenario, TRAINING)
    assert [each.name for each in tmp_path.glob("fedgan-*/*")] == ["lying-0.safetensors"]
    assert len(list(tmp_path.glob("md_gan-*/*"))) == len(scenario.devices)
    found = from_file(str(contest.kept / "bundle"), next(tmp_path.glob("fedgan-*/*")), None, None)
    assert found.weights.shape == contest.exported.weights.shape


def test_runs_in_several_processes_give_what_one_gives(contest, scenario, tmp_path):
    domains = list(scenario.domains)
    orders = [Order(name, "nearly_empty", TRAINING) for name in ("clustered", "fedgan")]
    found = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        folder.mkdir()
        apart = replace(contest, kept=None, judges=judges(scenario, folder))
        runs = [replace(each, seconds_per_iteration=0.0) for each in results(apart, domains, orders, jobs)]
        found.append(sorted(runs, key=lambda each: each.method))
        assert len(list(folder.glob("*.safetensors"))) == len(domains)
    one, two = found
    assert one == two
