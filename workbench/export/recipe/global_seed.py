"""The generators that a model may draw its first weights from: torch's, numpy's and Python's own, under one seed."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

NUMPY_SEEDS = 1 << 32


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Whatever is drawn inside of the block follows from `seed`; behind it the generators are as before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            set_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def set_seed(seed: int) -> None:
    """Start all of them anew."""
    torch.manual_seed(seed)
    np.random.seed(seed % NUMPY_SEEDS)
    random.seed(seed)
