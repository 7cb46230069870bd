"""A recipe of several inputs and heads, from the files of a stranger to a trained round and figures of every head."""

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import pytest

from broker_coordinator import cli
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.sample_file import read_samples
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.sources.intake import SampleIntake
from edge_agent.sources.reading_receiver import ReadingReceiver
from edge_agent.sources.sample_commands import SampleCommands
from edge_agent.sources.unix_socket import SampleSocket
from edge_agent.training.worker import read_samples as read_stored
from edge_agent.training.worker import run_round
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.task_description import TaskDescription
from tests.export.test_several_heads import HEADS, INPUTS, MIXED
from tests.support.recipes import write_recipe
from tests.support.waiting import DEADLINE_SECONDS
from tests.support.worker import make_job
from workbench.export.bundle_writer import export_bundle
from workbench.inspection.bundle_inspection import inspect_bundle
from workbench.simulation.show import Request, prepare
from workbench.simulation.simulation import Options

ROWS = 240
WIDE_INPUTS = INPUTS.replace("minimum = -1.0", "minimum = -9.0").replace("maximum = 1.0", "maximum = 9.0")
SCALED = '[scaling]\ninputs = "off"\ntargets = "ranges"\ntarget_ranges = [[-9.0, 9.0], [-9.0, 9.0]]\n'


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    folder = tmp_path_factory.mktemp("mixed")
    recipe = write_recipe(folder / "recipe", MIXED, HEADS + SCALED, inputs=WIDE_INPUTS)
    export_bundle(recipe, folder / "bundle")
    return folder / "bundle", load_bundle(folder / "bundle")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(8)
    digits = random.integers(0, 3, ROWS)
    pictures = random.normal(size=(ROWS, 1, 4, 4))
    pictures[np.arange(ROWS), 0, digits] += 3
    readings = random.normal(size=(ROWS, 3))
    return {
        "inputs.picture": pictures.astype(np.float32),
        "inputs.readings": readings.astype(np.float32),
        "inputs.kind": random.integers(1, 6, (ROWS, 1)).astype(np.float32),
        "labels.digit": digits,
        "labels.pose": (readings[:, :2] * [2, -1]).astype(np.float32),
    }


def lines(arrays: dict[str, np.ndarray]) -> list[bytes]:
    """As a program on a device sends them, in an order of names that is its own."""
    return [
        json.dumps(
            {
                "task": "strange",
                "inputs": {
                    name: arrays[f"inputs.{name}"][row].ravel().tolist() for name in ("readings", "kind", "picture")
                },
                "label": {
                    "pose": arrays["labels.pose"][row].tolist(),
                    "digit": int(arrays["labels.digit"][row]),
                },
            }
        ).encode()
        for row in range(ROWS)
    ]


def gate_of(store: SampleStore, path: Path, description: TaskDescription | None) -> SampleSocket:
    """A sample socket over a real store."""
    intake = SampleIntake(
        frozenset({"strange"}),
        store=store.add,
        store_unjudged=store.add_unjudged,
        describe=lambda _: description,
        arrived=lambda _: None,
    )
    commands = SampleCommands(intake.tasks, store, intake.describe, lambda _: None)
    receiver = ReadingReceiver(intake, time.time)
    return SampleSocket(
        path, receiver, samples=commands, train=lambda: None, status=lambda: None, predict=lambda *_: None
    )


async def send(folder: Path, bundle: Bundle, sent: list[bytes]) -> tuple[SampleStore, list[dict[str, object]]]:
    """What a sample socket of a device makes of these lines."""
    store = SampleStore(folder / "samples.db", ROWS)
    gate = gate_of(store, folder / "samples.sock", bundle.description)
    async with asyncio.timeout(DEADLINE_SECONDS):
        serving = asyncio.create_task(gate.serve())
        while not (folder / "samples.sock").exists():  # noqa: ASYNC110 - the gate announces nothing else
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_unix_connection(folder / "samples.sock")
        answers = []
        for line in sent:
            writer.write(line + b"\n")
            answers.append(json.loads(await reader.readline()))
        writer.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    return store, answers


async def test_samples_by_name_on_the_socket_train_a_round(tmp_path: Path, bundle, arrays):
    folder, loaded = bundle
    store, answers = await send(tmp_path, loaded, lines(arrays))
    assert answers == [{"ok": True}] * ROWS
    store.close()
    share = loaded.description.training.validation_share
    stored = read_stored(tmp_path / "samples.db", loaded.description, validation_share=share)
    np.savez(tmp_path / "samples.npz", **arrays)
    from_file = read_samples(tmp_path / "samples.npz", loaded.description)
    kept = np.concatenate([stored.training.inputs, stored.validation.inputs])
    assert sorted(map(tuple, kept)) == sorted(map(tuple, from_file.inputs))
    result = run_round(make_job(folder, tmp_path / "samples.db"), lambda _: None, lambda _, __: None)
    assert isinstance(result, TrainingResult)
    assert (result.samples, len(result.packed) > 0) == (len(stored.training), True)


