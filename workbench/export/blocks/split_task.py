"""`[split]` of a recipe as the bundle has it: the division of its model, what the blocks are, and the cuts."""

from fleet_protocol.split_plan import Block, Passing, SplitPlan
from workbench.export.blocks.block_cuts import cuts_of
from workbench.export.blocks.division import Division


def split_plan(division: Division) -> SplitPlan | None:
    """The plan, without what blocks cost; None where the recipe has no `[split]`.

    Raises:
        ConfigurationError: a block has parameters of two parts, or a cut can't be.
    """
    settings = division.recipe.task.split
    if settings is None:
        return None
    blocks = [
        Block(
            "" if number == division.last else division.points[number],
            [] if number == division.last else list(division.shapes[number]),
            reads_inputs=number > 0 and number in division.flow.read_samples,
            part=division.part_of(number),
        )
        for number in range(division.count)
    ]
    passing = {name: getattr(settings, name) for name in Passing.__struct_fields__}
    return SplitPlan(blocks, cuts_of(division, settings), list(division.recipe.task.parts), **passing)
