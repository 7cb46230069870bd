"""What mask helpers say that their task's operator should know: refusals, and devices that one of them alone rules out.

A device that one helper can't use is left out of the set, or there would be no sum. So a helper that lies can keep any
device out for ever, and a device that gives one helper a bad box keeps itself out: nobody can tell from outside which
of the two it was. What can be told is which helper it always is.
"""

import logging
from collections import defaultdict
from collections.abc import Collection

from fleet_host.log_lines import log_line

MANY_COHORTS = 3
"""In a row: after so many it is more likely the helper, or its roster, than a box that got damaged."""
DEVICES_TOLD = 8
"""In one line of the log."""

logger = logging.getLogger(__name__)


class HelperWords:
    """Of all tasks, in memory alone: a coordinator that starts again counts anew."""

    def __init__(self) -> None:
        self._in_a_row: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._in_this_cohort: defaultdict[str, set[str]] = defaultdict(set)

    def refused(self, task: str, helper: str, step: str, reason: str) -> None:
        """A helper does not do what it is asked."""
        logger.warning(log_line("mask_helper_refused", task=task, helper=helper, step=step, reason=reason))

    def named_alone(self, task: str, helper: str, devices: Collection[str]) -> None:
        """A helper can't use these devices, which others can."""
        if helper not in self._in_this_cohort[task]:
            self._in_this_cohort[task].add(helper)
            self._in_a_row[task, helper] += 1
        cohorts = self._in_a_row[task, helper]
        remedy = "add them to [masks.roster] of that helper, or correct their keys there"
        if cohorts >= MANY_COHORTS:
            remedy += "; if it has them, have another helper take its place in [privacy.masks]"
        names = ",".join(sorted(devices)[:DEVICES_TOLD])
        logger.warning(
            log_line(
                "helper_names_unusable",
                task=task,
                helper=helper,
                count=len(devices),
                devices=names,
                cohorts_in_a_row=cohorts,
                remedy=remedy,
            )
        )

    def cohort_over(self, task: str) -> None:
        """A cohort is summed or void; whoever named no device alone in it has ended its row."""
        named = self._in_this_cohort.pop(task, set())
        for key in [key for key in self._in_a_row if key[0] == task and key[1] not in named]:
            del self._in_a_row[key]
