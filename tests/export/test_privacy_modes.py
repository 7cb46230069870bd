"""`--privacy MODE` of simulation and demo: each mode is a bundle of its own, and what can't be carried is refused."""

import json
import math
import shutil

import msgspec
import pytest
from typer.testing import CliRunner

from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.adaptive_clip import AdaptiveClip
from fleet_protocol.privacy.device_privacy import DevicePrivacy, with_device_noise
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from tests.support.hidden_devices import hiding_bundle
from workbench.cli import app
from workbench.demo.demo_kind import chosen
from workbench.privacy_modes.modes import with_devices_hidden
from workbench.privacy_modes.private_bundle import private_bundle
from workbench.recipe_folder import find_bundle
from workbench.simulation.ledger import Point
from workbench.simulation.show import Request, simulate
from workbench.simulation.simulation import Options

OPTIONS = Options(seed=3, seconds=24 * 3600, score_every=20)


def simulated(out, mode, *, data="digits", devices=20):
    request = Request(devices, ["pi-4"], None, "digits", data, None, None, None, None, out, as_json=True, privacy=mode)
    status = simulate(request, OPTIONS)
    summary = json.loads((out / "summary.json").read_text())
    lines = (out / "history.jsonl").read_text().splitlines()
    return status, summary, [msgspec.json.decode(line, type=Point) for line in lines]


@pytest.mark.parametrize(
    ("mode", "of", "devices"),
    [("none", None, 20), ("samples", "sample", 20), ("devices", "device", 60), ("masks", None, 20)],
)
def test_simulation_learns_with_each_mode_and_says_what_was_told(tmp_path, mode, of, devices):
    """Noise that hides each of 20 devices would leave nothing to learn."""
    status, summary, history = simulated(tmp_path, mode, devices=devices)
    assert status == 0
    assert summary["score"] > summary["first_score"]
    assert summary["refused"] == {}
    assert [each["of"] for each in summary["told"]] == ([of] if of else [])
    for each in summary["told"]:
        assert 0 < each["epsilon"] <= each["planned"] == 8.0
        assert history[-1].epsilon == {of: each["epsilon"]}
    told = [point.epsilon.get(of, 0.0) for point in history]
    assert told == sorted(told)


def test_hidden_devices_cost_accuracy_and_no_more_versions_are_made_than_planned(tmp_path):
    _, hidden, _ = simulated(tmp_path / "hidden", "devices", data=None)
    _, plain, _ = simulated(tmp_path / "plain", "none", data=None)
    assert hidden["score"] < plain["score"]
    (told,) = hidden["told"]
    assert hidden["versions"] + told["versions_left"] == 40


def test_simulation_shows_the_clip_that_follows_norms(tmp_path):
    """A clip that begins far too small grows by as much as its rate allows, with each version."""
    task = load_bundle(find_bundle("digits")).description
    hidden = with_devices_hidden(task, 200, 20)
    adaptive = AdaptiveClip(at_most=100.0)
    plan = DevicePrivacy(epsilon=50.0, clip=0.002, versions=20, at_most=3, versions_between=6, adaptive_clip=adaptive)
    hidden = msgspec.structs.replace(hidden, privacy=PrivacyPlan(devices=with_device_noise(plan, "task.toml")))
    shutil.copytree(find_bundle("digits"), tmp_path / "digits")
    (tmp_path / "digits" / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(hidden))
    out = tmp_path / "out"
    request = Request(200, ["pi-4"], None, str(tmp_path / "digits"), None, None, None, None, None, out, as_json=True)
    simulate(request, OPTIONS)
    (told,) = json.loads((out / "summary.json").read_text())["told"]
    lines = (out / "history.jsonl").read_text().splitlines()
    points = [msgspec.json.decode(line, type=Point) for line in lines]
    assert points[0].clip == 0.002
    assert points[-1].clip == told["clip"]
    assert told["versions_left"] == 0
    assert 0.002 * math.exp(0.1 * 20) * 0.8 < told["clip"] < 0.002 * math.exp(0.1 * 20) * 1.25


def test_what_a_simulation_can_not_carry_is_refused_with_a_reason():
    done = CliRunner().invoke(app, ["simulate", "--privacy", "samples"])
    assert isinstance(done.exception, ConfigurationError)
    assert "--privacy samples needs --data" in str(done.exception)


def test_other_demos_take_no_mode():
    with pytest.raises(ConfigurationError, match="--split takes from devices what no mode hides"):
        chosen(split=True, speech=False, privacy="devices")
    kind, _ = chosen(split=False, speech=False, privacy="masks")
    assert kind.privacy == "masks"


def test_bundle_without_a_recipe_beside_it_is_refused_for_samples(tmp_path):
    hiding_bundle(tmp_path / "bundle")
    with pytest.raises(ConfigurationError, match=r"lacks.*write \[privacy.samples\] into its recipe"):
        private_bundle(tmp_path / "bundle", "samples", tmp_path / "out", 8)


def test_bundle_that_hides_samples_by_itself_is_taken_as_it_is(tmp_path):
    made = private_bundle(find_bundle("digits"), "samples", tmp_path / "made", 8)
    assert private_bundle(made, "samples", tmp_path / "again", 8) == made


def test_mode_takes_the_place_of_what_a_bundle_promises(tmp_path):
    hiding_bundle(tmp_path / "bundle")
    plain = load_bundle(private_bundle(tmp_path / "bundle", "none", tmp_path / "plain", 8)).description
    assert plain.privacy is None
    hidden = load_bundle(private_bundle(find_bundle("digits"), "devices", tmp_path / "hidden", 8)).description
    assert hidden.device_privacy
    assert hidden.aggregation.buffer_size == 4
    assert (tmp_path / "hidden" / DESCRIPTION_FILE).is_file()
