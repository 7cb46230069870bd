"""A fleet without a coordinator in virtual time: it learns and agrees through crashes, nights, hostile neighbours."""

import io
import json

import msgspec
import numpy as np
import pytest
from rich.console import Console

from bundle_runtime.bundle import Bundle
from fleet_protocol.codec import encode_update, write_weights
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip_plan import GossipPlan
from fleet_protocol.kinds import Told
from fleet_protocol.limits import MIB
from fleet_protocol.parameter import Parameter
from fleet_protocol.remedies import STEADIER_TRAINING
from fleet_protocol.update_plan import WHOLE_UPDATES
from tests.support.bundles import write_bundle
from tests.support.simulated_fleet import BUNDLE, HOUR, bundle, fleet, workload
from workbench.simulation.gossip.show import asked_plan, prepare_gossip, simulate_gossip
from workbench.simulation.gossip.simulation import GossipSimulation, as_told
from workbench.simulation.gossip.summary import GossipSummary, print_gossip, why_worthless
from workbench.simulation.show import Request
from workbench.simulation.simulation import Options

HOSTILE = 0
RING = GossipPlan("ring")


def simulation(
    topology: str = "ring",
    rule: str = "mean",
    *,
    seed: int = 1,
    hours: float = 6,
    tamper=as_told,
    devices: int = 8,
    **changes,
) -> GossipSimulation:
    options = Options(seed=seed, seconds=hours * HOUR, score_every=50)
    members = fleet(devices, **changes)
    plan = GossipPlan(topology, rule, seed if topology == "random" else 0)
    return GossipSimulation(members, bundle(keep_fraction=0.13), workload(), options, plan, tamper=tamper)


@pytest.mark.parametrize(
    ("topology", "rule"), [("ring", "mean"), ("grid", "mean"), ("random", "mean"), ("random", "vote")]
)
def test_devices_learn_and_agree(topology, rule):
    summary = simulation(topology, rule).run().summary
    assert why_worthless(summary) is None
    assert summary.last.score > 0.7
    assert summary.last.consensus_distance < 0.5 * summary.last.way
    assert summary.refused == {}
    assert set(summary.bytes_up) == {"change", "request"}, (
        "each has asked once as it came, and no whole copy was needed"
    )


def test_the_same_seed_gives_the_same_bytes():
    def bytes_of(seed: int) -> bytes:
        result = simulation(seed=seed, hours=3, crashes_per_day=10.0).run()
        return msgspec.json.encode(result.summary) + msgspec.json.encode(result.history)

    assert bytes_of(1) == bytes_of(1)
    assert bytes_of(1) != bytes_of(2)


def test_what_is_published_once_comes_to_every_neighbour():
    run = simulation("random", devices=6, hours=3)
    summary = run.run().summary
    assert summary.missed == 0
    on_their_way = summary.bytes_up["change"] * 4 - summary.bytes_down["change"]
    assert 0 <= on_their_way < 0.05 * summary.bytes_down["change"]


def test_devices_that_crash_and_sleep_catch_up_by_whole_copies():
    summary = simulation("ring", hours=24, crashes_per_day=24.0, open_hours=16.0).run().summary
    assert summary.crashes > 50
    assert summary.missed > 0
    assert summary.bytes_down["whole copy"] > 0
    assert why_worthless(summary) is None
    assert summary.last.worst > 0.5


def models_of(run: GossipSimulation) -> np.ndarray:
    return np.stack([device.peer.model for device in run.devices])


def absurd(device: int, told: Told) -> Told:
    if device != HOSTILE:
        return told
    values = np.full(BUNDLE.description.parameter_count, 1e35, np.float32)
    packed = encode_update(values, BUNDLE.description.shapes, WHOLE_UPDATES, np.random.default_rng(0)).packed
    return msgspec.structs.replace(told, packed=packed)


def no_numbers(device: int, told: Told) -> Told:
    return msgspec.structs.replace(told, packed=b"\x00" * 20) if device == HOSTILE else told


@pytest.mark.parametrize("rule", ["mean", "vote"])
def test_absurd_neighbours_are_bounded(rule):
    """The others' models stay finite, and those that it does not reach learn."""
    run = simulation("random", rule, tamper=absurd, devices=12)
    summary = run.run().summary
    honest = models_of(run)[1:]
    assert np.isfinite(honest).all()
    best = max(run.workload.score(model) for model in honest)
    assert best > summary.first.score
    norms = np.linalg.norm(honest, axis=1)
    assert norms.max() < 100 * np.linalg.norm(models_of(run)[0])


def test_what_is_no_change_is_refused_and_counted():
    summary = simulation(tamper=no_numbers).run().summary
    assert sum(count.times for count in summary.refused.values()) > 10
    assert summary.last.score > 0.5


def request(**changes: object) -> Request:
    given = dict.fromkeys(Request.__dataclass_fields__) | {"devices": 8, "profiles": ["pi-4"], "task": "digits"}
    return Request(**(given | {"as_json": True} | changes))


