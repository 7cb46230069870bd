"""What noise lets be told, by dp-accounting's privacy loss distributions: the tightest count there is.

Devices count by `fleet_protocol.privacy.renyi`, which is a little more, and which they need trust nobody for
(docs/decisions/devices-count-by-themselves.md).
"""

from functools import lru_cache
from typing import Any

from fleet_protocol.privacy.renyi import Mechanism

KEPT = 64
"""Answers that are kept: each takes up to seconds, and a page asks for the same one again and again."""


@lru_cache(KEPT)
def tight_epsilon(mechanism: Mechanism, steps: int, delta: float) -> float | None:
    """Epsilon at `delta` after so many steps; None where dp-accounting is not installed (the extra `privacy`)."""
    if not steps:
        return 0.0
    try:
        from dp_accounting import dp_event  # noqa: PLC0415 - optional
    except ImportError:
        return None
    step = dp_event.PoissonSampledDpEvent(mechanism.sampling_rate, dp_event.GaussianDpEvent(mechanism.noise_multiplier))
    return _epsilon_of(dp_event.SelfComposedDpEvent(step, steps), delta)


@lru_cache(KEPT)
def gaussian_epsilon(mechanism: Mechanism, delta: float) -> float | None:
    """Epsilon at `delta` of one Gaussian mechanism of sensitivity 1; None where dp-accounting is not installed."""
    try:
        from dp_accounting import dp_event  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return _epsilon_of(dp_event.GaussianDpEvent(mechanism.noise_multiplier), delta)


def _epsilon_of(event: Any, delta: float) -> float:
    from dp_accounting import pld  # noqa: PLC0415 - optional
    from dp_accounting.privacy_accountant import NeighboringRelation  # noqa: PLC0415

    accountant = pld.PLDAccountant(NeighboringRelation.REPLACE_SPECIAL)
    accountant.compose(event)
    return float(accountant.get_epsilon(delta))
