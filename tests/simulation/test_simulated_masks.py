"""A simulated fleet whose updates are summed behind masks: shipped coordinator and helpers, in virtual time."""

import msgspec
import pytest

from bundle_runtime.bundle import Bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.mask_plan import with_noise_of_shares
from fleet_protocol.privacy.noise_shares import NoiseShares
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from tests.support.simulated_fleet import HOUR, bundle, fleet, workload
from workbench.simulation.masks.helper import mask_keys
from workbench.simulation.masks.task import with_simulated_helpers, with_usual_masks
from workbench.simulation.simulation import Options, Simulation

DEVICES = 12


def masked(buffer_size: int = 4) -> Bundle:
    """Cohorts of `buffer_size`, two of them at least."""
    return with_usual_masks(bundle(), DEVICES, buffer_size)


def with_plan(masked_bundle: Bundle, **changed) -> Bundle:
    """The bundle with other settings of its masks."""
    task = masked_bundle.description
    plan = msgspec.structs.replace(task.masks, **changed)
    plan = with_noise_of_shares(plan, task.trained_count, task.task)
    changed_task = msgspec.structs.replace(
        task,
        privacy=PrivacyPlan(masks=plan),
        training=msgspec.structs.replace(task.training, validation_share=0.0),
    )
    return with_simulated_helpers(Bundle(changed_task, masked_bundle.files), plan)


def unmasked(masked_bundle: Bundle) -> Bundle:
    """The same task with whole updates that anybody may see."""
    task = masked_bundle.description
    update = msgspec.structs.replace(
        task.update, keep_fraction=1.0, selection="dense", quantisation="float32", feedback="residual"
    )
    return Bundle(
        msgspec.structs.replace(task, privacy=None, versions_from="update", update=update), masked_bundle.files
    )


def run_of(masked_bundle: Bundle, options: Options, members=None) -> tuple[Simulation, object]:
    run = Simulation(members or fleet(DEVICES), masked_bundle, workload(), options)
    return run, run.run()


def test_fleet_learns_behind_masks_what_it_learns_without():
    options = Options(seed=3, seconds=6 * HOUR)
    _, hidden = run_of(masked(), options)
    _, plain = run_of(unmasked(masked()), options)
    assert hidden.summary.score > 0.7
    assert hidden.summary.score == pytest.approx(plain.summary.score, abs=0.05)
    assert hidden.summary.versions * 2 <= hidden.summary.updates <= hidden.summary.versions * 4
    assert hidden.summary.bytes_up["mask helpers"] > 0 < hidden.summary.bytes_down["mask helpers"]
    assert hidden.summary.uplink_bytes == hidden.summary.bytes_up["masked update"]


def test_same_seed_gives_the_same_fleet_behind_masks():
    options = Options(seed=5, seconds=2 * HOUR)
    drawn = with_plan(masked(), keep_fraction=0.3)
    (_, first), (_, second) = (run_of(drawn, options) for _ in range(2))
    assert first == second
    assert first.summary.versions > 0


def test_crashing_devices_lose_no_update_behind_masks():
    members = fleet(DEVICES, crashes_per_day=200.0, restart_seconds=90.0)
    run, result = run_of(masked(), Options(seed=5, seconds=4 * HOUR), members)
    summary = result.summary
    assert summary.crashes > 20
    assert summary.refused.keys() <= {"void_cohort", "cohort_closed"}
    made, waiting = sum(each.updates_made for each in run.agents), sum(each.updates_waiting for each in run.agents)
    refused = sum(each.times for each in summary.refused.values())
    assert summary.updates + refused <= made <= summary.updates + refused + waiting
    assert summary.updates > made / 2


def test_experiment_of_a_fixed_number_of_devices_goes_on_behind_masks():
    _, result = run_of(masked(), Options(seed=3, seconds=12 * HOUR, concurrent=4, updates=80))
    assert result.summary.updates == 80
    assert result.summary.versions >= 20


def test_device_whose_noised_updates_are_used_up_sends_no_more():
    noise = NoiseShares(epsilon=50.0, delta=1e-3, norm=0.5, at_most=3)
    run, result = run_of(with_plan(masked(), noise=noise), Options(seed=3, seconds=48 * HOUR))
    assert result.summary.updates > 0
    assert max(agent.updates_made for agent in run.agents) == 3
    assert result.summary.updates <= 3 * DEVICES


def test_helpers_of_a_task_are_simulated_under_their_names():
    task = masked().description
    real = {name: mask_keys(["another"])["another"] for name in task.masks.helpers}
    plan = msgspec.structs.replace(task.masks, helpers=real)
    bundled = Bundle(msgspec.structs.replace(task, privacy=PrivacyPlan(masks=plan)), masked().files)
    simulated = with_simulated_helpers(bundled, plan)
    assert simulated.description.masks.helpers == mask_keys(real) != real
    assert simulated.files[DESCRIPTION_FILE] != bundled.files[DESCRIPTION_FILE] or simulated.hash == bundled.hash
    _, result = run_of(simulated, Options(seed=3, seconds=2 * HOUR))
    assert result.summary.versions > 0


def test_encryption_for_a_key_holder_is_not_simulated_and_says_so():
    task = masked().description
    plan = msgspec.structs.replace(task.masks, key_holder="mask-a")
    with pytest.raises(ConfigurationError, match=r"key holder \(mask-a\) is not simulated.*without key_holder"):
        with_simulated_helpers(masked(), plan)


def test_smallest_fleet_behind_masks_has_two_devices():
    run = Simulation(fleet(2), with_usual_masks(bundle(), 2, None), workload(), Options(seed=3, seconds=2 * HOUR)).run()
    assert run.summary.versions * 2 == run.summary.updates > 0
    with pytest.raises(ConfigurationError, match="a sum is of 2 devices at least; --devices is 1"):
        with_usual_masks(bundle(), 1, None)
