"""Checkpoints: a simulation that goes on from one ends as one that was never stopped, to the last bit."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bundle_runtime.bundle import Bundle
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from tests.support.simulated_fleet import HOUR, bundle, fleet, workload
from workbench.simulation import event_queue
from workbench.simulation.checkpoint.file import FIRST_LINE, resume, write_checkpoint
from workbench.simulation.checkpoint.graph import Named, NotWritableError, Vocabulary
from workbench.simulation.checkpoint.graph_reader import GraphReader
from workbench.simulation.checkpoint.graph_writer import GraphWriter
from workbench.simulation.checkpoint.schedule import Checkpoints, claimed
from workbench.simulation.checkpoint.state import why_not_kept
from workbench.simulation.checkpoint.vocabulary import KEPT, OF_WAKE_POLICIES, named_in
from workbench.simulation.conditions import FleetMember
from workbench.simulation.fleet_files import draw_fleet
from workbench.simulation.messages import device_name, device_number
from workbench.simulation.simulation import Options, Result, Simulation

CRASHING = {"crashes_per_day": 100.0, "restart_seconds": 90.0, "open_hours": 9.0, "start_seconds": 60.0}
LIVES = {
    "steady": (fleet(8), {}, {}),
    "crashing": (fleet(10, **CRASHING), {}, {}),
    "refused": (
        fleet(6) + fleet(3, training_mflops=0.2),
        {"max_staleness": 3, "buffer_size": 1, "max_delta_norm": 1e6},
        {},
    ),
    "diverging": (fleet(6), {"max_delta_norm": 5.0, "buffer_size": 1}, {}),
    "in rounds": (fleet(12), {"strategy": "fedavg", "max_staleness": 0, "round_seconds": 900.0}, {}),
    "buffer follows the fleet": (fleet(12), {"buffer_size": None}, {}),
    "drawn": (fleet(20, **CRASHING), {}, {"concurrent": 5, "seconds": 1800.0}),
    "drawn in rounds": (fleet(20), {}, {"concurrent": 6, "synchronous": True, "seconds": 120.0}),
    "to a target": (fleet(8), {}, {"target": 0.4, "stop_at_target": True}),
    **{
        strategy: (fleet(8, **CRASHING), {"strategy": strategy, "buffer_size": size}, {})
        for strategy, size in {"base_mean": 4, "fedasync": 1, "ca2fl": 4, "aced": 4, "fadas": 4}.items()
    },
}


def simulation(members: list[FleetMember], options: Options, **plans: object) -> Simulation:
    return Simulation(members, bundle(**plans), workload(), options)


def told(result: Result) -> tuple:
    return msgspec.json.encode(result.summary), result.history


def states_of(run: Simulation, folder: Path) -> tuple[Result, list[Path]]:
    """Run to the end; a checkpoint of every tick."""
    paths: list[Path] = []

    def tick(_: float) -> None:
        paths.append(folder / f"{len(paths)}.checkpoint")
        write_checkpoint(paths[-1], {}, run)

    return run.run(tick=tick), paths


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("life", LIVES)
def test_what_goes_on_from_a_checkpoint_ends_as_if_it_had_not_stopped(life, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 151)
    members, plans, further = LIVES[life]
    options = Options(**{"seed": 6, "seconds": 1.5 * HOUR, "plain": plain} | further)
    expected = simulation(members, options, **plans).run()
    observed, paths = states_of(simulation(members, options, **plans), tmp_path)
    assert told(observed) == told(expected), "writing changes nothing"
    assert len(paths) >= 2
    for path in (paths[len(paths) // 2 - 1], paths[-1]):
        run = simulation(members, options, **plans)
        assert resume(path, {}, run)
        assert told(run.run()) == told(expected)


def test_what_goes_on_can_be_stopped_again(tmp_path, monkeypatch):
    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 151)
    options = Options(seed=3, seconds=2 * HOUR)
    members = fleet(10, **CRASHING)
    expected, (middle, *_) = states_of(simulation(members, options), tmp_path)
    second = simulation(members, options)
    assert resume(middle, {}, second)
    (tmp_path / "again").mkdir()
    _, later = states_of(second, tmp_path / "again")
    third = simulation(members, options)
    assert resume(later[len(later) // 2], {}, third)
    assert told(third.run()) == told(expected)


def test_a_drawn_fleet_and_a_task_with_clusters_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 151)
    plain = bundle()
    clustered = Bundle(msgspec.structs.replace(plain.description, clusters=ClusterPlan(2)), plain.files)
    options = Options(seed=3, seconds=2 * HOUR)
    expected, paths = states_of(Simulation(fleet(6), clustered, workload(), options), tmp_path)
    run = Simulation(fleet(6), clustered, workload(), options)
    assert resume(paths[len(paths) // 2], {}, run)
    assert told(run.run()) == told(expected)


def a_checkpoint(path: Path) -> Simulation:
    run = simulation(fleet(3), Options(seed=1, seconds=HOUR))
    run.run()
    write_checkpoint(path, {"--seed": "1"}, run)
    return simulation(fleet(3), Options(seed=1, seconds=HOUR))


def test_where_there_is_no_file_a_simulation_begins(tmp_path):
    assert not resume(tmp_path / "none", {}, simulation(fleet(3), Options(seed=1, seconds=HOUR)))


def test_every_byte_of_a_checkpoint_is_checked(tmp_path):
    path = tmp_path / "run.checkpoint"
    run = a_checkpoint(path)
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 50):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ConfigurationError, match=r"run\.checkpoint(: this is no checkpoint| is damaged)"):
            resume(path, {"--seed": "1"}, run)
        path.write_bytes(content[:place])
        with pytest.raises(ConfigurationError, match=r"run\.checkpoint(: this is no checkpoint| is damaged)"):
            resume(path, {"--seed": "1"}, run)


def test_a_checkpoint_of_another_form_or_of_something_else_is_refused_in_words(tmp_path):
    path = tmp_path / "run.checkpoint"
    run = a_checkpoint(path)
    with pytest.raises(ConfigurationError, match="with --seed 1, and now it is 2; give the same options"):
        resume(path, {"--seed": "2"}, run)
    with pytest.raises(ConfigurationError, match="with --plain -, and now it is True"):
        resume(path, {"--seed": "1", "--plain": "True"}, run)
    path.write_bytes(FIRST_LINE.replace(b"form 3", b"form 9") + path.read_bytes()[len(FIRST_LINE) :])
    with pytest.raises(ConfigurationError, match="of another form: go on with the release that wrote it"):
        resume(path, {"--seed": "1"}, run)
    path.write_bytes(b"")
    with pytest.raises(ConfigurationError, match="this is no checkpoint: choose another --checkpoint"):
        resume(path, {}, run)
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path, tmp_path / "fifo", Path("/dev/full")):
        with pytest.raises(ConfigurationError, match="this is no file, but something else; name a file"):
            resume(other, {}, run)


def test_a_checkpoint_of_which_frames_are_missing_or_doubled_is_damaged_although_its_hash_is_right(tmp_path):
    path = tmp_path / "run.checkpoint"
    a_checkpoint(path)
    whole = frames_of(path)
    for frames in (whole[:-1], whole[:-2] + whole[-1:], whole[:2], whole + whole[-1:], whole[:-1] + whole[-2:]):
        content = b"".join(len(each).to_bytes(4) + each for each in frames)
        path.write_bytes(FIRST_LINE + hashlib.sha256(content).digest() + content)
        with pytest.raises(ConfigurationError, match=r"is damaged|not as many as were written"):
            resume(path, {"--seed": "1"}, simulation(fleet(3), Options(seed=1, seconds=HOUR)))


def frames_of(path: Path) -> list[bytes]:
    left, found = path.read_bytes()[len(FIRST_LINE) + 32 :], []
    while left:
        end = 4 + int.from_bytes(left[:4])
        found.append(left[4:end])
        left = left[end:]
    return found


def test_a_checkpoint_of_another_release_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "run.checkpoint"
    run = a_checkpoint(path)
    monkeypatch.setattr(Vocabulary, "signature", lambda _: ["another"])
    with pytest.raises(ConfigurationError, match=r"run\.checkpoint: written by another release of edgeflock"):
        resume(path, {"--seed": "1"}, run)


def test_a_checkpoint_that_fails_is_told_and_the_simulation_goes_on(tmp_path, capsys):
    run = simulation(fleet(3), Options(seed=1, seconds=HOUR))
    checkpoints = Checkpoints(0.0, partial(write_checkpoint, tmp_path / "nowhere" / "file", {}, run))
    checkpoints.tick()
    checkpoints.tick()
    assert capsys.readouterr().err.count("can't be written: No such file or directory; choose another") == 2


def test_what_no_checkpoint_holds_is_said_before_it_runs():
    plain = bundle()
    hidden = msgspec.structs.replace(plain.description, privacy=PrivacyPlan(SamplePrivacy(epsilon=4.0, rounds=3)))
    run = simulation(fleet(3), Options(seed=1, seconds=HOUR))
    assert why_not_kept(run) == ""
    run._bundle = Bundle(hidden, plain.files)
    assert "each sample is hidden" in why_not_kept(run)


def test_a_checkpoint_brings_no_code():
    vocabulary = Vocabulary((), frozenset({(Rung, "count")}))
    ends = Rung(), Rung()
    for written, allowed in ((ends[0].count, True), (ends[0].other, False), (os.system, False), (print, False)):
        ends[0].held = [written]
        named = [Named([end], {0: ("held",)}) for end in ends]
        if not allowed:
            with pytest.raises(NotWritableError):
                list(GraphWriter(vocabulary, named[0]).chunks())
            continue
        lines = list(GraphWriter(vocabulary, named[0]).chunks())
        GraphReader(vocabulary, named[1]).read(lines)
        assert ends[1].held == [ends[1].count]
        forged = [[["method", [0], "other"] if each[0] == "method" else each for each in chunk] for chunk in lines]
        with pytest.raises(ValueError, match="the method 'other' of Rung"):
            GraphReader(vocabulary, named[1]).read(forged)


class Rung:
    """Something that is at both ends."""

    held: object = None

    def count(self) -> None: ...

    def other(self) -> None: ...


def test_objects_that_are_one_stay_one_and_may_lead_back_to_themselves():
    ends = Rung(), Rung()
    shared = ["shared", 2**100, (1.5, None), np.arange(3, dtype=np.float32), bytearray(b"xyz"), b"long enough"]
    loop: dict = {"one": shared, "other": shared, ("key", 3): {1, 2}}
    loop["self"] = loop
    ends[0].held = loop
    vocabulary = Vocabulary((), frozenset())
    lines = list(GraphWriter(vocabulary, Named([ends[0]], {0: ("held",)})).chunks())
    GraphReader(vocabulary, Named([ends[1]], {0: ("held",)})).read(
        msgspec.msgpack.decode(msgspec.msgpack.encode(lines))
    )
    found = ends[1].held
    assert found["self"] is found
    assert found["one"] is found["other"]
    assert found["one"][:3] == shared[:3]
    assert found["one"][3].tolist() == [0.0, 1.0, 2.0]
    assert found["one"][4:] == shared[4:]
    assert found["key", 3] == {1, 2}


NEVER_CHANGE = {
    "": {"_bundle", "_concurrent", "_fleet", "_options", "_progress", "_world"},
    "_world": {
        "_accepted",
        "_plain",
        "_prepared",
        "_signer",
        "_versioned",
        "always_connected",
        "coordinator",
        "deliver",
        "downlink",
        "encode",
        "generator",
        "life",
        "queue",
        "residuals",
        "tamper",
        "task",
        "trainer",
        "workload",
    },
    "_world.queue": {"_devices", "ring"},
    "_world.residuals": {"_half", "_header_bytes", "_whole", "begin_lives", "rounded"},
    "_world._plain": {
        "_admission",
        "_awaited",
        "_devices",
        "_draw_seed",
        "_made",
        "_parameters",
        "_prepared",
        "_receipts",
        "_rescaled",
        "_served",
        "_signer",
        "_view",
    },
    "_world._plain._awaited": {"consumer", "description"},
    "_world._plain._receipts": {"_earlier", "_signer"},
    "_world._plain._served": {"approved", "bundle", "consumer", "draw_seed", "grid"},
    "_world._plain._view": {"allowance", "answered", "byte_allowance", "look_up"},
    "_fleet": {"_end", "_members", "_rows", "_sleepers", "_wake_policy", "_world"},
    "_fleet._sleepers": set(),
}
"""Or follow from what does: the generator's state and the task with its scale stand in the heading."""


