"""A task that asks for per-sample gradients gets them: the device fetches that graph, and its worker runs it."""

import array
import asyncio
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.worker import read_samples
from edge_agent.worker.contract import TrainingJob, TrainingResult
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import train_in_child
from fleet_protocol.bundle_files import (
    DESCRIPTION_FILE,
    EVALUATE_FILE,
    TRAIN_FILE,
    TRAIN_PER_SAMPLE_FILE,
    WEIGHTS_FILE,
    blob_hash,
)
from fleet_protocol.codec import decode_update, read_weights
from fleet_protocol.kinds import Manifest
from tests.export.test_export import DIGITS, write_recipe
from tests.support.jumping_clock import run
from tests.unit.test_version_follower import Device
from workbench.export.bundle_writer import export_bundle

SAMPLES, SEED, CLIP = 40, 3, 0.02
EDIT = ("keep_fraction = 0.13", 'keep_fraction = 1.0\nselection = "dense"\nquantisation = "float32"')


def fetched_version(folder: Path, bundle: Path, weights: str) -> tuple[ReadyVersion, set[str]]:
    """A device that has received a version's manifest, and the blobs that it has requested."""
    device = Device(folder)
    device.blobs = {blob_hash(path.read_bytes()): path.read_bytes() for path in bundle.iterdir()}
    description = blob_hash((bundle / DESCRIPTION_FILE).read_bytes())
    assert device.versions.receive_manifest("digits", Manifest(1, description, weights))
    found: list[ReadyVersion] = []

    async def fetch() -> None:
        found.append(await device.versions.ready_version("digits"))

    run(fetch())  # it first waits in vain for packed weights, which are not offered
    device.database.close()
    return found[0], {request.blob.hex() for request in device.requests}


def test_device_fetches_and_trains_the_per_sample_graph(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe", (DIGITS / "model.py").read_text(), EDIT)
    plan = f"learning_rate = 0.3\ngradient_clip = {CLIP}\nper_sample_gradients = true\nepochs_per_round = 0"
    text = (recipe / "task.toml").read_text()
    (recipe / "task.toml").write_text(text.replace("\nlearning_rate = 0.3", "\n" + plan))
    bundle = tmp_path / "bundle"
    task = export_bundle(recipe, bundle)
    ready, asked_for = fetched_version(tmp_path, bundle, task.files[WEIGHTS_FILE])
    assert ready.files.keys() == {TRAIN_PER_SAMPLE_FILE, EVALUATE_FILE}
    assert ready.files[TRAIN_PER_SAMPLE_FILE].read_bytes() == (bundle / TRAIN_PER_SAMPLE_FILE).read_bytes()
    assert blob_hash((bundle / TRAIN_FILE).read_bytes()) not in asked_for

    store = SampleStore(tmp_path / "samples.db", SAMPLES)
    for number in range(SAMPLES):
        pixels = [((place * 7 + number * 13) % 10) / 10 for place in range(64)]
        store.add("digits", array.array("f", pixels).tobytes(), number % 10)
    job = TrainingJob(
        description=ready.description,
        engine="onnx-step",
        files={name: str(path) for name, path in ready.files.items()},
        weights=str(ready.weights),
        sample_store=str(store.path),
        residual=b"",
        returned=[],
        seed=SEED,
        life=1,
        threads=1,
        nice=0,
        memory_limit_mib=512,
        cpu_limit_seconds=600,
    )
    result = asyncio.run(train_in_child(job, WorkerSettings(nice=0)))
    assert isinstance(result, TrainingResult), result
    sent = decode_update(result.packed, task.shapes)
    delta = np.zeros(task.parameter_count, np.float32)
    delta[sent.indices] = sent.values

    weights = read_weights(ready.weights.read_bytes(), task.parameters)
    batches = plan_batches(SAMPLES, task.training.steps, task.training.batch_size, SEED)
    expected, unclipped = (
        OnnxStepEngine(bundle / TRAIN_PER_SAMPLE_FILE, 1).train(
            weights, read_samples(store.path, task).training, batches, Rates.planned(plan)
        )[0]
        - weights
        for plan in (task.training, msgspec.structs.replace(task.training, gradient_clip=0.0))
    )
    np.testing.assert_allclose(delta, expected, rtol=0, atol=1e-6)
    assert np.linalg.norm(delta) <= task.training.steps * task.training.learning_rate * CLIP
    assert np.linalg.norm(unclipped) > 2 * np.linalg.norm(delta)