async def test_samples_that_came_before_the_schema_are_judged_by_name_too(tmp_path: Path, bundle, arrays):
    sent = lines(arrays)[:3]
    store, answers = await send(tmp_path, bundle[1], [])
    store.close()
    store = SampleStore(tmp_path / "early.db", ROWS)
    gate = gate_of(store, tmp_path / "early.sock", None)
    assert [json.loads(await gate._answer(line, {})) for line in sent] == [{"ok": True}] * 3
    assert answers == []
    judged = store.judge(bundle[1].description)
    assert (judged.kept, judged.refused) == (3, 0)
    store.close()


WRONG = {
    "nothing by name": ('{"task": "strange", "inputs": [1, 2], "label": {}}', "inputs are given without names"),
    "an input that is not there": (
        '{"task": "strange", "inputs": {"sound": [1]}, "label": {}}',
        "'sound' is not known to strange, which takes 'kind', 'picture', 'readings'",
    ),
    "an input that lacks": ('{"task": "strange", "inputs": {"kind": 1}, "label": {}}', "inputs.picture is missing"),
    "a half token": ('{"task": "strange", "inputs": {"kind": 1.5}, "label": {}}', "inputs.kind is 1.5; strange takes"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_lacks_or_is_too_much_is_refused_by_its_name(name: str, tmp_path: Path, bundle):
    line, words = WRONG[name]
    store, (answer,) = await send(tmp_path, bundle[1], [line.encode()])
    assert (answer["ok"], store.count("strange")) == (False, 0)
    assert words in str(answer["error"])
    store.close()


def test_files_of_four_formats_hold_the_same_samples(tmp_path: Path, bundle, arrays):
    task = bundle[1].description
    np.savez(tmp_path / "samples.npz", **arrays)
    (tmp_path / "samples.jsonl").write_bytes(b"\n".join(lines(arrays)))
    columns = [arrays[f"inputs.{name}"].reshape(ROWS, -1) for name in task.inputs]
    columns += [arrays[f"labels.{name}"].reshape(ROWS, -1) for name in task.heads]
    table = np.concatenate(columns, axis=1)
    header = [f"x{place}" for place in range(20)] + [f"label{place}" for place in range(3)]
    rows = "\n".join(",".join(map(repr, row)) for row in table.tolist())
    (tmp_path / "samples.csv").write_text(",".join(header) + "\n" + rows)
    first, *others = (read_samples(tmp_path / f"samples.{suffix}", task) for suffix in ("npz", "jsonl", "csv"))
    for other in others:
        np.testing.assert_array_equal(first.inputs, other.inputs)
        np.testing.assert_array_equal(first.labels, other.labels)


def test_simulated_fleet_scores_every_head(tmp_path: Path, bundle, arrays):
    np.savez(tmp_path / "samples.npz", **arrays)
    data = str(tmp_path / "samples.npz")
    request = Request(6, ["pi-4"], None, str(bundle[0]), data, 2, None, None, None, None, as_json=False)
    summary = prepare(request, Options(3, 48 * 3600.0, updates=30)).run().summary
    assert summary.measure == "mean of digit accuracy, pose R2"
    assert summary.heads["digit accuracy"] > 0.6
    assert summary.score == pytest.approx(np.mean(list(summary.heads.values())))
    assert summary.score > summary.first_score


def test_coordinator_evaluates_every_head(tmp_path: Path, bundle, arrays, capsys):
    np.savez(tmp_path / "held-out.npz", **arrays)
    with Journal.open(tmp_path / "coordinator.db") as journal:
        TaskRegistry(journal.engine).publish(bundle[1])
    path = tmp_path / "coordinator.toml"
    path.write_text('fleet = "lab"\nkey_file = "key"\ndatabase = "coordinator.db"\n[broker]\nhost = "localhost"\n')
    command = ["tasks", "--config", str(path), "evaluate", "strange", "--data", str(tmp_path / "held-out.npz")]
    assert cli.main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["accuracy"] is None
    assert 0 <= told["heads"]["digit"]["accuracy"] <= 1
    weighted = told["heads"]["digit"]["loss"] + 0.25 * told["heads"]["pose"]["loss"]
    assert told["loss"] == pytest.approx(weighted, rel=1e-5)


def test_inspection_tries_a_round_on_drawn_samples_of_every_input_and_head(bundle):
    found = inspect_bundle(bundle[0])
    assert (list(found.inputs), list(found.heads)) == (["kind", "picture", "readings"], ["digit", "pose"])
    assert not found.trial.unsteady
