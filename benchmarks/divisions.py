"""How data is divided among a benchmark's devices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rows_of_devices(labels: NDArray[Any], devices: int, skew: str) -> list[NDArray[np.int64]]:
    """Rows of each device; none is empty.

    `skew` is `iid`, `dirichlet_0.5` with that or another concentration, or `one_class`, for a multiple of the classes.
    """
    generator = np.random.default_rng(devices)
    if skew == "iid":
        return list(np.array_split(generator.permutation(len(labels)), devices))
    rows: list[list[int]] = [[] for _ in range(devices)]
    classes = int(labels.max()) + 1
    for label in range(classes):
        own = generator.permutation(np.flatnonzero(labels == label))
        if skew == "one_class":
            for place, part in enumerate(np.array_split(own, devices // classes)):
                rows[label + classes * place] += part.tolist()
        else:
            shares = generator.dirichlet(np.full(devices, float(skew.removeprefix("dirichlet_"))))
            for device, row in zip(generator.choice(devices, len(own), p=shares), own, strict=True):
                rows[device].append(int(row))
    return [np.array(each) for each in rows if each]
