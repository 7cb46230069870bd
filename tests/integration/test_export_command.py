"""`broker-coordinator tasks export` takes the model to use out of the journal of a coordinator that may be running."""

from pathlib import Path

import pytest

from broker_coordinator import cli
from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.aggregation.averaging import averaged_weights
from broker_coordinator.aggregation.retention import NOTHING_FORGOTTEN, Forgettable
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.keys import SigningKey
from fleet_protocol.limits import MAX_SEQUENCE
from tests.support.bundles import PARAMETERS, TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD

PLAN = AggregationPlan(buffer_size=1, averaged_versions=3)
VERSIONS = 7


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """Of a coordinator whose journal holds versions 0 to 7; it is still open, as if the coordinator ran."""
    bundle = write_bundle(tmp_path / "bundle", aggregation=PLAN)
    journal, device = Journal.open(tmp_path / "coordinator.db"), SigningDevice("kitchen-pi")
    settings = AdmissionSettings(FLEET, SHARD, open_enrolment=True, maximum_devices=1)
    coordinator = Coordinator(journal, [bundle], MessageSigner(SigningKey.generate(), FLEET, SHARD), settings)
    messages = [device.enrolment(), *(device.update(sequence) for sequence in range(1, VERSIONS + 1))]
    coordinator.handle([Message(device.up, data) for data in messages], now=0.0)
    coordinator.make_versions(now=0.0)
    path = tmp_path / "coordinator.toml"
    path.write_text(
        f'fleet = "{FLEET}"\nkey_file = "key"\ndatabase = "coordinator.db"\n'
        '[broker]\nhost = "localhost"\n[[tasks]]\nbundle = "bundle"\n'
    )
    return path


def stored(configuration: Path) -> list[bytes]:
    with Journal.open(configuration.parent / "coordinator.db") as journal:
        return [version.weights for version in journal.versions(TASK)]


@pytest.mark.parametrize(
    ("options", "averaged"),
    [
        ([], slice(5, 8)),
        (["--version", "6"], slice(4, 7)),
        (["--version", "5"], slice(4, 6)),
        (["--version", "3"], slice(3, 4)),
        (["--version", "0"], slice(0, 1)),
        (["--single"], slice(7, 8)),
        (["--single", "--version", "0"], slice(0, 1)),
    ],
)
def test_export_writes_the_mean_of_the_last_versions(configuration: Path, capsys, options, averaged):
    out, versions = configuration.parent / "model.safetensors", stored(configuration)
    assert len(set(versions)) == VERSIONS + 1
    assert cli.main(["tasks", "--config", str(configuration), "export", TASK, str(out), *options]) == 0
    assert out.read_bytes() == averaged_weights(versions[averaged], PARAMETERS)
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(("back_to", "averaged"), [(6, (4, 5, 8)), (4, (3, 8)), (2, (8,)), (0, (8,))])
def test_export_averages_what_the_newest_version_goes_back_to(configuration: Path, back_to, averaged):
    """Not what was rolled back from, nor the untrained version 0; and never the older half of what there is."""
    with Journal.open(configuration.parent / "coordinator.db") as journal:
        VersionRegistry(journal.engine).roll_back(TASK, back_to)
    out, versions = configuration.parent / "model.safetensors", stored(configuration)
    assert cli.main(["tasks", "--config", str(configuration), "export", TASK, str(out)]) == 0
    assert out.read_bytes() == averaged_weights([versions[number] for number in averaged], PARAMETERS)


def test_export_takes_the_newest_version_alone_where_one_of_the_others_lost_its_weights(configuration: Path, capsys):
    out, versions = configuration.parent / "model.safetensors", stored(configuration)
    with Journal.open(configuration.parent / "coordinator.db") as journal:
        journal.forget(TASK, Forgettable(weights_through=VERSIONS - 1), NOTHING_FORGOTTEN)
    assert cli.main(["tasks", "--config", str(configuration), "export", TASK, str(out)]) == 0
    assert out.read_bytes() == versions[-1]


@pytest.mark.parametrize(
    ("task", "options", "complaint"),
    [
        ("roses", [], f"serves no task 'roses'; it serves {TASK}"),
        (
            TASK,
            ["--version", "9"],
            "not in the journal, or its weights are dropped; the newest is 7",
        ),
        (TASK, ["--version", str(MAX_SEQUENCE)], "not in the journal, or its weights are dropped; the newest is 7"),
        (TASK, ["--single", "--version", str(MAX_SEQUENCE)], "the newest is 7"),
    ],
)
def test_export_names_what_is_not_there(configuration: Path, capsys, task, options, complaint):
    out = configuration.parent / "model.safetensors"
    assert cli.main(["tasks", "--config", str(configuration), "export", task, str(out), *options]) == 2
    assert complaint in capsys.readouterr().err
    assert not out.exists()


def test_export_overwrites_nothing(configuration: Path, capsys):
    out = configuration.parent / "model.safetensors"
    out.write_text("mine")
    assert cli.main(["tasks", "--config", str(configuration), "export", TASK, str(out)]) == 2
    assert "name a new file" in capsys.readouterr().err
    assert out.read_text() == "mine"
