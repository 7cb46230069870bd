"""What the contest of split GANs does with copies of blocks, on a pair of linear layers and pictures of bars."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import huscf_gan
from benchmarks.chained_blocks import ExportedTask
from benchmarks.split_gans.averaging_plan import averaging_plan
from benchmarks.split_gans.fleet import GanFleet
from benchmarks.split_gans.method import Method, by_cut, members
from benchmarks.split_gans.methods import METHODS
from benchmarks.split_gans.scenario import Domain, Labelled, Scenario, unlike_devices
from benchmarks.split_gans.trainee import Training
from broker_coordinator.aggregation.clusters import PLAIN_FEDERATIONS
from fleet_protocol.split_plan import WireFormat, is_helpers
from tests.support.tiny_pair import write_tiny_pair
from workbench.export.recipe.recipe import read_recipe

PICTURES, TESTED, FEDERATIONS, STEPS = 7000, 50, 2, 2


def domain(name: str, *, upright: bool) -> Domain:
    """Pictures with a bar, whose place is the class."""
    classes = np.arange(PICTURES) % 10
    pictures = np.random.default_rng(0).random((PICTURES, 28, 28), np.float32) * np.float32(0.2)
    for label in range(10):
        pictures[classes == label, 2 * label : 2 * label + 4] += np.float32(0.7)
    if upright:
        pictures = pictures.transpose(0, 2, 1)
    everything = Labelled(np.ascontiguousarray(pictures).reshape(PICTURES, -1), classes)
    return Domain(name, everything, everything.take(np.arange(TESTED)))


@pytest.fixture(scope="module")
def recipe_folder(tmp_path_factory):
    return write_tiny_pair(tmp_path_factory.mktemp("tiny") / "pair")


@pytest.fixture(scope="module")
def exported(recipe_folder) -> ExportedTask:
    return ExportedTask.of(read_recipe(recipe_folder))


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return unlike_devices([domain("lying", upright=False), domain("standing", upright=True)], seed=1)


def trained(
    exported: ExportedTask,
    method: Method,
    scenario: Scenario,
    federations: int = FEDERATIONS,
    *,
    wire: WireFormat = "float32",
    lockstep: bool = False,
) -> GanFleet:
    count = federations * STEPS
    training = Training(count, learning_rate=1e-2, seed=1, wire=wire, lockstep=lockstep)
    fleet = GanFleet(exported, method.participants(scenario), method.holder_of, training)
    for iteration in range(count):
        fleet.iterate(iteration)
        if (iteration + 1) % STEPS == 0:
            method.federate(fleet, (iteration + 1) // STEPS)
    return fleet


def blocks_of(exported: ExportedTask, fleet: GanFleet) -> dict[str, list[bytes]]:
    """Each participant's copies of the blocks, to be compared."""
    block_of = np.repeat(
        [each.block for each in exported.task.parameters], [each.size for each in exported.task.parameters]
    )
    weights = {each.name: fleet.weights_of(each) for each in fleet.participants}
    return {
        name: [flat[block_of == block].tobytes() for block in range(len(fleet.plan.blocks))]
        for name, flat in weights.items()
    }


@pytest.mark.parametrize("name", ["plain_split", "fedgan"])
def test_after_a_plain_federation_all_devices_have_one_pair(exported, scenario, name):
    found = blocks_of(exported, trained(exported, METHODS[name], scenario))
    assert len({tuple(blocks) for blocks in found.values()}) == 1


def test_clusters_keep_their_own_device_blocks_and_share_the_helpers(exported, scenario):
    fleet = trained(exported, METHODS["plain_split"], scenario, 1)
    for iteration in range(STEPS):
        fleet.iterate(iteration)
    of_domain = [replace(each, cluster=each.device.startswith("lying")) for each in members(fleet, by_cut)]
    fleet.average(averaging_plan(of_domain, len(fleet.plan.blocks), PLAIN_FEDERATIONS + 1))
    found = blocks_of(exported, fleet)
    for block in range(len(fleet.plan.blocks)):
        held = [each for each in scenario.devices if not is_helpers(fleet.plan.cut(each.cut), block)]
        copies = {each.domain: found[each.name][block] for each in held}
        assert all(found[each.name][block] == copies[each.domain] for each in held)
        assert len(set(copies.values())) == (2 if held else 0)
        served = {found[each.name][block] for each in scenario.devices if each not in held}
        assert len(served) <= 1


def test_same_seed_gives_the_same_weights(exported, scenario):
    first, second = (blocks_of(exported, trained(exported, METHODS["clustered"], scenario, 1)) for _ in range(2))
    assert first == second


def test_discriminators_are_swapped_and_there_is_one_generator(exported, scenario):
    fleet = trained(exported, METHODS["md_gan"], scenario, 1)
    before = blocks_of(exported, fleet)
    METHODS["md_gan"].federate(fleet, 2)
    after = blocks_of(exported, fleet)
    parts = [block.part for block in fleet.plan.blocks]
    pairs = {
        name: tuple(block for block, part in zip(before[name], parts, strict=True) if part == "discriminator")
        for name in before
    }
    swapped = {
        name: tuple(block for block, part in zip(after[name], parts, strict=True) if part == "discriminator")
        for name in after
    }
    assert sorted(pairs.values()) == sorted(swapped.values())
    assert all(pairs[name] != swapped[name] for name in pairs)
    generators = {
        tuple(b for b, part in zip(each, parts, strict=True) if part == "generator") for each in after.values()
    }
    assert len(generators) == 1


def test_pooled_pairs_have_the_pictures_of_all_devices(scenario):
    everything = METHODS["pooled"].participants(scenario)[0]
    by_domain = METHODS["pooled_by_domain"].participants(scenario)[0]
    assert len(everything.data) == len(by_domain.data) == sum(len(each.data) for each in scenario.devices)
    assert set(by_domain.data.classes.tolist()) == set(range(20))
    assert everything.steps == len(scenario.devices)


@pytest.mark.long
def test_every_method_is_judged_in_both_domains(recipe_folder, scenario, monkeypatch, capsys):
    monkeypatch.setattr(huscf_gan, "read_domains", lambda _data, _tested: scenario.domains)
    arguments = ["huscf_gan", "--quick", "--recipe", str(recipe_folder), "--scenarios", "nearly_empty"]
    monkeypatch.setattr(sys, "argv", arguments)
    huscf_gan.main()
    runs = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert [run["method"] for run in runs] == list(METHODS)
    for run in runs:
        assert set(run["domains"]) == {"lying", "standing"}
        assert all(1 <= scores["score"] <= 10 for scores in run["domains"].values())
        assert all(0 <= scores[key] <= 1 for scores in run["domains"].values() for key in scores if key != "score")
        assert len(run["clusters"]) == 3
