"""Which devices draw with one model: those of a cluster, or all that are in none."""

from collections.abc import Mapping, Sequence

from bundle_runtime.bundle import Bundle
from bundle_runtime.drawing import Drawer
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import read_model


def grouped(devices: Sequence[str], clusters: Mapping[str, int]) -> dict[int, tuple[str, ...]]:
    """The `devices` of each cluster, in ascending order of clusters; those that are in none are in `NO_CLUSTER`."""
    found: dict[int, list[str]] = {}
    for device in devices:
        found.setdefault(clusters.get(device, NO_CLUSTER), []).append(device)
    return {cluster: tuple(found[cluster]) for cluster in sorted(found)}


def drawer_of(bundle: Bundle, version: bytes, cluster: int) -> Drawer:
    """What draws with a version, a safetensors file, as devices of a cluster have it."""
    return Drawer(bundle, read_model(version, bundle.description, cluster))
