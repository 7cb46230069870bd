"""What a recipe gets that says nothing of how to train is the default that the zoo tries on all of its tasks."""

import tomllib

import msgspec

from benchmarks.zoo.bundles import DEFAULT
from workbench.export.recipe.task_file import TaskFile

BARE = {"task": "bare", "title": "Nothing but what it is"}


def test_recipe_without_plans_gets_the_default_that_is_tried_on_the_zoo():
    tried = tomllib.loads(DEFAULT.read_text())
    assert {"training", "update", "aggregation"} <= tried.keys()
    assert msgspec.convert(BARE, TaskFile) == msgspec.convert({**BARE, **tried}, TaskFile)
