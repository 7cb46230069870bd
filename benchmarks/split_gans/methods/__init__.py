"""The methods that are compared, by name: one short file each."""

from benchmarks.split_gans.method import Method
from benchmarks.split_gans.methods.clustered import clustered, told
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
WEIGHTS: dict[str, Method] = {
    "clustered_by_samples": clustered(0.0),
    "clustered_reverse": clustered(1.0, "of_others_from_device"),
    "told_by_samples": told(0.0),
    "told": told(1.0),
    "told_10": told(10.0),
    "told_100": told(100.0),
    "told_10_reverse": told(10.0, "of_others_from_device"),
}
"""What weights by divergence do, with clusters that are found or told."""
METHODS = COMPARED | WEIGHTS
