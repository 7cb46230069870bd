"""Owners of a simulated fleet choose their noise: rounds end as planned, and updates say and weigh what they have."""

from dataclasses import replace

import msgspec
import pytest

from bundle_runtime.bundle import Bundle
from edge_agent.core.privacy_settings import PrivacySettings
from fleet_protocol.bundle_files import SAMPLE_GRADIENTS_FILE, TRAIN_FILE
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import SamplePrivacy, with_noise
from tests.support.simulated_fleet import HOUR, bundle, fleet, workload
from workbench.simulation.device.privacy_budget import as_chosen, charged
from workbench.simulation.simulation import Options, Simulation

STEPS = 60
PLAN = with_noise(SamplePrivacy(epsilon=4.0, rounds=3, owners_choose=True), STEPS, "task.toml")
NONE = PrivacySettings(noise="none")
OWN = PrivacySettings(at_least="samples", epsilon=2.0, noise="own")


def private(plan: SamplePrivacy = PLAN) -> Bundle:
    plain = bundle()
    files = plain.files | {SAMPLE_GRADIENTS_FILE: plain.files[TRAIN_FILE]}
    return Bundle(msgspec.structs.replace(plain.description, privacy=PrivacyPlan(plan)), files)


def run(plan: SamplePrivacy = PLAN):
    owners = [NONE, OWN, PrivacySettings(), PrivacySettings()]
    members = [replace(member, owner=owner) for member, owner in zip(fleet(4), owners, strict=True)]
    options = Options(seed=1, seconds=2 * HOUR)
    simulation = Simulation(members, private(plan), replace(workload(), count=lambda _: 40), options)
    return simulation, simulation.run()


@pytest.mark.parametrize("owner", [NONE, OWN, PrivacySettings()])
def test_rounds_on_the_same_samples_end_as_planned_whatever_the_owner_chose(owner):
    task, charges, rounds = private().description, [], 0
    while (withheld := charged(charges, task, 40, owner)) is None:
        rounds += 1
    assert withheld.why == "spent"
    assert rounds == 3
    _, trained = as_chosen(workload().engine, task, owner)
    assert trained.sample_privacy is not None
    noise = trained.sample_privacy.noise_multiplier
    assert noise == 0 if owner is NONE else noise >= PLAN.noise_multiplier


def test_fleet_of_owners_who_choose_is_reproducible_and_told_of_without_those_that_hide_nothing():
    simulation, result = run()
    _, again = run()
    assert [point.score for point in result.history] == [point.score for point in again.history]
    assert {agent.hides_samples for agent in simulation.agents} == {False, True}
    told = result.history[-1].epsilon["sample"]
    assert 0 < told <= 4.0


def test_owner_whom_no_noise_suffices_does_not_train_uncounted():
    with pytest.raises(ValueError, match="no noise up to 1000 keeps epsilon"):
        charged([], private().description, 40, PrivacySettings(at_least="samples", epsilon=1e-9, noise="own"))
