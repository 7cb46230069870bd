"""Who may have spoiled the sums of each task, and who is left out of the next; in memory alone."""

import logging
import random
from collections import defaultdict
from collections.abc import Collection, Set

from fleet_host.log_lines import log_line
from secure_aggregation.suspects import Suspects

logger = logging.getLogger(__name__)


class Spoilers:
    """A coordinator that starts again looks for them anew."""

    def __init__(self) -> None:
        self._suspects: defaultdict[str, Suspects] = defaultdict(Suspects)

    def spoiled(self, task: str, devices: Set[str]) -> None:
        """A set of these devices had no sum."""
        self._suspects[task].spoiled(devices)

    def left_out(self, task: str, candidates: Collection[str], fewest: int) -> Set[str]:
        """Whom the next set, of at least so many candidates, does without."""
        return self._suspects[task].left_out(candidates, fewest, random.SystemRandom().sample)

    def summed(self, task: str, devices: Set[str]) -> None:
        """A sum has come of these devices: none of them has spoiled it."""
        suspects = self._suspects[task]
        before = len(suspects.names)
        suspects.summed(devices)
        if before > 1 and len(suspects.names) == 1:
            (device,) = suspects.names
            remedy = "it is left out of sums until the coordinator starts again; look at the device, or revoke it"
            logger.warning(log_line("device_spoils_sums", task=task, device=device, remedy=remedy))
