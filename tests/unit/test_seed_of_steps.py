"""What a model draws in a step, it draws in no other step of the same device."""

import os

from edge_agent.training.engine import BatchPlan, plan_batches
from edge_agent.training.private.randomness import sampled_batches

ROUNDS, STEPS = 200, 25


def drawn_once(plans: list[BatchPlan]) -> None:
    """Every step's seed is its own, and one that a graph takes."""
    seeds = [(plan.seed + step) % 2**32 for plan in plans for step in range(STEPS)]
    assert len(seeds) == ROUNDS * STEPS
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= plan.seed < 2**32 for plan in plans)


def test_rounds_that_follow_each_other_draw_other_numbers() -> None:
    """A device counts its rounds on by one, and a step takes its round's seed plus its number."""
    drawn_once([plan_batches(100, STEPS, 16, number) for number in range(ROUNDS)])


def test_rounds_of_a_private_task_do_too() -> None:
    """Their batches are secret; what the model draws follows from the round."""
    drawn_once([sampled_batches(100, STEPS, 0.1, os.urandom, number) for number in range(ROUNDS)])


def test_a_round_again_draws_the_same() -> None:
    """It is to be repeated to the bit, wherever it runs."""
    assert plan_batches(100, STEPS, 16, 7).seed == plan_batches(50, STEPS, 8, 7).seed == 2083679832
