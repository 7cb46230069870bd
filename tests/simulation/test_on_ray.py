"""Rounds of a simulated fleet on a Ray cluster: the same bits as in one process, whatever dies."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.posterior_plan import PosteriorPlan
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from fleet_protocol.scaling import Scale, Scaling
from fleet_protocol.task_description import TaskDescription
from tests.support import simulated_fleet
from tests.support.acting_samples import ActingSamples, Killing, KillingOnce, Meeting
from tests.support.digits_rounds import FOLDER, TASK, digits
from tests.support.own_children import OwnChildren
from tests.support.personal_task import HEAD, personal
from tests.support.posterior_task import with_posterior
from tests.support.simulated_fleet import HOUR, fleet
from workbench.simulation import event_queue
from workbench.simulation.checkpoint.file import resume, write_checkpoint
from workbench.simulation.conditions import FleetMember
from workbench.simulation.on_ray.cluster import LOCAL, ray_cluster
from workbench.simulation.on_ray.spreading import what_is_sent
from workbench.simulation.round_job import RoundJob, carried_out
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

TREE = Path(__file__).parents[2]
FORECAST = TREE / "models" / "temperature_forecast" / "bundle"
DEVICES, UPDATES = 6, 24
CRASHING = {"crashes_per_day": 100.0, "restart_seconds": 90.0, "start_seconds": 60.0}


def readings(seed: int) -> Samples:
    """Of the forecast: a window of four columns, and what comes next."""
    generator = np.random.default_rng(seed)
    inputs = generator.uniform(-1, 1, (60, 30, 4)).astype(np.float32)
    return Samples(inputs, (20 + 5 * inputs[:, -1, :1]).astype(np.float32))


def forecast() -> TaskDescription:
    task = load_bundle(FORECAST).description
    aggregation = msgspec.structs.replace(task.aggregation, buffer_size=2)
    return msgspec.structs.replace(task, scaling=Scaling(targets=Scale.awaiting(1)), aggregation=aggregation)


def aggregated(**plan: object) -> TaskDescription:
    return msgspec.structs.replace(TASK, aggregation=msgspec.structs.replace(TASK.aggregation, **plan))


def both_ends() -> TaskDescription:
    task = aggregated(strategy="ef21")
    return msgspec.structs.replace(task, update=msgspec.structs.replace(task.update, feedback="ef21"))


@dataclass(frozen=True)
class Case:
    """A fleet that really trains, from the samples of a number on."""

    task: TaskDescription = TASK
    members: list[FleetMember] = field(default_factory=lambda: fleet(DEVICES))
    options: dict[str, object] = field(default_factory=dict)
    folder: Path = FOLDER

    def simulation(self) -> Simulation:
        samples = readings if self.folder == FORECAST else lambda seed: digits(np.arange(60) % 10, seed)
        parts = [samples(each) for each in range(len(self.members))]
        options = Options(**{"seed": 1, "seconds": 100 * HOUR, "updates": UPDATES, "score_every": 4} | self.options)
        workload = trained_workload(self.folder, self.task, parts, samples(100))
        return Simulation(self.members, Bundle(self.task, load_bundle(self.folder).files), workload, options)


DRAWN = {"concurrent": 4}
CASES = {
    "crashing": Case(members=fleet(DEVICES, **CRASHING)),
    "without signatures": Case(options={"plain": True, **DRAWN}),
    "refused and given back": Case(
        aggregated(strategy="fedbuff", buffer_size=1, max_staleness=1), fleet(4) + fleet(2, training_mflops=0.2)
    ),
    "diverging": Case(aggregated(max_delta_norm=0.5), options={"seconds": 20 * HOUR}),
    "error feedback of both ends": Case(both_ends(), options=DRAWN),
    "clusters": Case(msgspec.structs.replace(TASK, clusters=ClusterPlan(2)), options=DRAWN),
    "distribution over weights": Case(with_posterior(TASK, PosteriorPlan()), options=DRAWN),
    "own head": Case(personal(parameters=HEAD)),
    "own model": Case(personal(method="ditto"), options=DRAWN),
    "awaits its scale": Case(forecast(), folder=FORECAST),
}


def told(run: Simulation) -> tuple[bytes, list[object], bytes]:
    result = run.run()
    return msgspec.json.encode(result.summary), result.history, run.world.coordinator.model.tobytes()


@pytest.fixture(scope="module")
def cluster() -> Iterator[OwnChildren]:
    """Connected to it; the processes that it consists of."""
    children = OwnChildren()
    with ray_cluster(LOCAL, 0, cpus=2):
        yield children
    assert not children.all()


def spread(run: Simulation, *, acting: type[ActingSamples] | None = None, folder: Path = TREE) -> Simulation:
    """Its rounds on the cluster, on samples that do something there."""
    from workbench.simulation.on_ray.trainer import RayTrainer  # noqa: PLC0415 - it imports Ray

    made_of = what_is_sent(run)
    if acting is not None:
        parts = [acting(part.inputs, part.labels, part.newest, str(folder)) for part in made_of.parts]
        made_of = replace(made_of, parts=parts)
    run.world.spread(RayTrainer(made_of, zstd=not run._options.plain))
    return run


def job_of(run: Simulation, device: int) -> RoundJob:
    """The first round of a device."""
    return run.agents[device]._rounds._job(run.world.newest, newest_sample=60, last_weights=None)


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_as_in_one_process(cluster, name):
    case = CASES[name]
    alone = told(case.simulation())
    assert told(spread(case.simulation())) == alone
    summary = msgspec.json.decode(alone[0])
    assert summary["versions"] > 0 or name == "diverging"
    shown = {
        "crashing": summary["rounds_lost"],
        "refused and given back": "too_stale" in summary["refused"],
        "diverging": summary["rounds_diverged"]["times"],
        "awaits its scale": summary["bytes_up"].get("statistics"),
    }
    assert shown.get(name, True), summary


def test_a_simulation_on_ray_goes_on_from_a_checkpoint(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 20)
    case = Case(members=fleet(DEVICES, **CRASHING), options=DRAWN)
    under_way: dict[Path, int] = {}
    whole = spread(case.simulation())

    def tick(_: float) -> None:
        path = tmp_path / str(len(under_way))
        write_checkpoint(path, {}, whole)
        under_way[path] = len(whole.world.jobs)

    result = whole.run(tick=tick)
    path = next(path for path, jobs in under_way.items() if jobs > 1)
    for on_ray in (True, False):
        resumed = case.simulation()
        assert resume(path, {}, resumed)
        assert len(resumed.world.jobs) == under_way[path]
        found = (spread(resumed) if on_ray else resumed).run()
        assert (found.summary, found.history) == (result.summary, result.history)


def test_rounds_are_computed_at_once(cluster, tmp_path):
    run = spread(Case().simulation(), acting=Meeting, folder=tmp_path)
    jobs = [job_of(run, device) for device in (0, 1)]
    for job in jobs:
        run.world.begin_round(job)
    results = [run.world.trainer.result(job) for job in jobs]
    assert all(isinstance(each, TrainingResult) for each in results)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_round_whose_process_dies_is_computed_again(cluster, tmp_path):
    run = spread(Case().simulation(), acting=KillingOnce, folder=tmp_path)
    job = job_of(run, 0)
    run.world.begin_round(job)
    assert run.world.trainer.result(job) == carried_out(job, run.world.workload, encode=run.world.encode)
    assert (tmp_path / "killed").exists()


def test_a_round_that_kills_every_process_is_told_after_three(cluster, tmp_path):
    run = spread(Case().simulation(), acting=Killing, folder=tmp_path)
    job = job_of(run, 3)
    run.world.begin_round(job)
    with pytest.raises(ConfigurationError, match=r"a round of device 3 has lost 3 processes.*give them more memory"):
        run.world.trainer.result(job)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_worker_that_would_not_give_the_same_bits_is_refused(cluster, monkeypatch):
    from workbench.simulation.on_ray import trainer  # noqa: PLC0415 - it imports Ray

    other = msgspec.structs.replace(trainer.arithmetic(), numpy="1.0")
    monkeypatch.setattr(trainer, "arithmetic", lambda: other)
    run = spread(Case().simulation())
    job = job_of(run, 0)
    run.world.begin_round(job)
    words = rf"has numpy {np.__version__}, and the simulation 1\.0: .* make them alike"
    with pytest.raises(ConfigurationError, match=words):
        run.world.trainer.result(job)


def test_graphs_that_can_not_be_loaded_are_the_same_error_as_in_one_process(cluster):
    run = Case().simulation()
    made_of = what_is_sent(run)
    spoilt = replace(run.world.workload, made_of=replace(made_of, files=dict.fromkeys(made_of.files, b"no graph")))
    run.world.workload = spoilt
    job = job_of(spread(run), 0)
    run.world.begin_round(job)
    with pytest.raises(ConfigurationError) as found:
        run.world.trainer.result(job)
    with pytest.raises(ConfigurationError) as expected:
        spoilt.made_of.training(TASK)
    assert str(found.value) == str(expected.value)


def test_workers_add_long_sums_in_the_order_of_the_simulation(cluster):
    import ray  # noqa: PLC0415 - as above

    from workbench.simulation.on_ray.arithmetic import arithmetic  # noqa: PLC0415

    here = arithmetic()
    vector = np.random.default_rng(0).standard_normal(1_000_003).astype(np.float32)

    def norm(wanted: object) -> float:
        wanted.adopt()  # type: ignore[attr-defined]
        return float(np.linalg.norm(vector))

    assert ray.get(ray.remote(norm).remote(here)) == norm(here)


def test_ray_tells_nobody_and_listens_on_the_loopback_alone(cluster):
    import ray  # noqa: PLC0415 - as above
    from ray._common.usage import usage_lib  # noqa: PLC0415
    from ray._private.authentication.authentication_utils import is_token_auth_enabled  # noqa: PLC0415

    assert is_token_auth_enabled(), "of which no other user of the machine knows the token"

    def enabled() -> bool:
        return usage_lib.usage_stats_enabled()

    assert not enabled()
    assert not ray.get(ray.remote(enabled).remote())
    processes = [psutil.Process(), *cluster.all()]
    assert len(processes) > 3
    reporting = [each for each in processes if any("dashboard/dashboard.py" in part for part in each.cmdline())]
    assert all("--disable-frontend" in each.cmdline() for each in reporting), "no pages"
    assert all(each.environ()["RAY_USAGE_STATS_ENABLED"] == "0" for each in reporting)
    listening = [
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}


def command(folder: Path, *further: str) -> list[str]:
    base = [sys.executable, "-m", "workbench.cli", "simulate", "--data", "digits", "--devices", "8", "--hours", "8"]
    return [*base, "--seed", "3", "--score-every", "5", "--out", str(folder), *further]


def test_the_command_writes_the_same_bytes_wherever_rounds_are_computed(cluster, tmp_path):
    import ray  # noqa: PLC0415 - as above

    address = ray.get_runtime_context().gcs_address
    ways = {"alone": (), "own": ("--ray",), "there": ("--ray", "--ray-address", address)}
    for name, way in ways.items():
        done = subprocess.run(command(tmp_path / name, *way), cwd=TREE, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
    for file in ("summary.json", "history.jsonl"):
        (content,) = {(tmp_path / name / file).read_bytes() for name in ways}
        assert content


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ray",), "--ray: without --data nothing real is computed; add --data, or leave --ray out"),
        (("--ray", "--data", "digits", "--privacy", "masks"), "--ray: masks are drawn from one generator"),
        (("--ray-address", "10.0.0.1:6379"), "--ray-address 10.0.0.1:6379: --ray missing; add it"),
        (("--ray", "--data", "digits", "--ray-address", "ray://10.0.0.1:10001"), "give HOST:PORT of a cluster"),
        (("--ray", "--data", "digits", "--ray-address", "127.0.0.1:1"), "no cluster answers there"),
        (("--ray", "--data", "digits", "--ray-address", "127.0.0.1:99999"), "no cluster answers there"),
    ],
)
def test_what_can_not_be_spread_is_said_in_one_line(options, words, capsys):
    from workbench.cli import main  # noqa: PLC0415

    with pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["edgeflock", "simulate", "--devices", "8", *options])
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_privacy_of_samples_and_synthetic_training_are_not_sent():
    hidden = msgspec.structs.replace(TASK, privacy=PrivacyPlan(SamplePrivacy(epsilon=4.0, rounds=3)))
    run = Case().simulation()
    run._bundle = Bundle(hidden, run.bundle.files)
    with pytest.raises(ConfigurationError, match="privacy of samples"):
        what_is_sent(run)
    synthetic = Simulation(
        fleet(2), simulated_fleet.bundle(), simulated_fleet.workload(), Options(seed=1, seconds=HOUR)
    )
    with pytest.raises(ConfigurationError, match="without --data nothing real is computed"):
        what_is_sent(synthetic)
