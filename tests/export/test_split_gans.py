"""What the contest of split GANs does with copies of blocks, on the shipped pair and pictures of bars."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import huscf_gan
from benchmarks.chained_blocks import ExportedTask
from benchmarks.session_messages import message_bytes
from benchmarks.split_gans.averaging_plan import averaging_plan
from benchmarks.split_gans.border import COUNTED, Border
from benchmarks.split_gans.fleet import GanFleet
from benchmarks.split_gans.lockstep import SharedStep
from benchmarks.split_gans.method import Method, by_cut, members
from benchmarks.split_gans.methods import COMPARED, METHODS
from benchmarks.split_gans.scenario import Scenario, unlike_devices
from benchmarks.split_gans.trainee import Training
from broker_coordinator.aggregation.clusters import PLAIN_FEDERATIONS
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.codec.activations import pack_activations, unpack_rows
from fleet_protocol.split_plan import Passing, WireFormat, is_helpers
from tests.support.barred_pictures import domain
from tests.support.tiny_pair import write_tiny_pair
from workbench.export.recipe.recipe import read_recipe
from workbench.recipe_folder import find_bundle

FEDERATIONS, STEPS, RATE = 2, 2, 1e-2
MOMENTS = [("m", 2, 0), ("v", 2, 0), ("mb", (), 0), ("vb", (), 0)]
"""Of Adam, before the first step: the two of each value, and the two corrections."""


@pytest.fixture(scope="module")
def recipe_folder(tmp_path_factory):
    return write_tiny_pair(tmp_path_factory.mktemp("tiny") / "pair")


@pytest.fixture(scope="module")
def exported() -> ExportedTask:
    bundle = load_bundle(find_bundle("mnist_gan"))
    return ExportedTask(bundle.description, bundle.files)


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
    training = Training(count, learning_rate=RATE, seed=1, wire=wire, lockstep=lockstep)
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


def test_values_cross_as_sessions_pack_them_and_nothing_else_is_packed():
    values = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    whole, packed = (
        Border([True, True, False], Passing(activations=wire, gradients=wire), 0) for wire in ("float32", "int8")
    )
    for border in (whole, packed):
        assert border.forward(0, values) is border.back(0, values) is values
        assert (border.up, border.down) == (0, 0)
        border.begin(COUNTED)
    assert np.array_equal(whole.forward(1, values), values)
    assert np.array_equal(whole.back(1, values), values)
    expected = unpack_rows(pack_activations(values, "int8"), "int8", 4, (6,))
    assert np.array_equal(packed.forward(1, values), expected)
    assert 0 < np.abs(packed.back(1, values) - values).max() <= np.abs(values).max() / 127
    assert whole.up == message_bytes("forward", 4, "float32", pack_activations(values, "float32")) > values.nbytes
    assert packed.up < whole.up
    assert packed.down < whole.down
    found = whole.up, packed.up
    for border in (whole, packed):
        border.begin(COUNTED + 1)
    assert whole.forward(1, values) is values
    assert np.array_equal(packed.forward(1, values), expected)
    assert (whole.up, packed.up) == found
    assert whole.steps == packed.steps == 1


def test_noise_is_on_what_leaves_a_device_and_on_no_answer():
    values = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
    border = Border([True, False, True], Passing(activations="float32", gradients="float32", activation_noise=2.0), 0)
    noise = border.forward(0, values) - values
    assert noise.std() == pytest.approx(2 * values.std(), rel=0.02)
    assert np.array_equal(border.forward(1, values), values), "the helper's answer"
    assert np.array_equal(border.back(0, values), values)
    again = Border([True, False, True], Passing(activations="float32", gradients="float32", activation_noise=2.0), 1)
    assert np.abs(np.corrcoef((again.forward(0, values) - values).ravel(), noise.ravel())[0, 1]) < 0.05


def test_with_int8_other_weights_come_of_fewer_bytes(exported, scenario):
    packed, whole = with_and_without_int8(exported, scenario)
    assert all(few < many for few, many in zip(packed.session_bytes, whole.session_bytes, strict=True))
    assert not np.array_equal(*(each.weights_of(scenario.devices[0]) for each in (packed, whole)))


@pytest.mark.long
def test_with_int8_weights_are_a_few_steps_apart(recipe_folder, scenario):
    """Of a pair without running statistics."""
    fleets = with_and_without_int8(ExportedTask.of(read_recipe(recipe_folder)), scenario)
    found, expected = (each.weights_of(scenario.devices[0]) for each in fleets)
    assert np.abs(found - expected).max() < RATE * STEPS * 2


def with_and_without_int8(exported: ExportedTask, scenario: Scenario) -> tuple[GanFleet, GanFleet]:
    packed, whole = (trained(exported, METHODS["plain_split"], scenario, 1, wire=wire) for wire in ("int8", "float32"))
    return packed, whole


def test_lockstep_of_one_device_takes_the_steps_that_it_takes_alone(exported, scenario):
    alone = replace(scenario, devices=scenario.devices[:1])
    free, waiting = (trained(exported, METHODS["plain_split"], alone, lockstep=lockstep) for lockstep in (False, True))
    assert np.allclose(free.weights_of(alone.devices[0]), waiting.weights_of(alone.devices[0]), atol=RATE / 50)


def test_a_shared_step_is_adams_of_the_mean_gradient():
    weights, rate = np.array([1.0, -2.0], np.float32), 0.1
    state = {name: np.full(shape, value, np.float32) for name, shape, value in MOMENTS}
    held = SimpleNamespace(weights=weights, state=state)
    shared = SharedStep(held, rate)
    for gradient in ([1.0, 4.0], [3.0, -2.0]):
        moment = np.array(gradient, np.float32) * np.float32(0.1)
        held.weights, held.state = weights - 9, {**state, "m": moment, "mb": np.float32(0.1), "vb": np.float32(0.001)}
        shared.take_back()
        assert held.weights is weights
    shared.end()
    assert np.allclose(held.weights, weights - rate * np.sign([2.0, 1.0]), atol=1e-6)
    assert np.allclose(held.state["v"], 0.001 * np.array([4.0, 1.0]))


@pytest.mark.parametrize("name", ["one_cluster_kld_10", "told_10_reverse"])
def test_with_one_cluster_or_told_ones_as_many_are_found(exported, scenario, name):
    fleet = trained(exported, METHODS[name], scenario)
    fleet.iterate(FEDERATIONS * STEPS - 1)
    assert METHODS[name].federate(fleet, PLAIN_FEDERATIONS + 1) == (1 if name.startswith("one") else 2)


@pytest.mark.long
def test_every_method_is_judged_in_both_domains(recipe_folder, scenario, monkeypatch, capsys):
    monkeypatch.setattr(huscf_gan, "read_domains", lambda _data, _tested: scenario.domains)
    arguments = ["huscf_gan", "--quick", "--recipe", str(recipe_folder), "--scenarios", "nearly_empty"]
    monkeypatch.setattr(sys, "argv", arguments)
    huscf_gan.main()
    runs = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert sorted(run["method"] for run in runs) == sorted(COMPARED)
    for run in runs:
        assert set(run["domains"]) == {"lying", "standing"}
        assert all(1 <= scores["score"] <= 10 for scores in run["domains"].values())
        assert all(0 <= scores[key] <= 1 for scores in run["domains"].values() for key in scores if key != "score")
        assert len(run["clusters"]) == 3
