"""Rules that take the place of a strategy's mean, and withstand some hostile devices: one short file each. Pure."""

from broker_coordinator.aggregation.robust.bulyan import bulyan
from broker_coordinator.aggregation.robust.centred_clipping import centred_clipping
from broker_coordinator.aggregation.robust.fltrust import fltrust
from broker_coordinator.aggregation.robust.geometric_median import geometric_median
from broker_coordinator.aggregation.robust.krum import krum, multi_krum
from broker_coordinator.aggregation.robust.median import median
from broker_coordinator.aggregation.robust.rule import Compared, Rule
from broker_coordinator.aggregation.robust.spectral import spectral
from broker_coordinator.aggregation.robust.trimmed_mean import trimmed_mean
from broker_coordinator.aggregation.robust.zeno import zeno
from fleet_protocol.robust_plan import RuleName

RULES: dict[RuleName, Rule] = {
    "median": median,
    "trimmed_mean": trimmed_mean,
    "geometric_median": geometric_median,
    "krum": krum,
    "multi_krum": multi_krum,
    "bulyan": bulyan,
    "centred_clipping": centred_clipping,
    "spectral": spectral,
    "zeno": zeno,
    "fltrust": fltrust,
}

__all__ = ["RULES", "Compared", "Rule"]
