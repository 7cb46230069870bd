"""The zoo: each model's name, how it is made, and what it takes and gives."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from benchmarks.model_zoo import image_models as images
from benchmarks.model_zoo import sequence_models as sequences
from benchmarks.model_zoo import table_models as tables
from benchmarks.model_zoo.blocks import CLASSES
from fleet_protocol.sample_schema import LabelKind, LabelSchema
from workbench.export.recipe.trainable import EVERYTHING

AS_CLASSES = LabelSchema(CLASSES)


@dataclass(frozen=True, slots=True)
class ZooModel:
    """A model, the shape of one sample, and what its labels are; inputs are ids below `ids`, if that isn't 0.

    `trainable` are patterns of the parameters that train.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    label: LabelSchema = AS_CLASSES
    ids: int = 0
    trainable: tuple[str, ...] = (EVERYTHING,)


def _values(count: int, kind: LabelKind) -> LabelSchema:
    return LabelSchema(classes=count, kind=kind) if kind == "multi_label" else LabelSchema(kind=kind, values=count)


SMALL, COLOUR, LARGE = (1, 16, 16), (3, 16, 16), (3, 32, 32)

MODELS: dict[str, ZooModel] = {
    "mlp_head": ZooModel(tables.mlp_head, (64,)),
    "deep_mlp": ZooModel(tables.deep_mlp, (16,)),
    "batch_normed_mlp": ZooModel(tables.batch_normed_mlp, (20,)),
    "autoencoder": ZooModel(tables.autoencoder, (32,), LabelSchema(kind="reconstruction")),
    "regressor": ZooModel(tables.regressor, (8,), _values(2, "regression")),
    "multi_label": ZooModel(tables.multi_label, (24,), _values(CLASSES, "multi_label")),
    "matrix_factorisation": ZooModel(tables.MatrixFactorisation, (2,), _values(1, "regression"), ids=tables.USERS),
    "mixture_of_experts": ZooModel(tables.MixtureOfExperts, (16,)),
    "deep_sets": ZooModel(tables.DeepSets, (10, 3)),
    "graph_convolution": ZooModel(tables.GraphConvolution, (tables.NODES, 4)),
    "small_cnn": ZooModel(images.small_cnn, (1, 8, 8)),
    "lenet": ZooModel(images.lenet, (1, 28, 28)),
    "vgg": ZooModel(images.vgg, LARGE),
    "resnet8": ZooModel(images.resnet8, LARGE),
    "dscnn": ZooModel(images.dscnn, SMALL),
    "mobilenet_v2": ZooModel(images.mobilenet_v2, LARGE),
    "mobilenet_v3": ZooModel(images.mobilenet_v3, LARGE),
    "shufflenet": ZooModel(images.shufflenet, COLOUR),
    "resnext": ZooModel(images.resnext, COLOUR),
    "convnext": ZooModel(images.convnext, LARGE),
    "densenet": ZooModel(images.densenet, COLOUR),
    "inception": ZooModel(images.inception, COLOUR),
    "unet": ZooModel(images.UNet, SMALL, LabelSchema(kind="reconstruction")),
    "dilated_cnn": ZooModel(images.dilated_cnn, SMALL),
    "vision_transformer": ZooModel(images.vision_transformer, LARGE),
    "mlp_mixer": ZooModel(images.mlp_mixer, COLOUR),
    "gru": ZooModel(sequences.gru, (8, 6)),
    "deep_gru": ZooModel(sequences.deep_gru, (24, 6)),
    "lstm": ZooModel(sequences.lstm, (128, 6)),
    "both_ways_lstm": ZooModel(sequences.both_ways_lstm, (24, 8)),
    "deep_lstm": ZooModel(sequences.deep_lstm, (32, 6)),
    "projected_lstm": ZooModel(sequences.projected_lstm, (32, 6)),
    "elman": ZooModel(sequences.elman, (32, 6)),
    "attention_pool": ZooModel(sequences.AttentionPool, (24, 6)),
    "own_loop": ZooModel(sequences.OwnLoop, (8, 6)),
    "text_lstm": ZooModel(sequences.text_lstm, (20,), ids=sequences.TOKENS),
    "conv_1d": ZooModel(sequences.conv_1d, (64, 6)),
    "temporal_cnn": ZooModel(sequences.temporal_cnn, (64, 6)),
    "gated_cnn": ZooModel(sequences.gated_cnn, (64, 6)),
    "transformer": ZooModel(sequences.transformer, (16,), ids=sequences.TOKENS),
    "causal_transformer": ZooModel(sequences.causal_transformer, (16, 6)),
    "rope_transformer": ZooModel(sequences.rope_transformer, (16, 6)),
}
