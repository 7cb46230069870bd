"""A small fleet on a coordinator without a network, of which one device is to leave, and the operator's commands."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker_coordinator import cli
from broker_coordinator.serving.replay import state_of
from broker_coordinator.storage.device_registry import DeviceRegistry
from fleet_protocol.aggregation_plan import KEEPS_ESTIMATES, AggregationPlan
from fleet_protocol.keys import write_signing_key
from fleet_protocol.posterior_plan import POSTERIOR
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET

HONEST = [SigningDevice(name) for name in ("attic-pi", "barn-pi", "cellar-pi")]
EVIL = SigningDevice("evil-pi")


def plan_of(strategy: str, **more) -> AggregationPlan:
    return AggregationPlan(
        buffer_size=1 if strategy == "fedasync" else 2,
        strategy=strategy,
        server_learning_rate=1.0 if strategy == POSTERIOR else 0.5,
        server_momentum=0.0 if strategy == POSTERIOR else 0.5,
        max_staleness=0 if strategy == "fedavg" else 6,
        round_seconds=1e9 if strategy == "fedavg" else 0.0,
        **more,
    )


class Fleet:
    """Three honest devices and one more take turns; a version after every second update."""

    def __init__(self, folder: Path, strategy: str, name: str = "one", **more) -> None:
        update = UpdatePlan(
            0.5, selection="top_k_per_tensor", feedback="ef21" if strategy in KEEPS_ESTIMATES else "residual"
        )
        self.bundle = write_bundle(folder / "bundle", aggregation=plan_of(strategy), update=update)
        self.bench = Bench(folder / f"{name}.db", self.bundle, replace(OPEN, keys=(KEY,)), **more)
        self._sent = dict.fromkeys([device.name for device in (*HONEST, EVIL)], 0)
        for device in (*HONEST, EVIL):
            self.bench.handle(device, device.enrolment())

    def turn(self, *devices: SigningDevice) -> None:
        for device in devices:
            sequence = self._sent[device.name] = self._sent[device.name] + 1
            base = self.bench.journal.newest_number(TASK)
            update = device.update(
                sequence,
                base_version=base,
                samples=2 + sequence % 5,
                life=1,
                shapes=self.bundle.description.trained_shapes,
            )
            self.bench.handle(device, update)
            self.bench.make_versions()

    def revoke(self) -> None:
        DeviceRegistry(self.bench.journal.engine).revoke(EVIL.name)
        self.bench.make_versions()

    def weights(self) -> bytes:
        return self.bench.journal.newest_version(TASK).weights

    def remembered(self) -> list[object]:
        newest = self.bench.journal.newest_version(TASK)
        return list(state_of(self.bench.journal, self.bundle.description, newest, (KEY,)).remembered)


class Operator:
    """Runs commands on a fleet's database."""

    def __init__(self, folder: Path, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._configuration = capsys, folder / "coordinator.toml"
        self._configuration.write_text(
            f'fleet = "{FLEET}"\nkey_file = "key"\ndatabase = "{fleet.bench.database}"\n[broker]\nhost = "localhost"\n'
        )
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_text(write_signing_key(KEY))

    def run(self, noun: str, *arguments: str) -> Any:
        status, said = self.said(noun, *arguments)
        assert status == 0, said
        return json.loads(said)

    def said(self, noun: str, *arguments: str) -> tuple[int, str]:
        """The exit status, and what was printed."""
        status = cli.main([noun, "--config", str(self._configuration), *arguments, "--json"])
        said = self._capsys.readouterr()
        return status, said.out or said.err
