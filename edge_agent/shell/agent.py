"""The agent: wires samples, rounds and the device's own side to its membership of the fleet."""

import asyncio
import logging

from edge_agent.configuration import AgentConfiguration
from edge_agent.core.cut_choice import CutChoice
from edge_agent.shell.analytics.questions import AskedAbout, Questions
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.gossiping.gossip import Gossip
from edge_agent.shell.host import machine
from edge_agent.shell.host.local_events import LocalEvents
from edge_agent.shell.learning.cohorts import Cohorts
from edge_agent.shell.learning.round_spool import RoundSpool
from edge_agent.shell.learning.round_training import RoundTraining
from edge_agent.shell.learning.rounds import Rounds
from edge_agent.shell.learning.sample_budget import SampleBudget
from edge_agent.shell.local_side import LocalSide
from edge_agent.shell.membership import Membership
from edge_agent.shell.signs_of_life import SignsOfLife
from edge_agent.shell.splitting.helped_rounds import HelpedRounds
from edge_agent.shell.state_folder import open_state
from edge_agent.sources.unix_socket import Status
from edge_agent.worker.contract import files_for
from fleet_host.log_lines import log_line
from fleet_host.service_manager import this_service_manager
from fleet_protocol import topics
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import write_verify_key
from fleet_protocol.limits import MIB
from fleet_protocol.split_costs import memory_bytes
from fleet_protocol.split_plan import Cut
from fleet_protocol.task_description import TaskDescription

logger = logging.getLogger(__name__)


class Agent:
    """One device of one fleet. `run` lasts until cancelled; nothing is lost then, nor when the process is killed.

    Raises:
        ConfigurationError: the state folder or a database in it can't be used, or is another device's.
    """

    def __init__(self, configuration: AgentConfiguration, identity: Identity, software: str) -> None:
        self._configuration = configuration
        self._database, self._samples, cache = open_state(configuration)
        settings = {task.name: task.split for task in configuration.tasks}
        worker = configuration.worker
        cuts = CutChoice(settings, worker.memory_limit_mib * MIB, self._memory_bytes)
        self.member = member = Membership(
            configuration,
            identity,
            software,
            self._database,
            cache,
            needed=lambda task: files_for(worker.engine, task, cuts.of(task)),
            also_hears=lambda: [topics.queries(configuration.fleet, name) for name in settings],
        )
        self._budget = SampleBudget(self._database, self._samples, configuration.privacy)
        self._cohorts = Cohorts(member.versions, self._database, identity, configuration.privacy)
        helped = HelpedRounds(identity, member.link, settings)
        self._gossip = Gossip(
            configuration.fleet,
            member.tasks,
            identity,
            self._database,
            member.versions,
            link=member.link,
            look=member.manifests.look,
        )
        training = RoundTraining(
            worker,
            self._database,
            self._samples,
            member.versions,
            cuts=cuts,
            helpers=helped,
            spool=RoundSpool(self._database, address=identity.address, sign=identity.sign_row),
            prompting={task.name: task.prompts for task in configuration.tasks},
            budget=self._budget,
            cohorts=self._cohorts,
            gossip=self._gossip,
        )
        self._rounds = Rounds(
            configuration,
            self._database,
            self._samples,
            member.versions,
            training,
            spooled=member.postbox.notify,
            link=member.link,
            manifests=member.manifests,
        )
        member.duty, member.sessions, member.neighbours = self._rounds, helped, self._gossip
        self._gossip.changed = self._rounds.roster_changed
        self._questions = Questions(
            AskedAbout(configuration.analytics, configuration.texts, self._samples.path),
            self._database,
            member.versions,
            take_manifest=member.manifests.take,
            judge=training.drop_unfit_samples,
            address=identity.address,
            sign=identity.sign_row,
            spooled=member.postbox.notify,
        )
        member.asked = self._questions.receive
        self._local = LocalSide(
            configuration,
            self._samples,
            member.versions,
            self._rounds,
            status=self._status,
            take_manifest=member.manifests.take_to_predict,
            judge=training.drop_unfit_samples,
        )
        self._signs = SignsOfLife(
            this_service_manager(),
            round_ends_by=lambda: training.ends_by,
            words=lambda: member.status_line(self._rounds.state.value),
        )
        self._events = LocalEvents([(task.name, task.trigger) for task in configuration.tasks], self._rounds.note)

    async def run(self) -> None:
        """Serve samples, keep the link, train when woken; until cancelled.

        Raises:
            ConfigurationError: the card has damaged `agent.db` meanwhile; what is lost, and what to do.
        """
        for words in machine.missing(self._configuration.guards):
            logger.warning(
                log_line("sensor_missing", guard=words, remedy="name one in [guards], or leave that limit out")
            )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._local.run())
                group.create_task(self.member.link.run())
                group.create_task(self._rounds.run())
                group.create_task(self._questions.run())
                group.create_task(self._events.run())
                group.create_task(self._signs.run(self._local.listens))
                group.create_task(self.member.end_at_damage())
        except Exception:
            if self._database.damage is None:
                raise
            raise ConfigurationError(self._database.damage) from None
        finally:
            self._samples.close()
            self._database.close()

    def train_now(self) -> None:
        """Somebody asks for a round of every task."""
        self._rounds.train_now()

    def _memory_bytes(self, task: TaskDescription, cut: Cut) -> int:
        return memory_bytes(task, cut, stored_samples=self._samples.count(task.task))

    def _status(self) -> Status:
        member, tasks = self.member, self.member.tasks
        known = {task: self._database.known_version(task) for task in tasks}
        return Status(
            device=self._configuration.device,
            state=self._rounds.state.value,
            connected=member.link.connected,
            boot=member.identity.boot,
            shard=member.identity.shard,
            clusters={task: cluster for task in known if (cluster := self._database.cluster(task))},
            versions={task: version.version for task, version in known.items() if version},
            samples={task: self._samples.count(task) for task in tasks},
            new_samples=self._rounds.new_samples,
            waiting_updates=self._database.waiting(),
            accepted_updates=member.postbox.accepted,
            rejected_updates=member.postbox.rejected,
            withheld_updates=self._rounds.withheld,
            progress=self._rounds.progress,
            sources=self._local.sources,
            series=self._local.series,
            tasks=self._rounds.task_states,
            waiting_bytes=self._database.waiting_bytes(),
            merged_updates=self._database.merged_back,
            coordinator_key=write_verify_key(member.identity.coordinator),
            queries=self._questions.use,
            delta=self._configuration.privacy.delta,
            told={task: told for task in tasks if (told := self._budget.told(task)) != 0},
            told_of_device={task: told for task in tasks if (told := self._cohorts.told(task))},
            resting=self._budget.resting,
            gossip=self._gossip.status,
            dropped={task: dropped for task in tasks if (dropped := self._samples.dropped(task))},
        )
