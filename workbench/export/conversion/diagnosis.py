"""What torch, torch.onnx or onnxruntime means by an error, in words for the person who wrote the model."""

import re
import traceback
from dataclasses import dataclass

from workbench.export.layers.layer_context import UnexportableError


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What stands in the way, said of the module that it is found in, and what to write instead.

    `operator` is the one that ONNX lacks, if that is what it is.
    """

    reason: str
    remedy: str
    operator: str | None = None

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


INSTEAD = {
    "_cdist_forward": "write the distances as norms of differences, (a.unsqueeze(1) - b).norm(dim=-1)",
    "_ctc_loss": "leave it to the loss that task.toml names",
    "_embedding_bag": "use nn.EmbeddingBag, the layer",
    "_linalg_svd": "use torch.nn.utils.parametrizations.spectral_norm where it limits a weight",
    "_upsample_bilinear2d_aa": "leave out antialias",
    "as_strided_scatter": "write into x.contiguous(), or put parts together with torch.cat",
    "bucketize": "count the boundaries below, (x.unsqueeze(-1) > boundaries).sum(-1)",
    "cummax": "use torch.logcumsumexp, or a MaxPool1d over what came before",
    "diagonal": "multiply by torch.eye",
    "diagonal_scatter": "add torch.diag_embed() or torch.eye(), instead of writing into the diagonal",
    "erfinv": "use torch.atanh, which has nearly its shape",
    "grid_sampler_2d": "use convolution or pooling",
    "lgamma": "use Stirling's formula, (x - 0.5) * x.log() - x + 0.919 + 1 / (12 * x)",
    "histc": "count what lies between two boundaries, (x > low).logical_and(x <= high).sum(-1)",
    "index_put": "multiply by the mask, or name the places by number, made in __init__ with mask.nonzero().flatten()",
    "kthvalue": "use one entry of x.sort(dim)",
    "linalg_householder_product": "use torch.nn.utils.parametrizations.weight_norm",
    "linalg_inv_ex": "write out the solution, or a few Newton steps, x = x @ (2 * eye - weight @ x)",
    "linalg_matrix_exp": "write out its series, eye + weight + weight @ weight / 2; weight_norm instead of orthogonal",
    "linalg_qr": "write out Gram-Schmidt, or use torch.nn.utils.parametrizations.weight_norm",
    "max_pool3d_with_indices": "use nn.MaxPool3d without return_indices",
    "median": "use the middle of x.sort(dim)",
    "prod": "multiply the slices, x[:, 0] * x[:, 1]; of positive numbers, x.log().cumsum(1).exp() instead of cumprod",
    "searchsorted": "count the boundaries below, (x.unsqueeze(-1) > boundaries).sum(-1)",
}
"""Operator without counterpart in ONNX, to what serves instead of it."""
OTHERWISE = (
    "leave it out, write it in other operators, or add its decomposition to"
    " workbench/export/conversion/decompositions.py"
)

FREE_BATCH = (
    "it makes a constant of the number of samples in a batch, which differs from step to step",
    "write x.shape[0] for it, not len(x) or int(x.shape[0]), and x.gather() for torch.take_along_dim(); else work along"
    " the axes of one sample: nn.BatchNorm1d is what normalises over a batch",
)
KNOWN = (
    (
        r"torch/utils/checkpoint\.py|saved tensor hooks",
        "it recomputes activations (torch.utils.checkpoint)",
        "call the layer itself: a device trains on a few samples at a time",
    ),
    (
        r"modified by an inplace operation",
        "it changes a tensor in place that its gradient needs",
        "compute a new one, x = x + 1 instead of x += 1",
    ),
    (
        r"setup_context",
        "its autograd.Function has no setup_context",
        "take ctx out of its forward(), and keep what backward() needs in setup_context()",
    ),
    (
        r"PackedSequence",
        "a PackedSequence has lengths that a graph doesn't know",
        "give the padded sequences themselves to the recurrent layer",
    ),
    (
        r"SymFloat\.__format__|SymInt\.__format__",
        "it puts a tensor's value into a text",
        "leave out what prints or formats values in forward()",
    ),
    (
        r"GuardOnDataDependentSymNode|data-dependent expression|DynamicOutputShapeException",
        "a number, a shape or a branch follows from the values of a tensor",
        "keep the number a tensor (x.mean() instead of float(x.mean())), and use torch.where instead of if",
    ),
    (
        r"Cannot access data pointer|can't be converted to numpy|numpy\(\)",
        "it takes values out of torch (numpy)",
        "compute in torch",
    ),
    (
        r"mutate a captured Tensor|mutating a non-functional tensor",
        "it changes a tensor in place that outlives the step",
        "compute it anew from the inputs, or let nn.BatchNorm1d with affine=False track it",
    ),
    (
        r"operator '.*' is not functional",
        "it changes its weights in place, such as for the max_norm of an Embedding",
        "leave max_norm out",
    ),
    (
        r"UnsupportedOperatorException",
        "it computes with tensors of a kind that torch doesn't trace (sparse, quantised)",
        "use dense float32 tensors",
    ),
    (r"'SymbolicTensor'|SymIntArrayRef expected|with symbolic sizes/strides", *FREE_BATCH),
    (
        r"CUDA|cuda|NVIDIA|\bGPU\b",
        "it asks for a GPU",
        'leave out .cuda() and device="cuda": the export and devices compute on the processor',
    ),
)
"""Pattern of torch's words, what they mean, and what to write instead."""

_MISSING_OPERATOR = re.compile(
    r"No ONNX function found for <OpOverload\(op='(?P<operator>[^']+)'"
    r"|DynamicOutputShapeException: (?P<dynamic>\S+)"
    r"|Error when translating node .*torch\.ops\.(?P<untranslated>[\w.]+)\]"
)
_CAUSE = re.compile(r"^<class '.*'>: (.*)$", flags=re.MULTILINE)


def diagnosis(error: BaseException) -> Diagnosis:
    """What an error that came up in an export says of the model."""
    if isinstance(error, UnexportableError):
        return Diagnosis(error.reason, error.remedy)
    text = f"{type(error).__name__}: {error}"
    if missing := _MISSING_OPERATOR.search(text):
        operator = next(filter(None, missing.groups()))
        if operator.endswith(".Scalar"):
            return Diagnosis(*FREE_BATCH)
        remedy = INSTEAD.get(basename(operator).removesuffix("_backward"), OTHERWISE)
        return Diagnosis(f"ONNX has no operator {operator} for it", remedy, operator)
    if (known := known_cause(error)) is not None:
        return known
    causes = _CAUSE.findall(text)
    said = causes[-1] if causes else text.strip().partition("\n")[0]
    return Diagnosis(f"torch can't make a graph of it ({said})", "leave it out, or write it in other operators")


def known_cause(error: BaseException) -> Diagnosis | None:
    """What one of torch's errors means, if that is known."""
    text = f"{type(error).__name__}: {error} {_places(error)}"
    known = (Diagnosis(reason, remedy) for pattern, reason, remedy in KNOWN if re.search(pattern, text))
    return next(known, None)


def _places(error: BaseException) -> str:
    """Those of torch's tools that an error came through: some errors don't say which function they are about."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return " ".join(file for file in files if "torch/utils/" in file)


def basename(operator: str) -> str:
    """`lgamma` of `aten.lgamma.default` and of `prims.lgamma`: conversion moves operators between namespaces."""
    return operator.split(".")[1]
