"""The shipped `edge-agent` as a process of its own, which can be killed, wiped and started again."""

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.gossip_plan import AS_BUNDLED, GossipPlan
from fleet_protocol.keys import SigningKey, VerifyKey, write_signing_key, write_verify_key
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.posterior_plan import PosteriorPlan
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.selection_plan import SelectionPlan
from tests.support.broker import Address
from tests.support.fleet import FLEET
from tests.support.posterior_task import with_posterior
from tests.support.process import RestartableProcess
from tests.support.waiting import DEADLINE_SECONDS, until
from workbench.demo.audit import DeviceLedger, read_ledger
from workbench.recipe_folder import find_recipe

CONFIGURATION = """\
fleet = "{fleet}"
device = "{device}"
key_file = "device.key"
coordinator_key = "{coordinator_key}"
encrypt_updates = {encrypt_updates}
state_folder = "state"
sample_socket = "samples.sock"

[broker]
host = "{host}"
port = {port}
protocol = "{protocol}"
keepalive_seconds = 5

[guards]
minimum_samples = {minimum_samples}
recheck_seconds = 0.5

[[tasks]]
name = "{task}"
trigger = {{ new_samples = {new_samples}, new_version = {new_version} }}

[store]
maximum_samples = {maximum_samples}
"""


def copy_digits_bundle(
    folder: Path,
    *,
    feedback: str = "residual",
    versions_from: str = "update",
    maximum_epochs: int = 0,
    prompts: PromptPlan | None = None,
    clusters: ClusterPlan | None = None,
    personal: PersonalPlan | None = None,
    selection: SelectionPlan | None = None,
    posterior: PosteriorPlan | None = None,
    gossip: GossipPlan | None = None,
    **aggregation: object,
) -> Bundle:
    """The shipped digits bundle with another aggregation plan, error feedback, and kind that makes versions.

    With `maximum_epochs` 0, its devices never have enough of the ten samples that they are fed. With `gossip` nobody
    aggregates, and no version travels.
    """
    shutil.copytree(find_recipe("digits") / "bundle", folder)
    description = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    before = AggregationPlan() if gossip else description.aggregation
    plan = msgspec.structs.replace(before, **aggregation)
    update = msgspec.structs.replace(description.update, feedback=feedback)
    training = msgspec.structs.replace(description.training, maximum_epochs=maximum_epochs)
    changed = msgspec.structs.replace(
        description,
        aggregation=plan,
        update=update,
        training=training,
        versions_from=versions_from,
        prompts=prompts,
        clusters=clusters,
        personal=personal,
        selection=selection,
        gossip=gossip,
        downlink=AS_BUNDLED if gossip else description.downlink,
    )
    if posterior is not None:
        changed = with_posterior(changed, posterior)
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(changed))
    return load_bundle(folder)


def sample(number: int) -> dict[str, Any]:
    """One that looks a little like a digit, as an agent takes it."""
    label = number % 10
    inputs = [1.0 if (position * 7 + label * 13) % 10 < 3 else 0.0 for position in range(64)]
    return {"task": "digits", "inputs": inputs, "label": label}


class AgentProcess(RestartableProcess):
    """An agent's folder (`agent.toml`, key, state) and the process in it, which runs `program`."""

    program = "edge_agent.cli"

    def __init__(
        self,
        folder: Path,
        name: str,
        broker: Address,
        coordinator_key: VerifyKey,
        *,
        protocol: str = "5",
        encrypt: bool = False,
        new_samples: int = 4,
        new_version: bool = False,
        minimum_samples: int = 4,
        maximum_samples: int = 5000,
        task: str = "digits",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "agent.log")
        self.name, self.folder = name, folder
        self.configuration, self.socket = folder / "agent.toml", folder / "samples.sock"
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
                protocol=protocol,
                encrypt_updates=str(encrypt).lower(),
                new_samples=new_samples,
                new_version=str(new_version).lower(),
                minimum_samples=minimum_samples,
                maximum_samples=maximum_samples,
                task=task,
            )
        )

    def start(self) -> None:
        """Start it, and return when it takes samples."""
        self._spawn([sys.executable, "-P", "-m", self.program, "run", "--config", str(self.configuration)])
        until(self.status, "the agent answers")

    def wipe(self) -> None:
        """Lose everything but configuration and key, as a new SD card would. Only while it does not run."""
        shutil.rmtree(self.folder / "state")

    def ledger(self) -> DeviceLedger:
        """What its database remembers of its updates. Only while it does not run."""
        return read_ledger(self.folder / "state" / "agent.db")

    def status(self) -> dict[str, Any]:
        """What it says of itself; empty where it can't be reached."""
        try:
            return self.ask({"command": "status"})
        except OSError:
            return {}

    def feed(self, count: int, first: int = 0) -> None:
        """Give it samples that look a little like digits; each must be accepted."""
        for number in range(first, first + count):
            assert self.ask(sample(number)) == {"ok": True}

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One line to its socket, and the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE_SECONDS)
            connection.connect(str(self.socket))
            connection.sendall(json.dumps(question).encode() + b"\n")
            answer = connection.makefile("rb").readline()
        if not answer.endswith(b"\n"):
            raise ConnectionResetError("the agent hung up")
        return dict(json.loads(answer))
