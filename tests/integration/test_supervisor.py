"""The training worker as a real child process: held to its limits, and never more than one round's failure."""

import array
import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.worker import warm_process
from edge_agent.worker.contract import (
    Progress,
    Returned,
    TrainingFailure,
    TrainingJob,
    TrainingResult,
    Withheld,
    longest_message,
    write_job,
)
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import TrainingWorker, train_in_child
from edge_agent.worker.warm_contract import REPORT
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, TRAIN_FILE, WEIGHTS_FILE
from fleet_protocol.codec import decode_update
from tests.support.waiting import DEADLINE_SECONDS, until
from tests.support.worker import make_job, store_samples
from workbench.recipe_folder import find_recipe

SETTINGS = WorkerSettings(nice=0)
AGENT = """
import asyncio, pathlib, sys
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.contract import read_job
from edge_agent.worker.supervisor import train_in_child
job = read_job(pathlib.Path(sys.argv[1]).read_bytes())
settings = WorkerSettings(nice=0, cpu_share=float(sys.argv[2]))
asyncio.run(train_in_child(job, settings, lambda progress: print(progress.phase, flush=True)))
"""
"""An agent reduced to its worker, and its share of the processor; prints each phase of its progress."""


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    bundle = find_recipe("digits") / "bundle"
    store = SampleStore(tmp_path / "samples.db", 100)
    for number in range(40):
        pixels = [((position * 7 + number * 13) % 10) / 10 for position in range(64)]
        store.add("digits", array.array("f", pixels).tobytes(), number % 10)
    description = parse_description((bundle / DESCRIPTION_FILE).read_bytes())
    all_steps = msgspec.structs.replace(description.training, epochs_per_round=0)
    return TrainingJob(
        description=msgspec.structs.replace(description, training=all_steps),
        engine="onnx-step",
        files={TRAIN_FILE: str(bundle / TRAIN_FILE)},
        weights=str(bundle / WEIGHTS_FILE),
        sample_store=str(store.path),
        residual=b"",
        returned=[],
        seed=0,
        life=1,
        threads=1,
        nice=0,
        memory_limit_mib=512,
        cpu_limit_seconds=600,
    )


async def test_round_gives_a_packed_update_and_keeps_the_rest(job) -> None:
    result = await train_in_child(job, SETTINGS)
    assert isinstance(result, TrainingResult), result
    description = job.description
    sent = decode_update(result.packed, description.shapes)
    assert sent.indices.size == round(description.update.keep_fraction * description.parameter_count)
    assert (result.samples, result.steps, result.trained_through) == (40, description.training.steps, 40)
    assert len(result.residual) == 4 * description.parameter_count


async def test_samples_that_are_spent_are_not_trained_on_until_new_ones_come(job) -> None:
    plan = msgspec.structs.replace(job.description.training, maximum_epochs=100)
    job = msgspec.structs.replace(job, description=msgspec.structs.replace(job.description, training=plan))
    spent = msgspec.structs.replace(job, epochs=100.0, trained_through=40)
    withheld = await train_in_child(spent, SETTINGS)
    assert isinstance(withheld, Withheld), withheld
    assert (withheld.why, withheld.trained_through, withheld.epochs) == ("spent", 40, 100.0)
    result = await train_in_child(msgspec.structs.replace(spent, trained_through=35), SETTINGS)
    assert isinstance(result, Withheld), "samples that came before are not new"
    result = await train_in_child(msgspec.structs.replace(spent, trained_through=5), SETTINGS)
    assert isinstance(result, TrainingResult), "five of the ten different ones are"
    assert result.epochs == 50 + job.description.training.steps * job.description.training.batch_size / 10


async def test_same_job_gives_the_same_update_and_another_seed_another(job) -> None:
    first, again = await train_in_child(job, SETTINGS), await train_in_child(job, SETTINGS)
    other = await train_in_child(msgspec.structs.replace(job, seed=1), SETTINGS)
    assert first == again != other


async def test_share_of_the_processor_changes_only_the_time(job) -> None:
    slow = await train_in_child(job, msgspec.structs.replace(SETTINGS, cpu_share=0.3))
    assert slow == await train_in_child(job, SETTINGS)


async def test_returned_update_goes_back_into_the_residual(job) -> None:
    first = await train_in_child(job, SETTINGS)
    assert isinstance(first, TrainingResult)
    carried = msgspec.structs.replace(job, residual=first.residual, returned=[Returned(first.packed)])
    second = await train_in_child(carried, SETTINGS)
    assert isinstance(second, TrainingResult)
    shapes = job.description.shapes
    sent = {name: np.zeros(job.description.parameter_count, np.float32) for name in ("first", "second")}
    decode_update(first.packed, shapes).add_to(sent["first"])
    decode_update(second.packed, shapes).add_to(sent["second"])
    learned = sent["first"] + np.frombuffer(first.residual, np.float32)
    kept = sent["second"] + np.frombuffer(second.residual, np.float32)
    np.testing.assert_allclose(kept, 2 * learned, rtol=1e-4, atol=1e-5)