@pytest.mark.parametrize(
    ("own", "topology", "vote", "wanted"),
    [
        (None, None, False, None),
        (None, "grid", False, GossipPlan("grid")),
        (None, "random", True, GossipPlan("random", "vote", 4)),
        (GossipPlan("random", seed=9), None, False, GossipPlan("random", seed=9)),
        (GossipPlan("random", "vote", 9), None, False, GossipPlan("random", "vote", 9)),
        (GossipPlan("ring"), "random", True, GossipPlan("random", "vote")),
        (GossipPlan("random", seed=9), None, True, GossipPlan("random", "vote", 9)),
    ],
)
def test_a_task_says_how_its_devices_gossip_and_options_replace_what_they_name(tmp_path, own, topology, vote, wanted):
    write_bundle(tmp_path, gossip=own)
    options = Options(seed=4, seconds=HOUR)
    assert asked_plan(request(task=str(tmp_path)), options, topology, vote=vote) == wanted


def test_a_vote_where_there_is_a_coordinator_is_refused():
    with pytest.raises(ConfigurationError, match="add --topology, or leave it out"):
        asked_plan(request(), Options(seed=4, seconds=HOUR), None, vote=True)


def test_real_digits_are_learned(capsys):
    options = Options(seed=1, seconds=24 * HOUR, score_every=1000)
    assert simulate_gossip(request(data="digits"), options, GossipPlan("random", seed=1)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["measure"] == "accuracy"
    assert summary["last"]["score"] > 0.8


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"buffer_size": 3}, {}, "--buffer-size does not go with gossip"),
        ({"privacy": "masks"}, {}, "--privacy does not go"),
        ({"checkpoint": "run.checkpoint"}, {}, "--checkpoint does not go.*in one go"),
        ({"ray": "local"}, {}, "--ray does not go"),
        ({}, {"concurrent": 3}, "--concurrent does not go"),
        ({}, {"plain": True}, "--plain does not go"),
        ({"devices": 2}, {}, "'ring' of 2 devices: it takes 3 or more"),
        ({"devices": 5000}, {"memory_mib": 10}, "raise it, or take fewer --devices"),
    ],
)
def test_what_needs_a_coordinator_is_refused_in_words(changes, options, words):
    asked = Options(**({"seed": 1, "seconds": HOUR} | options))
    with pytest.raises(ConfigurationError, match=words):
        simulate_gossip(request(**changes), asked, RING)


def test_a_fleet_that_never_trains_says_so():
    run = prepare_gossip(request(), Options(seed=1, seconds=60.0), RING)
    words = why_worthless(run.run().summary)
    assert words.startswith(
        "nothing was learned: no device has ended a round; a round takes 32 new samples: run longer"
    )


def said(summary: GossipSummary) -> str:
    console = Console(record=True, file=io.StringIO(), width=100)
    print_gossip(summary, console, 1.0)
    return console.export_text()


def test_a_fleet_whose_rounds_all_diverge_is_told_so():
    task = bundle().description
    steep = msgspec.structs.replace(task, training=msgspec.structs.replace(task.training, learning_rate=1e9))
    options = Options(seed=1, seconds=6 * HOUR)
    run = GossipSimulation(fleet(4), Bundle(steep, BUNDLE.files), workload(), options, RING)
    words = why_worthless(run.run().summary)
    assert words.startswith("nothing was learned: no device has ended a round: each of ")
    assert f"; {STEADIER_TRAINING}" in words
    assert "run longer" not in words


def test_what_withheld_rounds_did_is_told():
    summary = simulation(hours=1).run().summary
    withheld = {"spent": 3, "worse": 2, "unchanged": 4}
    words = " ".join(said(msgspec.structs.replace(summary, rounds_withheld=withheld)).split())
    assert "3 times a device had enough of its samples (`maximum_epochs` of task.toml): it trained nothing" in words
    assert "2 rounds made the device's validation samples worse, and were undone; the devices exchanged" in words
    assert "4 rounds told nothing, as the model had moved too little" in words


def test_memory_is_that_of_models_copies_mixing_and_scoring():
    """A model of 1 MiB: 8 devices have theirs and 3 copies each, which are 32 MiB, and one that mixes 18 MiB more."""
    big = msgspec.structs.replace(BUNDLE.description, parameters=[Parameter("weight", [MIB // 4])])
    files = BUNDLE.files | {"weights.safetensors": write_weights(np.zeros(MIB // 4, np.float32), big.parameters)}
    made = Bundle(big, files)
    with pytest.raises(ConfigurationError, match="are 50 MiB, more than --memory-mib 49"):
        GossipSimulation(fleet(8), made, workload(), Options(seed=1, seconds=HOUR, memory_mib=49), RING)
    GossipSimulation(fleet(8), made, workload(), Options(seed=1, seconds=HOUR, memory_mib=50), RING)
