"""What an update tells of the loss: that of the version which its round began with, in three digits of any size."""

import msgspec
import numpy as np
import pytest

from edge_agent.producers.update import produce_update
from edge_agent.training.round import Earlier, train_round
from fleet_protocol.kinds import Update, decode_payload
from tests.unit.test_bounded_updates import DIGITS, SAMPLES, WEIGHTS, Learns


class LearnsByHeart(Learns):
    """A device whose own loss is gone after the first step, whatever the version was worth."""

    def train(self, weights, samples, plan, rates, on_progress=None):
        """See `TrainingEngine.train`."""
        trained, losses = super().train(weights, samples, plan, rates)
        losses[1:] = 0.0
        return trained, losses


@pytest.mark.parametrize("loss", [2.5, 0.0123, 0.0000456, 1230000.0])
def test_loss_before_training_is_declared_however_small(loss: float) -> None:
    result = train_round(LearnsByHeart(1.0, loss), WEIGHTS, SAMPLES, DIGITS, Earlier(b"", (), 0, 1))
    assert result.loss == np.float32(loss)
    sent = produce_update(DIGITS, result)
    assert sent is not None
    assert decode_payload(sent, Update).loss == loss


def test_fourth_digit_of_a_loss_stays_on_the_device() -> None:
    result = train_round(Learns(1.0), WEIGHTS, SAMPLES, DIGITS, Earlier(b"", (), 0, 1))
    sent = produce_update(DIGITS, msgspec.structs.replace(result, loss=0.00123456))
    assert sent is not None
    assert decode_payload(sent, Update).loss == 0.00123
