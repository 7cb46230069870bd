"""A `split` in task.json that contradicts itself or its task is refused with what is wrong, wherever it is read."""

import re

import msgspec
import pytest

from fleet_protocol.bundle import parse_description
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.split_plan import Block, Cut
from fleet_protocol.task_description import TaskDescription, split_files
from workbench.recipe_folder import find_bundle

TEXT = (find_bundle("mnist_cnn") / "task.json").read_bytes()
TASK = parse_description(TEXT)
FIRST, SECOND, LAST = TASK.split.blocks
replace = msgspec.structs.replace


def with_blocks(*blocks: Block) -> TaskDescription:
    return replace(TASK, split=replace(TASK.split, blocks=list(blocks)))


def with_cuts(*cuts: Cut) -> TaskDescription:
    return replace(TASK, split=replace(TASK.split, cuts=list(cuts)))


def without_file(name: str) -> TaskDescription:
    files = {file: digest for file, digest in TASK.files.items() if file != name}
    return replace(TASK, files=files, onnx_versions={})


def with_batches_of(rows: int, wire: str) -> TaskDescription:
    return replace(
        TASK,
        split=replace(TASK.split, activations=wire),
        training=replace(TASK.training, batch_size=rows),
    )


REFUSED: dict[str, tuple[TaskDescription, str]] = {
    "parameter of no block": (
        replace(TASK, parameters=[replace(TASK.parameters[0], block=3), *TASK.parameters[1:]]),
        r"a parameter's `block` is none of the 3 in `split`",
    ),
    "block that gives nothing": (with_blocks(replace(FIRST, output_shape=[]), SECOND, LAST), r"have an output_shape"),
    "last block that gives something": (with_blocks(FIRST, SECOND, SECOND), r"have an output_shape"),
    "block of an unknown part": (with_blocks(FIRST, replace(SECOND, part="other"), LAST), r"that split.parts lacks"),
    "two cuts of one name": (with_cuts(Cut("1-2", [(1, 2)]), Cut("1-2", [(1, 2)])), r"two have the same name"),
    "cut that is called as no cut is": (with_cuts(Cut("off", [(1, 2)])), r"'off' means something else .* none of auto"),
    "first block at a helper": (with_cuts(Cut("here", [(0, 2)])), r"here: a helper runs whole blocks .*, 1 to 1"),
    "last block at a helper": (with_cuts(Cut("here", [(1, 3)])), r"here: a helper runs whole blocks .*, 1 to 1"),
    "nothing of a block": (with_cuts(Cut("here", [(1, 1)])), r"here: a helper runs whole blocks .*, 1 to 1"),
    "samples at a helper": (
        with_blocks(FIRST, replace(SECOND, reads_inputs=True), LAST),
        r"block 1 reads the device's samples, and no helper sees those",
    ),
    "no graph of a block": (without_file("block_1_backward.onnx"), r"`files` lacks block_1_backward.onnx"),
    "more samples than a helper takes": (with_batches_of(4097, "int8"), r"batch_size is 4097, .* MAX_ROWS_PER_STEP"),
    "more values than a message takes": (
        with_batches_of(4096, "int8"),
        r"1-2: 4096 samples at '2' are 6.1 MiB, more than MAX_SESSION_MESSAGE_BYTES \(4 MiB\)",
    ),
    "more bytes than a message takes": (with_batches_of(1024, "float32"), r"1-2: 1024 samples at '2' are 6.1 MiB"),
    "absurd shape": (
        with_blocks(replace(FIRST, output_shape=[2**31 - 1] * 4), SECOND, LAST),
        r"more than MAX_SESSION_MESSAGE_BYTES",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_contradicts_itself_is_refused(name: str):
    task, sentence = REFUSED[name]
    with pytest.raises(ConfigurationError) as raised:
        parse_description(msgspec.json.encode(task))
    assert re.search(sentence, str(raised.value)), raised.value


def test_graphs_of_all_blocks_are_files_of_the_bundle():
    assert split_files(TASK) == {name for name in TASK.files if name.startswith("block_")}


def test_graphs_of_parts_are_one_for_each():
    split = replace(TASK.split, parts=["generator", "discriminator"])
    names = split_files(replace(TASK, split=split))
    assert {"block_2_last_generator.onnx", "block_2_last_discriminator.onnx"} <= names
    assert "block_2_last.onnx" not in names
