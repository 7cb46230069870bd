"""The functions that become graphs: one training step, evaluation, prediction.

Each takes flat positional tensors, the parameters first and in the order of `named_parameters`, because that is
what a graph's inputs are.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from workbench.export.losses import Loss, RowLoss

GraphFunction = Callable[..., tuple[Tensor, ...]]


def training_step(module: nn.Module, loss: Loss) -> GraphFunction:
    """One step of plain SGD.

    The function takes `(*parameters, inputs f32[B, *shape], labels i64[B], row_weights f32[B], learning_rate f32[])`
    and returns `(*updated_parameters, row_losses f32[B])`. What it minimises is `sum(row_weights * row_losses)`;
    weights that add up to 1 over the real rows and are 0 on padding make that their mean. A loss that balances
    classes takes one input more, the logarithm of their frequencies f32[C].
    """
    names = [name for name, _ in module.named_parameters()]

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        parameters, (inputs, labels, row_weights, learning_rate, *log_prior) = (
            tensors[: len(names)],
            tensors[len(names) :],
        )

        def losses_of(*parameters: Tensor) -> Tensor:
            scores = _call(module, names, parameters, inputs)
            return loss.rows(scores + log_prior[0] if loss.balances_classes else scores, labels)

        # A vector-Jacobian product instead of `grad` of a mean: the weights enter as the cotangent of the rows,
        # which spares the step the mean and its backward pass.
        row_losses, pull_back = vjp(losses_of, *parameters)[:2]
        gradients = pull_back(row_weights)
        return (*sgd(parameters, gradients, learning_rate), row_losses)

    return step


def sgd(parameters: Sequence[Tensor], gradients: Sequence[Tensor], learning_rate: Tensor) -> list[Tensor]:
    """Plain stochastic gradient descent."""
    return [parameter - learning_rate * gradient for parameter, gradient in zip(parameters, gradients, strict=True)]


def evaluation(module: nn.Module, row_loss: RowLoss) -> GraphFunction:
    """`(*parameters, inputs f32[N, *shape], labels i64[N])` to `(losses f32[N], correct f32[N])`."""
    names = [name for name, _ in module.named_parameters()]

    def evaluate(*tensors: Tensor) -> tuple[Tensor, ...]:
        parameters, (inputs, labels) = tensors[: len(names)], tensors[len(names) :]
        scores = _call(module, names, parameters, inputs)
        return row_loss(scores, labels), (scores.argmax(dim=1) == labels).to(torch.float32)

    return evaluate


def prediction(module: nn.Module) -> GraphFunction:
    """`(*parameters, inputs f32[N, *shape])` to `(scores f32[N, classes],)`."""
    names = [name for name, _ in module.named_parameters()]

    def predict(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (_call(module, names, tensors[: len(names)], tensors[len(names)]),)

    return predict


def _call(module: nn.Module, names: Sequence[str], parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
    scores: Tensor = functional_call(module, dict(zip(names, parameters, strict=True)), (inputs,))
    return scores
