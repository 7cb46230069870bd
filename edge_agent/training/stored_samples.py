"""A device's stored samples as a round finds them: to train on, to validate on, and how many are new to it. Pure."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from edge_agent.training.validation import kept_for_validation

IDENTITY_BYTES = 8
"""Two of a million different samples have the same identity with a chance of one in forty million."""


@dataclass(frozen=True, slots=True)
class StoredSamples:
    """Of those to train on, `different` are different, and of these no round has seen `fresh`.

    A sample that comes again is not fresh, and on the same side as it was. `resting`, bool [N] of those to train on,
    count and take part in no step; None where none rests.
    """

    training: Samples
    validation: Samples
    different: int
    fresh: int
    resting: NDArray[np.bool_] | None = None


def identities(samples: Samples) -> NDArray[np.uint64]:
    """Evenly spread numbers that follow from what each sample holds, its label too, uint64 [N]."""
    digests = [
        hashlib.blake2b(inputs.tobytes() + label.tobytes(), digest_size=IDENTITY_BYTES).digest()
        for inputs, label in zip(samples.inputs, samples.labels, strict=True)
    ]
    return np.frombuffer(b"".join(digests), "<u8")


@dataclass(frozen=True, slots=True)
class Division:
    """Which of the stored samples are trained on, and which validate, int64 each; `different` and `fresh` as of
    `StoredSamples`.
    """

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    different: int
    fresh: int

    def of(self, samples: Samples) -> StoredSamples:
        """The samples, divided so."""
        return StoredSamples(samples.take(self.training), samples.take(self.validation), self.different, self.fresh)


def division(identities: NDArray[np.uint64], unseen: NDArray[np.bool_], validation_share: float) -> Division:
    """How samples with these `identities`, uint64 [N], are divided; `unseen` bool [N]: no round has had that one."""
    kept = kept_for_validation(identities, validation_share)
    different = np.unique(identities[~kept]).size
    return Division(
        training=np.flatnonzero(~kept),
        validation=np.flatnonzero(kept),
        different=different,
        fresh=different - np.unique(identities[~kept & ~unseen]).size,
    )


def divide(
    samples: Samples, identities: NDArray[np.uint64], unseen: NDArray[np.bool_], validation_share: float
) -> StoredSamples:
    """Stored samples, divided as `division` says."""
    return division(identities, unseen, validation_share).of(samples)
