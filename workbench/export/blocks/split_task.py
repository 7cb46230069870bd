"""`[split]` of a recipe as the bundle has it: the division of its model, what the blocks are, and the cuts."""

from fleet_protocol.split_plan import Block, Passing, SplitPlan, check_split
from workbench.export.blocks.block_cuts import cuts_of
from workbench.export.blocks.division import Division
from workbench.recipe_folder import TASK_FILE


def split_plan(division: Division) -> SplitPlan | None:
    """The plan, without what blocks cost; None where the recipe has no `[split]`.

    Raises:
        ConfigurationError: a block has parameters of two parts, or a cut can't be, such as for what passes at it.
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
    plan = SplitPlan(blocks, cuts_of(division, settings), list(division.recipe.task.parts), **passing)
    blocks_of_parameters = [parameter.block for parameter in division.parameters]
    path = str(division.recipe.folder / TASK_FILE)
    check_split(plan, blocks_of_parameters, division.recipe.task.training.batch_size, path)
    return plan
