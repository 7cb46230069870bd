"""Layers over sequences, recurrent ones and attention, train as torch's own do."""

import pytest
import torch
from torch import Tensor, nn

from bundle_runtime.graph_admission import check_graph
from fleet_protocol.bundle_files import EVALUATE_FILE, PREDICT_FILE, TRAIN_FILE
from tests.support.cases import cases
from tests.support.training import build, check_training, export, make_recipe, with_head
from workbench.export.conversion.onnx_conversion import checked_model
from workbench.export.graphs.inference_graphs import evaluation_graph, prediction_graph
from workbench.export.graphs.training_graph import training_graph
from workbench.export.layers.layer_context import UnexportableError

SEQUENCE = (3, 8)


class LastStep(nn.Module):
    """A recurrent layer's output at the last step."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs)[0][:, -1]


class SelfAttention(nn.Module):
    """Every step of a sequence looks at every other."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.options = options

    def forward(self, inputs: Tensor) -> Tensor:
        return self.attention(inputs, inputs, inputs, **self.options)[0]


class Encoder(nn.Module):
    """A transformer encoder over embedded tokens, averaged over the sequence."""

    def __init__(self, layers: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.register_buffer("positions", torch.linspace(-1, 1, 3).reshape(3, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.encoder(self.embed(inputs) + self.positions).mean(dim=1)


LAYERS = {
    "multihead_attention": (lambda: with_head(SelfAttention(need_weights=False)), SEQUENCE),
    "attention_weights": (lambda: with_head(SelfAttention(need_weights=True)), SEQUENCE),
    "encoder": (lambda: with_head(Encoder(layers=1, dropout=0.2)), SEQUENCE),
    "gru": (lambda: with_head(LastStep(nn.GRU(8, 6, batch_first=True))), SEQUENCE),
    "gru_deep": (
        lambda: with_head(LastStep(nn.GRU(8, 4, num_layers=2, bidirectional=True, batch_first=True))),
        (2, 8),
    ),
    "lstm": (lambda: with_head(LastStep(nn.LSTM(8, 6, batch_first=True))), SEQUENCE),
    "lstm_deep": (
        lambda: with_head(LastStep(nn.LSTM(8, 5, 2, dropout=0.3, bidirectional=True, batch_first=True))),
        SEQUENCE,
    ),
    "lstm_projected": (
        lambda: with_head(LastStep(nn.LSTM(8, 6, 2, bias=False, proj_size=4, batch_first=True))),
        SEQUENCE,
    ),
    "rnn": (lambda: with_head(LastStep(nn.RNN(8, 6, bidirectional=True, batch_first=True))), SEQUENCE),
    "rnn_relu": (lambda: with_head(LastStep(nn.RNN(8, 6, nonlinearity="relu", batch_first=True))), SEQUENCE),
}


@pytest.mark.parametrize("name", cases(LAYERS, long={"attention_weights", "gru", "lstm", "rnn_relu"}))
def test_layer_trains_as_torch_does(name: str):
    check_training(*build(*LAYERS[name]))


def test_export_leaves_the_module_as_it_was():
    module, shape = build(*LAYERS["encoder"])
    inputs = torch.ones(2, *shape)
    expected = module.eval()(inputs)
    export(make_recipe(module, shape))
    assert not any("forward" in vars(part) for part in module.modules())
    torch.testing.assert_close(module.eval()(inputs), expected)


@pytest.mark.parametrize("kind", [nn.GRU, *(pytest.param(each, marks=pytest.mark.long) for each in (nn.LSTM, nn.RNN))])
def test_graph_of_a_recurrent_layer_is_as_large_for_many_steps_as_for_few(kind: type[nn.RNNBase]):
    sizes = []
    for steps in (4, 40):
        recipe = make_recipe(*build(lambda: with_head(LastStep(kind(3, 4, batch_first=True))), (steps, 3)))
        scan = next(node for node in training_graph(recipe).node if node.op_type == "Scan")
        step = next(attribute.g for attribute in scan.attribute if attribute.name == "body")
        assert len([node for node in step.node if node.op_type == "Scan"]) == 2
        sizes.append(len(step.node))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("file", "graph"),
    [(TRAIN_FILE, training_graph), (EVALUATE_FILE, evaluation_graph), (PREDICT_FILE, prediction_graph)],
)
@pytest.mark.parametrize("layer", cases(["lstm_projected", "gru_deep"], long={"gru_deep"}))
def test_each_graph_of_a_recurrent_layer_passes_the_check_of_graphs(layer, file, graph):
    recipe = make_recipe(*build(*LAYERS[layer]))
    recipe.set_training(file == TRAIN_FILE)
    check_graph(file, checked_model(graph(recipe)).SerializeToString())


def test_steps_along_the_rows_of_the_batch_are_refused():
    module, shape = build(lambda: with_head(LastStep(nn.GRU(8, 6, batch_first=True))), SEQUENCE)
    module[0].layer.batch_first = False
    with pytest.raises(UnexportableError, match="give it batch_first=True"):
        export(make_recipe(module, shape))
