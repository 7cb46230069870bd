"""How good a version is on samples that no device trains on."""

from collections.abc import Mapping

from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.records import Evaluation
from bundle_runtime.bundle import Bundle
from bundle_runtime.runner import BundleRunner, HeadFigures
from bundle_runtime.samples import Samples
from fleet_protocol.codec import read_weights


def evaluate(bundle: Bundle, version: Version, held_out: Samples) -> tuple[Evaluation, Mapping[str, HeadFigures]]:
    """The mean loss of a version, and the share of right answers where labels are classes; of several heads, each's.

    Raises:
        ConfigurationError: this machine's onnxruntime can't run the bundle's graphs.
    """
    weights = read_weights(version.weights, bundle.description.parameters)
    found = BundleRunner(bundle.description, bundle.files).evaluate(weights, held_out)
    return Evaluation(version.number, len(held_out), found.loss, found.accuracy), found.heads
