"""What a soak can run: each strategy by itself, and each rule and method that a task may have beside one.

`fedavg` is not among them: its rounds ask for devices, which the soak feeds when it likes
(tests/system/test_synchronous_rounds.py).
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from broker_coordinator.aggregation.robust import RULES
from broker_coordinator.aggregation.strategies import STRATEGIES
from bundle_runtime.bundle import Bundle
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.posterior_plan import POSTERIOR, PosteriorPlan
from fleet_protocol.quarantine_plan import QuarantinePlan
from fleet_protocol.robust_plan import TRUSTING_RULES, RobustPlan
from tests.support.agent import copy_digits_bundle
from tests.support.drift_task import correct

BUFFER_SIZE: Final = 2
MAX_STALENESS: Final = 1
"""Small, so that updates which a kill held up are refused and go back into the feedback."""
TRUSTED: Final = ("pi-01",)

Written = Callable[[Path], Bundle]
"""Writes the digits bundle of a variant into a folder."""


def _written(folder: Path, **changes: object) -> Bundle:
    bounds = {"buffer_size": BUFFER_SIZE, "max_staleness": MAX_STALENESS}
    return copy_digits_bundle(folder, **{**bounds, **changes})  # type: ignore[arg-type]


def _corrected(folder: Path) -> Bundle:
    _written(folder, strategy="fedbuff")
    return correct(folder)


def _robust(rule: str) -> Written:
    trusted = TRUSTED if rule in TRUSTING_RULES else ()
    plan = RobustPlan(rule=rule, trusted_devices=trusted)  # type: ignore[arg-type]
    return partial(_written, strategy="aced", robust=plan)


_OF_STRATEGIES: Final[Mapping[str, Written]] = {
    **{name: partial(_written, strategy=name) for name in STRATEGIES if name not in ("fedavg", POSTERIOR)},
    "fedasync": partial(_written, strategy="fedasync", buffer_size=1),
    "ef21": partial(_written, strategy="ef21", feedback="ef21"),
    "posterior": partial(_written, posterior=PosteriorPlan()),
}
VARIANTS: Final[Mapping[str, Written]] = {
    **_OF_STRATEGIES,
    **{rule: _robust(rule) for rule in RULES},
    "quarantine": partial(_written, strategy="fedbuff", quarantine=QuarantinePlan()),
    "scaffold": _corrected,
    "ditto": partial(_written, strategy="fedbuff", personal=PersonalPlan(method="ditto")),
    "parts": partial(_written, strategy="fedbuff", personal=PersonalPlan(parameters=("3.*",))),
    "clusters": partial(_written, strategy="fedbuff", clusters=ClusterPlan(most=2, found_by="directions")),
}
"""By the name that `--variant` takes."""
