"""What a demo shows: a fleet of equals, or one in which every second device leaves blocks of the model to a helper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.data.digits import FleetData, large_digits, split_digits
from workbench.demo.fleet_files import TASK, WHOLE

SplitOverDevices = Callable[[int, np.random.Generator], FleetData]


@dataclass(frozen=True, slots=True)
class DemoKind:
    """The recipe `task` with its data; `cuts` are those of the devices, in turn, and `cpu_shares` what is left to them.
    So many `new_samples` wake an agent.

    Where a cut is a helper's, there is one.
    """

    task: str
    data: SplitOverDevices
    cuts: Sequence[str] = (WHOLE,)
    cpu_shares: Sequence[float] = (1.0,)
    new_samples: int = 6

    @property
    def has_helper(self) -> bool:
        """Whether any device needs one."""
        return any(cut != WHOLE for cut in self.cuts)


PLAIN = DemoKind(TASK, split_digits)
SPLIT = DemoKind("mnist_cnn", large_digits, cuts=(WHOLE, "1-2"), cpu_shares=(1.0, 0.4), new_samples=20)
"""A convolutional network, whose second convolution every weak device leaves to the helper."""