def endless(job: TrainingJob) -> TrainingJob:
    """More steps than any time limit of these tests has room for."""
    plan = msgspec.structs.replace(job.description.training, steps=2_000_000)
    return msgspec.structs.replace(job, description=msgspec.structs.replace(job.description, training=plan))


async def test_worker_past_its_time_limit_is_killed_and_reported(job) -> None:
    failure = await train_in_child(job, msgspec.structs.replace(SETTINGS, time_limit_seconds=0.01))
    assert failure == TrainingFailure("worker passed its time limit of 0.01 s and was killed", out_of_time=True)


async def test_stopped_worker_is_killed_at_its_time_limit(job) -> None:
    settings = msgspec.structs.replace(SETTINGS, cpu_share=0.01, time_limit_seconds=1.0)
    before = set(psutil.Process().children())
    failure = await train_in_child(endless(job), settings)
    assert failure == TrainingFailure("worker passed its time limit of 1 s and was killed", out_of_time=True)
    assert set(psutil.Process().children()) == before


async def test_worker_past_its_memory_limit_says_so_and_the_next_round_is_as_if_nothing_had_been(job) -> None:
    failure = await train_in_child(msgspec.structs.replace(endless(job), memory_limit_mib=100), SETTINGS)
    assert isinstance(failure, TrainingFailure)
    assert failure.error.startswith("worker passed its memory limit of 100 MiB")
    assert isinstance(await train_in_child(job, SETTINGS), TrainingResult)


async def test_worker_that_can_not_even_start_within_its_memory_limit_is_reported(job) -> None:
    failure = await train_in_child(msgspec.structs.replace(job, memory_limit_mib=1), SETTINGS)
    assert isinstance(failure, TrainingFailure)


async def test_progress_is_heard_in_order_up_to_the_last_step(job) -> None:
    received: list[Progress] = []
    result = await train_in_child(job, SETTINGS, received.append)
    assert isinstance(result, TrainingResult)
    assert [received[0].phase, received[-1].phase] == ["reading", "compressing"]
    done = [progress.steps_done for progress in received]
    assert done == sorted(done)
    assert 0 < min(progress.steps_done for progress in received if progress.phase == "training") < result.steps
    assert received[-1].steps_done == result.steps
    assert received[-1].loss is not None
    assert 0 < received[-1].loss < result.loss, "a mean of all steps, and the loss before any of them"


def both(agent: psutil.Process) -> list[psutil.Process]:
    """The warm worker, and the process of its round; empty before there is one."""
    found = agent.children(recursive=True)
    return found if len(found) == 2 else []


def assert_ended(processes: list[psutil.Process]) -> None:
    psutil.wait_procs(processes, timeout=DEADLINE_SECONDS)
    assert all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes)


def test_worker_dies_with_its_agent_even_when_it_is_stopped(job, tmp_path) -> None:
    (tmp_path / "job").write_bytes(write_job(endless(job)))
    command = [sys.executable, "-c", AGENT, str(tmp_path / "job"), "1"]
    agent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    assert agent.stdout.readline() == "reading\n"
    warm, worker = psutil.Process(agent.pid).children(recursive=True)
    warm.suspend()
    worker.suspend()
    agent.kill()
    agent.wait()
    agent.stdout.close()
    assert_ended([warm, worker])


def test_worker_that_its_share_of_the_processor_has_stopped_dies_with_its_agent(job, tmp_path) -> None:
    (tmp_path / "job").write_bytes(write_job(endless(job)))
    agent = subprocess.Popen([sys.executable, "-c", AGENT, str(tmp_path / "job"), "0.01"], stdout=subprocess.DEVNULL)
    warm, worker = until(lambda: both(psutil.Process(agent.pid)), "the worker is there")
    until(lambda: worker.status() == psutil.STATUS_STOPPED, "it is stopped for the first time")
    agent.kill()
    agent.wait()
    assert_ended([warm, worker])


async def test_diverged_training_is_dropped_with_what_was_seen(job) -> None:
    plan = msgspec.structs.replace(job.description.training, learning_rate=1e30)
    wild = msgspec.structs.replace(job, description=msgspec.structs.replace(job.description, training=plan))
    failure = await train_in_child(wild, SETTINGS)
    assert isinstance(failure, TrainingFailure)
    assert failure.diverged
    assert failure.error.startswith("training diverged at step ")
    for part in ("of 60: loss", "learning rate 1e+30", "its batch: 16 samples, inputs 0 to 0.9, mean ", "100% finite"):
        assert part in failure.error


