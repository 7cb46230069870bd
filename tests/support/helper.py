"""The shipped helper as a process of its own, a small task that it can take part in, and devices that want it."""

import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey, VerifyKey, write_signing_key, write_verify_key
from session_relay.helper.status import ask_helper
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.coordinator import LOG_ROOM_BYTES
from tests.support.fleet import FLEET
from tests.support.process import RestartableProcess
from tests.support.waiting import until
from workbench.recipe_folder import find_recipe

TASK = "mnist_cnn"
CUT = "1-2"
CONFIGURATION = """\
fleet = "{fleet}"
device = "{device}"
key_file = "device.key"
coordinator_key = "{coordinator_key}"
state_folder = "state"
sample_socket = "status.sock"

[broker]
host = "{host}"
port = {port}
keepalive_seconds = 5

[guards]
recheck_seconds = 0.5

[worker]
nice = 0

[helper]
settle_seconds = 0.3
answer_seconds = {answer_seconds}

[[tasks]]
name = "{task}"
"""


def copy_split_bundle(
    folder: Path, *, steps: int = 4, batch_size: int = 8, clusters: ClusterPlan | None = None, **aggregation: object
) -> Bundle:
    """The shipped mnist_cnn with few steps, and another aggregation plan; its middle may be a helper's."""
    shutil.copytree(find_recipe(TASK) / "bundle", folder)
    description = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    training = msgspec.structs.replace(
        description.training,
        steps=steps,
        batch_size=batch_size,
        epochs_per_round=0,
        maximum_epochs=0,
        validation_share=0.0,
    )
    plan = msgspec.structs.replace(description.aggregation, **aggregation)
    changed = msgspec.structs.replace(description, training=training, aggregation=plan, clusters=clusters)
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(changed))
    return load_bundle(folder)


def sample(number: int) -> dict[str, Any]:
    """A picture of noise, as an agent takes it."""
    inputs = np.random.default_rng(number).random(28 * 28, dtype=np.float32)
    return {"task": TASK, "inputs": inputs.tolist(), "label": number % 10}


class HelperProcess(RestartableProcess):
    """A helper's folder (`helper.toml`, key, state) and the process in it."""

    task = TASK

    def __init__(
        self,
        folder: Path,
        name: str,
        broker: Broker,
        coordinator_key: VerifyKey,
        *,
        task: str = TASK,
        answer_seconds: float = 60.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "helper.log")
        self.name, self.folder, self.task = name, folder, task
        self.configuration, self.socket = folder / "helper.toml", folder / "status.sock"
        key = SigningKey.generate()
        self.public_key = write_verify_key(key.verify_key)
        (folder / "device.key").touch(mode=0o600)
        (folder / "device.key").write_text(write_signing_key(key))
        self.configuration.write_text(
            CONFIGURATION.format(
                fleet=FLEET,
                device=name,
                coordinator_key=write_verify_key(coordinator_key),
                host=broker.host,
                port=broker.port,
                task=task,
                answer_seconds=answer_seconds,
            )
        )

    def start(self) -> None:
        """Start it, and return when it answers."""
        program = [sys.executable, "-P", "-m", "workbench.program", "helper"]
        self._spawn([*program, "run", "--config", str(self.configuration)])
        until(self.status, "the helper answers")

    def status(self) -> dict[str, Any]:
        """What it says of itself; empty where it can't be reached."""
        try:
            return dict(msgspec.json.decode(ask_helper(self.socket)))
        except ConfigurationError:
            return {}

    def fill_disk(self) -> None:
        """Let none of its files grow any more, but for some lines in its log, as on a full disk."""
        size = self.log_file.stat().st_size + LOG_ROOM_BYTES
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def free_disk(self) -> None:
        """Let its files grow again."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def serve(self) -> None:
        """Start it, and return when it offers a version."""
        self.start()
        until(lambda: self.task in self.status().get("versions", {}), f"{self.name} offers {self.task}")


class SplitAgent(AgentProcess):
    """A device that leaves the middle to a helper."""

    def __init__(
        self,
        *arguments: Any,
        task: str = TASK,
        cut: str = CUT,
        worker: str = "",
        answer_seconds: float = 90.0,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, task=task, **options)
        name = f'name = "{task}"'
        text = self.configuration.read_text().replace(
            name, f'{name}\nsplit = {{ cut = "{cut}", answer_seconds = {answer_seconds} }}'
        )
        self.configuration.write_text(f"{text}\n[worker]\nnice = 0\n{worker}\n")

    def feed(self, count: int, first: int = 0) -> None:
        """Give it samples; each must be accepted."""
        for number in range(first, first + count):
            assert self.ask(sample(number)) == {"ok": True}
