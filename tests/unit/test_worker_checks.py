"""What the worker finds wrong before it trains, each in one clear sentence."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from bundle_runtime.graph import GraphError
from bundle_runtime.graph_checks import why_not_loaded
from bundle_runtime.samples import Samples
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.training.divergence import divergence
from edge_agent.training.engine import BatchPlan, Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.stored_sample_checks import UnfitSamplesError
from edge_agent.training.worker import RoundError, read_samples, run_round
from edge_agent.worker.contract import TrainingJob
from edge_agent.worker.installed import check_installed
from fleet_protocol.bundle_files import TRAIN_FILE, blob_hash
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.task_description import OnnxVersion, TaskDescription
from tests.support.worker import make_job, store_samples
from workbench.recipe_folder import find_recipe

BUNDLE = find_recipe("digits") / "bundle"
RANDOM = np.random.default_rng(0)
INPUTS, LABELS = RANDOM.random((40, 64), np.float32), RANDOM.integers(0, 10, 40)


def stay_open(_readable: list[Path], _store: Path | None) -> None:
    """The tests' own process goes on."""


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return make_job(BUNDLE, store_samples(tmp_path / "samples.db", "digits", INPUTS, LABELS))


def with_graph(job: TrainingJob, content: bytes, folder: Path) -> TrainingJob:
    """The job of a bundle that has this `train.onnx`."""
    (folder / TRAIN_FILE).write_bytes(content)
    files = job.description.files | {TRAIN_FILE: blob_hash(content)}
    description = msgspec.structs.replace(job.description, files=files)
    return msgspec.structs.replace(job, description=description, files={TRAIN_FILE: str(folder / TRAIN_FILE)})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "input 5 is nan; digits takes 0 to 1"),
        (np.inf, "input 5 is inf"),
        (1.5, "input 5 is 1.5; digits takes 0 to 1"),
    ],
)
def test_sample_with_a_value_that_the_task_does_not_take_is_named(job, tmp_path, value, message):
    inputs = INPUTS.copy()
    inputs[[7, 9], 5] = value
    store = store_samples(tmp_path / "bad.db", "digits", inputs, LABELS)
    with pytest.raises(UnfitSamplesError, match="2 of 40 stored samples") as caught:
        run_round(msgspec.structs.replace(job, sample_store=str(store)), lambda _: None, stay_open)
    assert message in str(caught.value)
    assert caught.value.unfit == [8, 10]


def test_dropping_what_the_worker_named_leaves_the_rest(job, tmp_path):
    inputs = INPUTS.copy()
    inputs[7, 5] = np.nan
    store = SampleStore(store_samples(tmp_path / "bad.db", "digits", inputs, LABELS), 100)
    with pytest.raises(UnfitSamplesError) as caught:
        read_samples(store.path, job.description)
    store.drop("digits", caught.value.unfit)
    assert store.count("digits") == len(read_samples(store.path, job.description).training) == 39


@pytest.mark.parametrize(("kind", "label"), [("multi_label", 0.5), ("regression", np.nan)])
def test_label_with_a_value_that_the_task_does_not_take_is_named(job, tmp_path, kind, label):
    schema = LabelSchema(classes=2, kind=kind) if kind == "multi_label" else LabelSchema(values=2, kind=kind)
    task: TaskDescription = msgspec.structs.replace(job.description, label=schema)
    labels = np.ones((40, 2), np.float32)
    labels[3, 1] = label
    store = store_samples(tmp_path / "bad.db", "digits", INPUTS, labels)
    with pytest.raises(UnfitSamplesError, match="the first is sample 4: label 1 is"):
        read_samples(store, task)


def test_class_out_of_range_and_inputs_of_another_shape_are_never_trained_on(job, tmp_path):
    store = SampleStore(tmp_path / "bad.db", 100)
    store.add("digits", INPUTS[0].tobytes(), 10)
    store.add("digits", INPUTS[0].tobytes(), -1)
    store.add("digits", INPUTS[0][:-1].tobytes(), 1)
    store.add("digits", INPUTS[0].astype(np.float64).tobytes(), 1)
    with pytest.raises(RoundError, match=r"no stored sample of digits fits its schema \(4 are stored\)"):
        read_samples(store.path, job.description)
    assert store.drop_misfits(job.description) == 4