async def test_store_without_a_fitting_sample_is_named(job, tmp_path) -> None:
    empty = SampleStore(tmp_path / "empty.db", 10)
    failure = await train_in_child(msgspec.structs.replace(job, sample_store=str(empty.path)), SETTINGS)
    assert failure == TrainingFailure("no stored sample of digits fits its schema (0 are stored)")


@pytest.fixture
def altered_graph(job: TrainingJob, tmp_path: Path) -> str:
    (tmp_path / "altered.onnx").write_bytes(Path(job.files[TRAIN_FILE]).read_bytes()[:-100])
    return str(tmp_path / "altered.onnx")


async def test_altered_graph_fails_the_round_and_nothing_else(job, altered_graph) -> None:
    failure = await train_in_child(msgspec.structs.replace(job, files={TRAIN_FILE: altered_graph}), SETTINGS)
    assert isinstance(failure, TrainingFailure)
    assert failure.error.startswith("wrong_hash: train.onnx")
    assert "the file is truncated or altered: fetch or export it again" in failure.error


def take_over(monkeypatch: pytest.MonkeyPatch, work: str, first: str = "") -> None:
    """Rounds do this instead of training, as after a defect of onnxruntime."""
    program = f"""
import os, signal, sys, time
from edge_agent.training import warm_worker, worker
from edge_agent.worker.contract import TrainingFailure, write_frame
{first}
def work():
    {work}
worker.work = work
warm_worker.main()
"""
    monkeypatch.setattr(warm_process, "WORKER_COMMAND", (sys.executable, "-c", program))


async def test_worker_that_a_bundle_has_taken_over_fills_no_memory_of_its_agent(job, monkeypatch) -> None:
    take_over(monkeypatch, "while True: sys.stdout.buffer.write(b'\\xff' * 65536)")
    failure = await train_in_child(job, SETTINGS)
    assert isinstance(failure, TrainingFailure)
    longest = longest_message(job.description, job.gossip)
    assert failure.error == f"worker began a message of {2**32 - 1} bytes, at most {longest} are read, and was killed"


@pytest.mark.parametrize(
    "begin",
    ["stream = sys.stdout.buffer; stream.write((4_000_000).to_bytes(4, 'big'))", "stream = sys.stderr.buffer"],
    ids=["a message", "errors"],
)
async def test_worker_that_is_killed_while_it_writes_ends_its_round(job, monkeypatch, begin) -> None:
    take_over(monkeypatch, f"{begin}\n    while True: stream.write(bytes(3000)); stream.flush(); time.sleep(0.002)")
    failure = await train_in_child(job, msgspec.structs.replace(SETTINGS, time_limit_seconds=1.0))
    assert failure == TrainingFailure("worker passed its time limit of 1 s and was killed", out_of_time=True)


async def test_step_that_memory_has_no_room_for_names_the_batch_size(tmp_path: Path) -> None:
    """A convolutional network at 2048 rows: onnxruntime finds no room in the middle of a step."""
    random = np.random.default_rng(0)
    inputs = random.random((2048, 1, 28, 28), dtype=np.float32)
    store = store_samples(tmp_path / "samples.db", "mnist_cnn", inputs, random.integers(0, 10, 2048))
    job = make_job(find_recipe("mnist_cnn") / "bundle", store, memory_limit_mib=120)
    training = msgspec.structs.replace(job.description.training, batch_size=2048, steps=1)
    job = msgspec.structs.replace(job, description=msgspec.structs.replace(job.description, training=training))
    failure = await train_in_child(job, SETTINGS)
    assert isinstance(failure, TrainingFailure)
    assert re.fullmatch(
        r"worker passed its memory limit of 120 MiB \(no room for what \w+\.onnx computes\); .* smaller batch_size",
        failure.error,
    )


async def test_warm_worker_serves_the_next_round_alike_and_leaves_by_itself(children, job) -> None:
    worker = TrainingWorker(msgspec.structs.replace(SETTINGS, stay_seconds=30.0))
    first = await worker.train(job)
    (warm,) = children.direct()
    again = await worker.train(job)
    assert first == again
    assert children.direct() == [warm], "the round's own process has ended"
    assert 0 < worker.spent_milliseconds < 60_000
    await worker.end()
    assert worker.spent_milliseconds == 0
    assert not warm.is_running()


async def test_worker_leaves_when_nothing_comes(children, job) -> None:
    worker = TrainingWorker(msgspec.structs.replace(SETTINGS, stay_seconds=0.0))
    assert isinstance(await worker.train(job), TrainingResult)
    (warm,) = children.direct()
    await asyncio.to_thread(psutil.wait_procs, [warm], timeout=DEADLINE_SECONDS)
    assert not warm.is_running()
    assert isinstance(await worker.train(job), TrainingResult), "and is started again"
    await worker.end()


