"""The methods that are compared, by name: one short file each."""

from benchmarks.split_gans.method import Method
from benchmarks.split_gans.methods.clustered import clustered
from benchmarks.split_gans.methods.fedgan import FEDGAN
from benchmarks.split_gans.methods.md_gan import MD_GAN
from benchmarks.split_gans.methods.plain_split import PLAIN_SPLIT
from benchmarks.split_gans.methods.pooled import POOLED, POOLED_BY_DOMAIN

METHODS: dict[str, Method] = {
    "clustered": clustered(1.0),
    "pooled": POOLED,
    "plain_split": PLAIN_SPLIT,
    "fedgan": FEDGAN,
    "pooled_by_domain": POOLED_BY_DOMAIN,
    "md_gan": MD_GAN,
    "clustered_by_samples": clustered(0.0),
    "clustered_reverse": clustered(1.0, "of_others_from_device"),
}