def test_every_field_is_written_or_never_changes():
    run = simulation(fleet(3), Options(seed=1, seconds=HOUR))
    run.run()
    for path, held in zip(KEPT, named_in(run).objects, strict=False):
        fields = set(vars(held)) if hasattr(held, "__dict__") else set(type(held).__dataclass_fields__)
        assert fields == set(KEPT[path]) | NEVER_CHANGE[path], path
    for policy, fields in OF_WAKE_POLICIES.items():
        concurrent = 1 if "_training" in fields else None
        drawn = simulation(
            fleet(3), Options(seed=1, seconds=60.0, concurrent=concurrent, synchronous="_begun" in fields)
        )
        drawn.run()
        held = drawn.agents._wake_policy
        assert type(held) is policy
        assert set(vars(held)) | {"_begun"} >= set(fields)
        assert set(vars(held)) - set(fields) == {"_generator", "_queue" if concurrent is None else "_count"}


def test_the_number_of_a_device_is_in_its_name():
    assert [device_number(device_name(number)) for number in (0, 7, 99_999, 1_000_000)] == [0, 7, 99_999, 1_000_000]


TREE = Path(__file__).parents[2]
DEVICES = "150"
OPTIONS = [
    "--plain",
    "--devices",
    DEVICES,
    "--hours",
    "24",
    "--seed",
    "5",
    "--profile",
    "pi-zero-2w",
    "--profile",
    "pi-4",
]


