"""Every recipe that ships: its bundle is what it exports, and it learns what its README says, in the real worker."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import occupancy
from benchmarks.mnist import read_mnist
from benchmarks.occupancy_fleet import baseline, score
from benchmarks.one_device import Device, accuracy, predict
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.scale_feeds import scale_feeds
from edge_agent.training.engine import Rates, plan_batches
from fleet_protocol.bundle import verify_bundle
from fleet_protocol.bundle_files import EVALUATE_FILE, TRAIN_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.task_description import TaskDescription
from models.keyword_dscnn.samples import inputs_from_sound
from models.keyword_dscnn.tones import WORDS, utter
from models.mnist_cnn.samples import inputs_from_grey
from models.vibration_autoencoder.bearing import BLOCK_SAMPLES, FAULTS, SAMPLE_RATE_HZ, Bearing, impact_times, record
from models.vibration_autoencoder.samples import inputs_from_acceleration
from tests.support.occupancy_by_hand import RANGES, SlidingWindow
from workbench.data.named_readings import prepare_rows
from workbench.export.bundle_writer import bundle_files, export_bundle
from workbench.export.recipe.recipe import read_recipe
from workbench.inspection.measured_round import drawn_samples
from workbench.recipe_folder import find_bundle, find_recipe

RECIPES = ("keyword_dscnn", "mnist_cnn", "occupancy", "temperature_forecast", "vibration_autoencoder")
LARGEST_BUNDLE_BYTES = 300_000
DATA = Path(__file__).parents[3] / "shared" / "data"
SEVERITY_G = 0.5

each_recipe = pytest.mark.parametrize("name", RECIPES)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Exports a recipe again, once."""
    made: dict[str, Path] = {}

    def export(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            export_bundle(find_recipe(name), made[name])
        return made[name]

    return export


def train(bundle: Path, task: TaskDescription) -> list[np.ndarray]:
    """Trained weights and losses of five steps, then the losses of evaluation."""
    samples, plan = drawn_samples(task), plan_batches(256, 5, task.training.batch_size, seed=1)
    rates = Rates.planned(task.training)
    feeds = {
        "weights": read_weights((bundle / WEIGHTS_FILE).read_bytes(), task.parameters),
        "inputs": samples.inputs,
        "labels": samples.labels,
        "batches": plan.rows,
        "mask": plan.mask,
        "learning_rate": np.array(rates.learning_rate, np.float32),
        **scale_feeds(task),
    }
    results = []
    for file in (TRAIN_FILE, EVALUATE_FILE):
        session = onnxruntime.InferenceSession(bundle / file, providers=["CPUExecutionProvider"])
        results += session.run(None, {entry.name: feeds[entry.name] for entry in session.get_inputs()})[:2]
    return results


@each_recipe
def test_committed_bundle_is_what_the_recipe_exports(name: str, exported: Callable[[str], Path]) -> None:
    committed, fresh = find_recipe(name) / "bundle", exported(name)
    tasks = [verify_bundle(read_files(bundle)) for bundle in (committed, fresh)]
    assert msgspec.structs.replace(tasks[0], files={}) == msgspec.structs.replace(tasks[1], files={})
    assert sum(map(len, read_files(committed).values())) < LARGEST_BUNDLE_BYTES
    for old, new in zip(train(committed, tasks[0]), train(fresh, tasks[1]), strict=True):
        np.testing.assert_allclose(old, new, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["occupancy", "vibration_autoencoder"])
def test_same_recipe_gives_same_bytes(name: str, exported: Callable[[str], Path]) -> None:
    assert bundle_files(read_recipe(find_recipe(name))) == read_files(exported(name))


def test_mnist_cnn_learns_handwriting(tmp_path: Path) -> None:
    digits = read_mnist(DATA / "mnist")
    order = np.random.default_rng(0).permutation(len(digits.labels))
    seen, held_out = order[:8000], order[8000:]
    bundle = find_recipe("mnist_cnn") / "bundle"
    weights = Device(bundle, tmp_path, new_samples=400).live(digits.images[seen], digits.labels[seen].tolist())
    assert accuracy(bundle, weights, digits.images[held_out], digits.labels[held_out]) >= 0.94


def test_occupancy_is_learned_as_a_device_sees_it() -> None:
    figures = occupancy.measure(DATA / "occupancy")
    assert figures["accuracy"] >= 0.96
    assert figures["logistic_regression_accuracy"] > figures["always_empty_accuracy"]


def test_forecast_is_better_than_that_it_stays_as_it_is(tmp_path: Path) -> None:
    bundle = load_bundle(find_bundle("temperature_forecast"))
    training, test = (
        prepare_rows(occupancy.read_readings(DATA / "occupancy" / file), bundle.description, name=file).samples
        for file in (occupancy.TRAINING_FILE, occupancy.TEST_FILE)
    )
    some = training.take(slice(None, None, 4))
    device = Device(find_bundle("temperature_forecast"), tmp_path, new_samples=250)
    weights = device.live(list(some.inputs), some.labels.ravel().tolist())
    assert score(bundle, weights, test) <= 0.9 * baseline(bundle, test)


def test_each_fault_of_a_bearing_stands_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    healthy = np.array([inputs_from_acceleration(record(random)) for _ in range(1000)])
    bundle = find_recipe("vibration_autoencoder") / "bundle"
    device = Device(bundle, tmp_path, new_samples=100)
    untrained = read_weights((bundle / WEIGHTS_FILE).read_bytes(), device.description.parameters)
    trained = device.live(list(healthy[:800]), [None] * 800)

    def errors(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        return ((predict(bundle, weights, inputs) - inputs) ** 2).mean(axis=1)

    for fault in FAULTS:
        faulty = np.array([inputs_from_acceleration(record(random, fault, SEVERITY_G)) for _ in range(100)])
        inputs, is_faulty = np.concatenate([healthy[800:], faulty]), np.repeat([0, 1], [200, 100])
        area = roc_auc_score(is_faulty, errors(trained, inputs))
        assert area >= 0.93, fault
        assert area > roc_auc_score(is_faulty, errors(untrained, inputs)), fault


@pytest.mark.long
def test_keyword_dscnn_tells_words_apart(tmp_path: Path) -> None:
    random, labels = np.random.default_rng(0), np.arange(1500) % len(WORDS)
    sounds = np.array([inputs_from_sound(utter(random, WORDS[label])) for label in labels])
    bundle = find_recipe("keyword_dscnn") / "bundle"
    weights = Device(bundle, tmp_path, new_samples=75).live(list(sounds[:1200]), labels[:1200].tolist())
    assert accuracy(bundle, weights, sounds[1200:], labels[1200:]) >= 0.9


def test_fault_frequencies_are_those_of_the_geometry() -> None:
    """Of the 6205 bearing, as multiples of the shaft's frequency: the tables of Case Western Reserve University."""
    bearing = Bearing()
    multiples = [
        bearing.outer_race_frequency(1.0),
        bearing.inner_race_frequency(1.0),
        2 * bearing.ball_spin_frequency(1.0),
        bearing.cage_frequency(1.0),
    ]
    np.testing.assert_allclose(multiples, [3.5848, 5.4152, 4.7135, 0.39828], rtol=2e-3)


def test_impacts_slip_but_keep_their_rate() -> None:
    random = np.random.default_rng(0)
    intervals = np.concatenate([np.diff(impact_times(random, 100.0)) for _ in range(50)])
    assert abs(intervals.mean() - 0.01) < 1e-4
    assert 0.01 < intervals.std() / intervals.mean() < 0.02


def test_level_of_a_sine_is_its_amplitude_in_its_band() -> None:
    sine = 0.1 * np.sin(2 * np.pi * 1100.0 * np.arange(BLOCK_SAMPLES) / SAMPLE_RATE_HZ)
    assert inputs_from_acceleration(sine)[:32].argmax() == 5  # 1000 to 1200 Hz


@pytest.mark.parametrize("file", [occupancy.TRAINING_FILE, occupancy.TEST_FILE])
def test_windows_of_occupancy_are_bit_for_bit_those_made_by_hand(file: str) -> None:
    window, inputs, labels = SlidingWindow(), [], []
    for reading in occupancy.read_readings(DATA / "occupancy" / file):
        values = [float(reading[name]) for name in RANGES]
        made = window.push(datetime.fromisoformat(str(reading["time"])).timestamp(), values)
        if made is not None:
            inputs.append(made)
            labels.append(int(reading["occupied"]))
    windows = occupancy.read_windows(DATA / "occupancy" / file)
    assert windows.inputs.reshape(len(windows), -1).tobytes() == np.array(inputs, np.float32).tobytes()
    assert windows.labels.tolist() == labels


def test_misshapen_raw_values_are_refused() -> None:
    with pytest.raises(ValueError, match="783 pixels"):
        inputs_from_grey([0] * 783)
    with pytest.raises(ValueError, match="8192"):
        inputs_from_acceleration(np.zeros(100))
    with pytest.raises(ValueError, match="8 kHz"):
        inputs_from_sound(np.full(8000, np.nan))