async def test_warm_worker_that_was_killed_meanwhile_is_started_again(children, job) -> None:
    worker = TrainingWorker(msgspec.structs.replace(SETTINGS, stay_seconds=30.0))
    await worker.train(job)
    (warm,) = children.direct()
    warm.kill()
    until(lambda: not psutil.pid_exists(warm.pid), "it has ended, and the event loop has not heard of it")
    assert isinstance(await worker.train(job), TrainingResult)
    await worker.end()


async def test_round_that_fails_as_expected_leaves_the_worker_warm(children, job) -> None:
    worker = TrainingWorker(msgspec.structs.replace(SETTINGS, stay_seconds=30.0))
    failure = await worker.train(msgspec.structs.replace(job, memory_limit_mib=1))
    assert isinstance(failure, TrainingFailure)
    assert isinstance(await worker.train(job), TrainingResult), "limits are the round's, not the worker's"
    await worker.end()
    assert children.direct() == []


async def test_round_that_is_cancelled_takes_every_process_with_it(children, job) -> None:
    worker, begun = TrainingWorker(msgspec.structs.replace(SETTINGS, stay_seconds=30.0)), asyncio.Event()
    running = asyncio.ensure_future(worker.train(endless(job), lambda _: begun.set()))
    await begun.wait()
    assert len(children.all()) == 2
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert children.all() == []
    assert isinstance(await worker.train(job), TrainingResult)
    await worker.end()


@pytest.mark.parametrize(
    ("work", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "worker ended with code -9 "),
        ("raise ValueError('a defect')", "ValueError: a defect"),
        ("os._exit(3)", "worker ended with code 3 "),
        ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)", "worker ended with code -9 "),
    ],
)
async def test_round_whose_process_dies_is_reported_and_leaves_none_behind(
    children, job, monkeypatch, work, words
) -> None:
    take_over(monkeypatch, work)
    worker = TrainingWorker(msgspec.structs.replace(SETTINGS, stay_seconds=30.0))
    failure = await worker.train(job)
    assert isinstance(failure, TrainingFailure)
    assert words in failure.error
    assert children.all() == []


async def test_what_a_round_says_after_its_verdict_reaches_no_other_round(job, monkeypatch) -> None:
    """A round that a bundle has taken over can't speak for the next one, of another task."""
    forged = "write_frame(TrainingFailure(f'of {os.getpid()}'))"
    take_over(monkeypatch, f"os.write(1, {forged}); os.write(1, {forged} * 3)")
    worker = TrainingWorker(msgspec.structs.replace(SETTINGS, stay_seconds=30.0))
    said = [await worker.train(job) for _ in range(3)]
    assert len({failure.error for failure in said if isinstance(failure, TrainingFailure)}) == 3
    await worker.end()


async def test_worker_that_can_not_be_started_says_why(job, monkeypatch) -> None:
    monkeypatch.setattr(warm_process, "WORKER_COMMAND", (sys.executable, "-m", "edge_agent.training.missing"))
    failure = await train_in_child(job, SETTINGS)
    assert isinstance(failure, TrainingFailure)
    assert "No module named edge_agent.training.missing" in failure.error


def reported(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes of rounds that are stopped."""
    codes: list[int] = []
    receive = warm_process.WarmProcess._receive_report

    async def note(process: warm_process.WarmProcess) -> bytes:
        report = await receive(process)
        codes.extend(REPORT.unpack(report) if report else ())
        return report

    monkeypatch.setattr(warm_process.WarmProcess, "_receive_report", note)
    return codes


@pytest.mark.parametrize("share", [1.0, 0.05], ids=["running", "held back by its share"])
async def test_round_that_is_asked_ends_by_itself_after_its_step_and_what_it_used_is_known_before(
    children, job, monkeypatch, share
) -> None:
    codes, training = reported(monkeypatch), asyncio.Event()
    worker = TrainingWorker(msgspec.structs.replace(SETTINGS, cpu_share=share))
    running = asyncio.ensure_future(
        worker.train(endless(job), lambda news: training.set() if isinstance(news, Progress) else None)
    )
    await training.wait()
    before = worker.spent_milliseconds
    await asyncio.to_thread(until, lambda: worker.spent_milliseconds > before, "the running round is counted")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert codes == [0]
    assert children.all() == []


async def test_round_that_does_not_end_when_it_is_asked_is_killed(children, job, monkeypatch) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(1, progress); time.sleep(600)"
    soon = "warm_worker.ASK_SECONDS = 0.05; from edge_agent.worker.contract import Progress"
    take_over(monkeypatch, f"progress = write_frame(Progress('reading', 0, 1, None)); {deaf}", soon)
    codes, begun = reported(monkeypatch), asyncio.Event()
    worker = TrainingWorker(SETTINGS)
    running = asyncio.ensure_future(worker.train(job, lambda _: begun.set()))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert codes == [-signal.SIGKILL]
    assert children.all() == []
