"""Every strategy means the same after a restart, and when the journal is replayed."""

from pathlib import Path

import pytest

from broker_coordinator.aggregation.robust import RULES
from broker_coordinator.aggregation.strategies import STRATEGIES
from broker_coordinator.serving.replay import replayed
from fleet_protocol.aggregation_plan import KEEPS_ESTIMATES, AggregationPlan
from fleet_protocol.codec.sparse import Shapes
from fleet_protocol.posterior_plan import POSTERIOR
from fleet_protocol.robust_plan import COUNTING_RULES, TRUSTING_RULES, USUAL_HOSTILE_SHARE, RobustPlan
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice

NAMES = ("attic-pi", "barn-pi", "cellar-pi")
DEVICES = [SigningDevice(name) for name in NAMES]


def _traffic(strategy: str, shapes: Shapes):
    """Enrolments, then updates with staleness 0 and 1 by turns, where that is allowed."""
    for device in DEVICES:
        yield device, device.enrolment()
    per_version = 1 if strategy == "fedasync" else 2
    for number in range(12):
        base = number // per_version
        if strategy != "fedavg":
            base = max(0, base - number % 2)
        device = DEVICES[number % 3]
        yield device, device.update(number // 3 + 1, base_version=base, samples=1 + number % 5, shapes=shapes)


OPTIMISERS = ("momentum", "grafted", "yogi", "amsgrad", "sgd")
BY_SEVERAL = ("fedbuff", "aced")
"""What a strategy gives and what an optimiser makes of it come one after the other: with others, each pair is long."""

STEPS = [
    *(
        pytest.param(strategy, each, marks=() if strategy in BY_SEVERAL or each == "momentum" else pytest.mark.long)
        for strategy in sorted(STRATEGIES.keys() - {POSTERIOR})
        for each in OPTIMISERS
    ),
    (POSTERIOR, "momentum"),  # the product of factors, with no step of a server's
]


@pytest.mark.parametrize(("strategy", "optimiser"), STEPS)
def test_restart_and_replay_give_the_same_versions(tmp_path, strategy, optimiser) -> None:
    """One coordinator runs through, one is restarted before every update: bit for bit the same versions."""
    plan = AggregationPlan(
        buffer_size=1 if strategy == "fedasync" else 2,
        strategy=strategy,
        server_optimiser=optimiser,
        server_learning_rate=1.0 if strategy == POSTERIOR else 0.5,
        max_staleness=0 if strategy == "fedavg" else 4,
        round_seconds=1e9 if strategy == "fedavg" else 0.0,
    )
    feedback = "ef21" if strategy in KEEPS_ESTIMATES else "residual"
    assert_restart_and_replay_give_the_same_versions(
        tmp_path, plan, UpdatePlan(0.5, selection="top_k_per_tensor", feedback=feedback)
    )


OF_ALL = [(rule, "aced", size) for rule in sorted(RULES.keys() - TRUSTING_RULES) for size in (1, 2)]
BY_TRUSTED = [(rule, strategy, 1) for rule in TRUSTING_RULES for strategy in ("aced", "fedbuff")]


@pytest.mark.parametrize(("rule", "strategy", "bucket_size"), OF_ALL + BY_TRUSTED)
def test_restart_and_replay_give_the_same_versions_by_a_rule(tmp_path, rule, strategy, bucket_size) -> None:
    """Over the last updates of all devices, of which the buffer is a part, or by what a trusted one sent last."""
    share = 0.1 if rule in COUNTING_RULES else USUAL_HOSTILE_SHARE
    plan = AggregationPlan(
        buffer_size=2,
        strategy=strategy,
        server_momentum=0.5,
        max_staleness=4,
        robust=RobustPlan(rule, share, bucket_size, ("barn-pi",) if rule in TRUSTING_RULES else ()),
    )
    assert_restart_and_replay_give_the_same_versions(tmp_path, plan, UpdatePlan(0.5))


def assert_restart_and_replay_give_the_same_versions(folder: Path, plan: AggregationPlan, update: UpdatePlan) -> None:
    bundle = write_bundle(folder / "bundle", aggregation=plan, update=update)
    made = []
    for restarts in (False, True):
        bench = Bench(folder / f"{restarts}.db", bundle)
        for number, (device, data) in enumerate(_traffic(plan.strategy, bundle.description.trained_shapes)):
            bench.handle(device, data)
            bench.make_versions()
            if restarts and number >= len(NAMES):
                bench.restart()
        made.append(list(bench.journal.versions(TASK)))
        states = dict(replayed(bench.journal, bundle.description))
        for version in made[-1][1:]:
            stored = version.state(bundle.description.version.parameters, {})
            assert stored.weights.tobytes() == states[version.number].weights.tobytes()
            assert stored.moments.tobytes() == states[version.number].moments.tobytes()
    assert len(made[0]) > 5
    assert made[0] == made[1]
