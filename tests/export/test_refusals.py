"""A model that can't be exported gets one sentence, which names the place and says what to do; and that works."""

import re

import pytest
import torch

from fleet_protocol.errors import ConfigurationError
from tests.export.refused_models import IMAGE, REFUSALS, SEQUENCE, UNKNOWN_OPERATORS, VECTOR, VOLUME, Make, Refusal
from tests.support.cases import cases
from tests.support.training import build, check_training, export, make_recipe, train_exported
from workbench.export.conversion.diagnosis import INSTEAD
from workbench.export.conversion.unexportable import explained

SHAPES = {"grid_sampler_2d": IMAGE, "_upsample_bilinear2d_aa": IMAGE, "as_strided_scatter": SEQUENCE}
SHAPES |= {"max_pool3d_with_indices": VOLUME}


def sentence_about(make: Make, shape: tuple[int, ...], *, per_sample: bool = False) -> str:
    """What is said of a model that can't be exported."""
    recipe = make_recipe(*build(make, shape))
    with (
        pytest.raises(ConfigurationError) as raised,
        explained("train.onnx", recipe.module, torch.zeros(1, *shape)),
    ):
        export(recipe, per_sample=per_sample)
    return str(raised.value)


SAME_OF_OTHERS = {"checkpoint", "deviation over a batch", "batch statistics per sample"}
SAME_OF_OTHERS |= {"instance statistics per sample", "buffer in place", "max_norm"}
OTHER_OPERATORS = {"_ctc_loss", "_linalg_svd", "_upsample_bilinear2d_aa", "as_strided_scatter", "diagonal"}
OTHER_OPERATORS |= {"diagonal_scatter", "erfinv", "grid_sampler_2d", "histc", "kthvalue", "lgamma", "searchsorted"}
OTHER_OPERATORS |= {"linalg_householder_product", "linalg_inv_ex", "linalg_matrix_exp", "max_pool3d_with_indices"}
"""Each is a row of one table."""


@pytest.mark.parametrize("name", cases(REFUSALS, long=SAME_OF_OTHERS))
def test_what_cannot_be_exported_is_named_with_a_remedy_that_works(name: str):
    refusal: Refusal = REFUSALS[name]
    said = sentence_about(refusal.model, refusal.inputs, per_sample=refusal.per_sample)
    assert re.search(refusal.sentence, said), said
    assert said.count("\n") == 0
    if refusal.per_sample:
        train_exported(make_recipe(*build(refusal.remedied, refusal.inputs)), per_sample=True)
    else:
        check_training(*build(refusal.remedied, refusal.inputs))


@pytest.mark.parametrize("name", cases(UNKNOWN_OPERATORS, long=OTHER_OPERATORS))
def test_operator_without_counterpart_is_named_with_what_serves_instead(name: str):
    model, remedied = UNKNOWN_OPERATORS[name]
    shape = SHAPES.get(name, VECTOR)
    said = sentence_about(model, shape)
    assert re.search(rf"module '1[^']*' \(\w+\) can't be exported: ONNX has no operator \w+\.{name}", said), said
    assert INSTEAD[name] in said
    check_training(*build(remedied, shape))


def test_every_operator_that_has_a_substitute_is_tried():
    assert UNKNOWN_OPERATORS.keys() == INSTEAD.keys()
