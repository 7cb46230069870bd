"""What the trial of low-rank updates counts and hands on, on matrices whose rank is known."""

import numpy as np

from benchmarks.fewer_bytes import LowRank, contenders
from fleet_protocol.codec import decode_update
from fleet_protocol.update_plan import UpdatePlan

SHAPES = [[12, 40], [12]]
PLAN = UpdatePlan(keep_fraction=0.1)


def test_matrix_of_that_rank_is_sent_but_for_rounding_and_a_sharper_one_is_cut():
    random = np.random.default_rng(2)
    matrix = random.normal(size=(12, 2)) @ random.normal(size=(2, 40))
    delta = np.concatenate([matrix.ravel(), random.normal(size=12)]).astype(np.float32)
    left = {}
    for rank in (1, 2):
        encoded = LowRank(rank)(delta, SHAPES, PLAN, random)
        assert np.array_equal(encoded.sent.values, decode_update(encoded.packed, SHAPES).values)
        left[rank] = np.linalg.norm(encoded.sent.values - delta) / np.linalg.norm(delta)
    assert left[2] < 0.02
    assert left[1] > 0.2


def test_bytes_counted_are_those_of_the_factors():
    random = np.random.default_rng(3)
    delta = random.normal(size=12 * 41).astype(np.float32)
    encoder = LowRank(2)
    encoded = encoder(delta, SHAPES, PLAN, random)
    codes = 2 * (12 + 40) + 2 * 2 * 2 + 12 + 2
    assert codes <= len(encoded.packed) - encoder.saved(1) <= codes + 20
    encoder(np.zeros_like(delta), SHAPES, PLAN, random)
    assert encoder.saved(0) == 0
    assert encoder.saved(2) != encoder.saved(1)


def test_every_contender_but_the_default_differs_from_it():
    found = contenders()
    assert all(each != found["default"] for name, each in found.items() if name != "default")
