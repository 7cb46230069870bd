"""The agent's configuration file, `agent.toml`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cronsim import CronSim, CronSimError

from edge_agent.core.analytics.settings import AnalyticsSettings
from edge_agent.core.guards import GuardSettings
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.core.split_settings import SplitSettings
from edge_agent.core.store_settings import StoreSettings
from edge_agent.core.triggers import TriggerSettings
from edge_agent.profiles import completed_by_profile
from edge_agent.sources.bound_socket import check_path
from edge_agent.sources.settings import SourceSettings
from edge_agent.sources.text_file import TextFile
from edge_agent.worker.settings import WorkerSettings
from fleet_host.broker_settings import BrokerSettings
from fleet_host.configuration_file import read_configuration
from fleet_protocol.configuration import Name, PublicKey, Text

PROGRAM = "edge-agent"
CONFIGURATION = Path("/etc/edge-agent/agent.toml")
"""Read where `--config` doesn't name another; the same as in systemd/edge-agent.service."""
CRON_FIELDS = 5
"""Minute, hour, day of the month, month and day of the week."""


class TaskSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task in which this device takes part."""

    name: Name
    """The task's name."""
    trigger: TriggerSettings = TriggerSettings()
    split: SplitSettings = SplitSettings()
    prompts: PromptSettings = PromptSettings()

    def __post_init__(self) -> None:
        """Refuse a schedule that is none; raises ValueError."""
        if self.trigger.schedule is not None:
            _check_schedule(self.trigger.schedule)


class AgentConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One device. Relative paths start at the folder that the file is in."""

    fleet: Name
    """The fleet's name, the same as in coordinator.toml."""
    device: Name
    """This device's name. No two devices of one broker have the same; with TLS it is the certificate's common name."""
    key_file: Path
    """The device's private signing key, made by `edge-agent keygen`."""
    coordinator_key: PublicKey
    """The public key (64 hex digits) that `broker-coordinator key` prints. Only messages signed with it are trusted."""
    state_folder: Path
    """Where samples, updates and versions are kept."""
    sample_socket: Path
    """The Unix socket that takes samples."""
    broker: BrokerSettings
    tasks: Annotated[list[TaskSettings], msgspec.Meta(min_length=1)]
    shard: Name = "0"
    """The slice of the fleet in which this device begins. Where coordinator.toml has `shards`, it moves to its own."""
    profile: Text = "generic"
    """The kind of device: one that `edgeflock profiles list` shows, or the path of a file, ending in `.toml`. What the
    tables below leave out is as the profile has it; without this key, as this reference has it. The coordinator is told
    its name."""
    encrypt_updates: bool = False
    """Encrypt updates for the coordinator's key: the broker's operator then sees only their size and base version."""
    guards: GuardSettings = GuardSettings()
    worker: WorkerSettings = WorkerSettings()
    store: StoreSettings = StoreSettings()
    sources: list[SourceSettings] = []
    analytics: AnalyticsSettings = AnalyticsSettings()
    privacy: PrivacySettings = PrivacySettings()
    texts: list[TextFile] = []

    def __post_init__(self) -> None:
        """Refuse what every value by itself allows; raises ValueError."""
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"a task is listed twice in {names}")
        if foreign := [source.task for source in self.sources if source.task not in names]:
            raise ValueError(f"sources: {foreign[0]!r} is none of the tasks {names}; list it under [[tasks]]")
        if foreign := [field.task for field in self.analytics.fields if field.task not in names]:
            raise ValueError(f"analytics.fields: {foreign[0]!r} is none of the tasks {names}; list it under [[tasks]]")
        self._check_budgets(names)
        texts = [text.name for text in self.texts]
        if len(set(texts)) != len(texts):
            raise ValueError(f"texts: a name is given twice in {texts}; give each its own")

    def _check_budgets(self, tasks: list[str]) -> None:
        budgets = [rule.name for rule in self.privacy.budgets]
        if foreign := [rule.task for rule in self.privacy.budgets if rule.task not in (None, *tasks)]:
            raise ValueError(f"privacy.budgets: {foreign[0]!r} is none of the tasks {tasks}; list it under [[tasks]]")
        named: dict[tuple[str, str], str | None] = {}
        for source in self.sources:
            if source.budget not in (None, *budgets):
                raise ValueError(
                    f"sources: the budget {source.budget!r} is none of {budgets}; list it under [[privacy.budgets]]"
                )
            if source.inputs:
                continue
            if named.setdefault((source.task, source.series), source.budget) != source.budget:
                raise ValueError(
                    f"sources: named readings of {source.task} in the series {source.series!r} make samples together,"
                    " and have several budgets; give them the same one, or a series of their own"
                )

    @property
    def profile_name(self) -> str:
        """What the coordinator is told."""
        return Path(self.profile).stem


def _check_schedule(line: str) -> None:
    """Refuse a cron line that is none, or names a day that its months do not have; raises ValueError."""
    remedy = "write five fields, as '30 2 * * *'"
    if len(line.split()) > CRON_FIELDS:  # cronsim takes a sixth, for seconds
        raise ValueError(f"schedule = {line!r} is no cron line (more than {CRON_FIELDS} fields); {remedy}")
    try:
        CronSim(line, datetime(2000, 1, 1))
    except CronSimError as error:
        raise ValueError(f"schedule = {line!r} is no cron line ({error}); {remedy}") from None


def load_configuration(path: Path) -> AgentConfiguration:
    """Read the file, with what its profile and the site's file say where it says nothing.

    Raises:
        ConfigurationError: it can't be read, or names the key that is missing, unknown or wrong; or the profile.
    """
    configuration = read_configuration(path, AgentConfiguration, completed_by_profile)
    check_path(configuration.sample_socket)
    return configuration
