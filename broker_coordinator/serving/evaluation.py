"""How good a version is on samples that no device trains on."""

from collections.abc import Mapping

from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.records import Evaluation
from bundle_runtime.bundle import Bundle
from bundle_runtime.runner import BundleRunner, HeadFigures
from bundle_runtime.samples import Samples
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import read_model


def evaluate(
    bundle: Bundle, version: Version, held_out: Samples, cluster: int = NO_CLUSTER
) -> tuple[Evaluation, Mapping[str, HeadFigures]]:
    """The mean loss of a version as devices of a `cluster` have it, and the share of right answers where labels are
    classes; of several heads, each's.

    Raises:
        ConfigurationError: this machine's onnxruntime can't run the bundle's graphs.
    """
    weights = read_model(version.weights, bundle.description, cluster)
    found = BundleRunner(bundle.description, bundle.files).evaluate(weights, held_out)
    return Evaluation(version.number, len(held_out), found.loss, found.accuracy), found.heads