def command(folder: Path, *further: str) -> list[str]:
    base = [sys.executable, "-m", "workbench.cli", "simulate", *OPTIONS, "--task", "temperature_forecast"]
    return [*base, "--score-every", "50", "--out", str(folder), *further]


def killed_once_there_is_a_checkpoint(started: list[str], path: Path, after: int) -> None:
    """Killed when it has written so many more checkpoints."""
    with subprocess.Popen(started, cwd=TREE, stderr=subprocess.PIPE) as process:
        seen, deadline = path.stat().st_mtime_ns if path.exists() else 0, time.monotonic() + 120
        while after and process.poll() is None and time.monotonic() < deadline:
            newest = path.stat().st_mtime_ns if path.exists() else 0
            after -= newest != seen
            seen = newest
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL, process.stderr and process.stderr.read()


def test_killed_again_and_again_it_ends_as_if_it_had_never_been(tmp_path):
    path = tmp_path / "run.checkpoint"
    subprocess.run(command(tmp_path / "expected"), check=True, cwd=TREE, capture_output=True)
    resumed = command(tmp_path / "found", "--checkpoint", str(path), "--checkpoint-minutes", "0")
    for after in (1, 1, 1):
        killed_once_there_is_a_checkpoint(resumed, path, after)
        assert path.exists()
    done = subprocess.run(resumed, check=True, cwd=TREE, capture_output=True, text=True)
    assert f"goes on from {path}" in done.stderr
    assert not path.exists(), "at the end: the same command begins anew"
    for file in ("summary.json", "history.jsonl"):
        assert (tmp_path / "found" / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()


def test_a_checkpoint_is_of_one_simulation_at_a_time(tmp_path):
    path = tmp_path / "run.checkpoint"
    again = command(tmp_path / "found", "--checkpoint", str(path), "--checkpoint-minutes", "0")
    with claimed(path):
        done = subprocess.run(again, check=False, cwd=TREE, capture_output=True, text=True)
    assert (done.returncode, "another simulation writes it; wait, or choose another --checkpoint" in done.stderr) == (
        2,
        True,
    )
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_leaves_files_of_a_similar_name_alone(tmp_path):
    (tmp_path / "run.lock").write_text("a stranger's")
    with claimed(tmp_path / "run"), claimed(tmp_path / "other"):
        pass
    assert (tmp_path / "run.lock").read_text() == "a stranger's"
    with pytest.raises(ConfigurationError, match=r"this is a folder; name a file in it"), claimed(Path()):
        pass


def test_a_checkpoint_that_can_not_be_written_is_said_before_the_simulation_begins(tmp_path):
    path = tmp_path / "nowhere" / "run.checkpoint"
    wrong = command(tmp_path / "found", "--checkpoint", str(path))
    done = subprocess.run(wrong, check=False, cwd=TREE, capture_output=True, text=True)
    assert (done.returncode, "No such file or directory" in done.stderr) == (2, True)


def test_a_checkpoint_of_other_options_is_refused_by_the_command(tmp_path):
    path = tmp_path / "run.checkpoint"
    resumed = command(tmp_path / "found", "--checkpoint", str(path), "--checkpoint-minutes", "0")
    killed_once_there_is_a_checkpoint(resumed, path, 1)
    other = [each if each != DEVICES else "501" for each in resumed]
    done = subprocess.run(other, check=False, cwd=TREE, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"with --devices {DEVICES}, and now it is 501" in done.stderr
    alone = subprocess.run(
        command(tmp_path, "--checkpoint-minutes", "3"), check=False, cwd=TREE, capture_output=True, text=True
    )
    assert (alone.returncode, "--checkpoint FILE missing" in alone.stderr) == (2, True)


def test_drawn_devices_go_on(tmp_path, monkeypatch):
    from edge_agent.profiles import read_profile  # noqa: PLC0415 - for this one alone

    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 151)
    members = draw_fleet([read_profile("pi-4"), read_profile("pi-zero-2w")], 30, 4)
    options = replace(Options(seed=4, seconds=6 * HOUR), plain=True)
    expected, paths = states_of(Simulation(members, bundle(), workload(), options), tmp_path)
    run = Simulation(members, bundle(), workload(), options)
    assert resume(paths[-1], {}, run)
    assert told(run.run()) == told(expected)