@pytest.mark.parametrize(("opset", "ir_version"), [(99, 8), (18, 99)])
def test_graph_that_is_too_new_is_named_with_the_remedy(job, tmp_path, opset, ir_version):
    model = onnx.load(BUNDLE / TRAIN_FILE)
    model.opset_import[0].version, model.ir_version = opset, ir_version
    with pytest.raises(GraphError) as caught:
        run_round(with_graph(job, model.SerializeToString(), tmp_path), lambda _: None, stay_open)
    assert f"train.onnx has opset {opset} and IR version {ir_version}" in str(caught.value)
    assert "this edgeflock knows ONNX up to opset 28 and IR version 14: update edgeflock" in str(caught.value)


def test_graph_that_is_too_new_for_this_onnxruntime_is_named_with_the_version_that_it_needs():
    said = why_not_loaded("train.onnx", OnnxVersion(ir_version=12, opset=26), "1.24.4", "no")
    assert "opset 26 and IR version 12, which need onnxruntime 1.25 or newer; installed is 1.24.4" in said
    assert "pip install --upgrade onnxruntime" in said


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08"], ids=["empty", "text", "cut short"])
def test_graph_that_is_none_is_named(job, tmp_path, content):
    with pytest.raises(GraphError, match=r"train\.onnx is no ONNX model"):
        run_round(with_graph(job, content, tmp_path), lambda _: None, stay_open)


def test_graph_of_another_shape_than_its_task_is_named(job, tmp_path):
    inputs = RANDOM.random((8, 32), np.float32)
    store = store_samples(tmp_path / "other.db", "digits", inputs, LABELS[:8])
    schema = msgspec.structs.replace(job.description.input, shape=[32])
    task = msgspec.structs.replace(job.description, input=schema)
    other = msgspec.structs.replace(job, description=task, sample_store=str(store))
    with pytest.raises(GraphError, match=r"takes inputs as float32 \[N, 64\], the task gives float32 \[8, 32\]"):
        run_round(other, lambda _: None, stay_open)


def test_weights_of_another_shape_are_named(job, tmp_path):
    parameters = job.description.parameters[:1]
    (tmp_path / "weights").write_bytes(write_weights(np.zeros(parameters[0].size, np.float32), parameters))
    with pytest.raises(ProtocolError):
        run_round(msgspec.structs.replace(job, weights=str(tmp_path / "weights")), lambda _: None, stay_open)


def test_calls_of_a_few_steps_give_the_same_bits_as_one_call(job):
    task = job.description
    weights = read_weights(Path(job.weights).read_bytes(), task.parameters)
    samples, plan = Samples(INPUTS, LABELS, 40), plan_batches(40, 50, 16, 0)
    received: list[int] = []
    results = [
        OnnxStepEngine(BUNDLE / TRAIN_FILE, 1, divisible=divisible).train(
            weights, samples, plan, Rates.planned(task.training), lambda done, _: received.append(done)
        )
        for divisible in (False, True)
    ]
    assert received[0] == received[-1] == 50
    assert len(received) > 2
    for whole, parts in zip(*results, strict=True):
        np.testing.assert_array_equal(whole, parts)


def test_engine_whose_package_is_absent_is_named_before_the_agent_starts():
    check_installed("onnx-step")
    with pytest.raises(
        ConfigurationError, match=r"needs onnxruntime-training-cpu==1\.19\.2, installed is onnxruntime 1"
    ):
        check_installed("ort-training")


def test_divergence_tells_of_the_first_bad_batch():
    samples = Samples(np.array([[1.0], [np.inf], [-3.0]], np.float32), np.array([4, 4, 2]), 3)
    plan = BatchPlan(np.array([[0, 0], [1, 2]]), np.ones((2, 2), np.float32), 0)
    found = divergence(np.array([0.5, np.nan], np.float32), np.zeros(3, np.float32), samples, plan, 0.1)
    assert found is not None
    assert (found.step, found.loss_before, found.finite_share) == (1, 0.5, 0.5)
    assert (found.input_minimum, found.input_maximum, found.input_mean) == (-3, -3, -3)
    assert found.labels == "1 of 2, 1 of 4"


def test_weights_that_overflow_in_the_last_step_are_a_divergence():
    samples, plan = Samples(INPUTS, LABELS, 40), plan_batches(40, 3, 4, 0)
    found = divergence(np.ones(3, np.float32), np.array([np.inf], np.float32), samples, plan, 0.1)
    assert found is not None
    assert found.step == 2
