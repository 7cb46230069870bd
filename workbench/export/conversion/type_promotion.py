"""Casts where an operator takes values of several types, as ONNX has no operator that does."""

from functools import cache
from typing import Any

from torch import fx
from torch.onnx._internal.fx.passes.type_promotion import (
    InsertTypePromotion,
    TypePromotionTable,
    _TypePromotionInterpreter,
    get_type_promotion_rule,
)


class _AsTraced(_TypePromotionInterpreter):
    """`torch.onnx` computes every node anew to learn its shape and type. The trace has noted both, and a cast changes
    them for nothing but itself and the node that it is for, which are computed when it is put in.
    """

    def run_node(self, n: fx.Node) -> Any:
        rule = get_type_promotion_rule(n, self.type_promotion_table)
        if rule is not None:
            with self._set_current_node(n):
                self._maybe_promote_node(n, rule)
        value = n.meta.get("val")
        return fx.Interpreter.run_node(self, n) if value is None else value


def insert_casts(traced: fx.GraphModule) -> None:
    """Put them into the graph and into those inside of it."""
    for module in [each for each in traced.modules() if isinstance(each, fx.GraphModule)]:
        insertion = InsertTypePromotion(module)
        insertion.interpreter = _AsTraced(module, _table())
        insertion.run()


@cache
def _table() -> TypePromotionTable:
    return TypePromotionTable()
