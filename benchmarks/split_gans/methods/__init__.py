"""The methods that are compared, by name: one short file each."""

from collections.abc import Callable

from benchmarks.split_gans.divergence_weights import Direction
from benchmarks.split_gans.method import Method
from benchmarks.split_gans.methods.clustered import clustered, one_cluster, told
from benchmarks.split_gans.methods.fedgan import FEDGAN
from benchmarks.split_gans.methods.md_gan import MD_GAN
from benchmarks.split_gans.methods.plain_split import PLAIN_SPLIT
from benchmarks.split_gans.methods.pooled import POOLED, POOLED_BY_DOMAIN

COMPARED: dict[str, Method] = {
    "clustered": clustered(1.0),
    "plain_split": PLAIN_SPLIT,
    "fedgan": FEDGAN,
    "md_gan": MD_GAN,
    "pooled": POOLED,
    "pooled_by_domain": POOLED_BY_DOMAIN,
}
SCALES = (0, 1, 10, 100)
"""Of the divergence in a device's weight; 0: by samples alone."""
DIRECTIONS: dict[str, Direction] = {"": "of_device_from_others", "_reverse": "of_others_from_device"}
GROUPS: dict[str, Callable[[float, Direction], Method]] = {
    "clustered": clustered,
    "told": told,
    "one_cluster_kld": one_cluster,
}
WEIGHTS: dict[str, Method] = {
    f"{group}_{scale}{suffix}": method(scale, direction)
    for group, method in GROUPS.items()
    for scale in SCALES
    for suffix, direction in DIRECTIONS.items()
    if scale or not suffix
}
"""What weights by divergence do, with clusters that are found, clusters that are told, and one cluster of all."""
METHODS = COMPARED | WEIGHTS
