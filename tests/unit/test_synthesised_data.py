"""From prompts to data: what is asked of a generator, what becomes of its failures, and what is not made again."""

import os
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from bundle_runtime.bundle import Bundle
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Prompts
from fleet_protocol.prompt_plan import PromptPlan
from prompt_synthesis.data_folder import DataFolder, without_data
from prompt_synthesis.generator import GeneratorError, Synthetic
from prompt_synthesis.prompt import combined
from prompt_synthesis.report import write_report
from prompt_synthesis.synthesis import planned, synthesise
from tests.support.prompts import bundle_with_prompts
from tests.support.safetensors_file import safetensors

PLAN = PromptPlan(names=["ant", "bee", "cat", "dog"])
TWO = Prompts("class", bytes([4, 0, 4, 0]), "small")


LACKING = {"BF16": 16, "F8_E4M3": 8, "F4": 4}
"""Bits of the dtypes of safetensors that numpy lacks, some."""


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return bundle_with_prompts(tmp_path / "bundle", PLAN)


class Odd:
    """Makes what its name says."""

    def __init__(self, behaviours: dict[str, str]) -> None:
        self.behaviours, self.asked = behaviours, []

    def generate(self, prompts, count, seed):
        (prompt,) = prompts
        self.asked.append(prompt.word)
        label, inputs = prompt.label, np.full((count, 8), 0.5, np.float32)
        match self.behaviours.get(prompt.word):
            case "fails":
                raise GeneratorError("no such animal")
            case "breaks":
                raise ZeroDivisionError("oh")
            case "nothing":
                inputs = inputs[:0]
            case "too large":
                inputs *= 1e30
            case "not a number":
                inputs[0, 0] = np.nan
            case "wrong shape":
                inputs = inputs[:, :3]
            case "wrong class":
                label = 1 - label
        return Synthetic(inputs, np.full(len(inputs), label), ["odd"] * len(inputs))


def plan_of(bundle: Bundle, seed: int = 0):
    return planned(bundle, combined({"a": (TWO, None)}, PLAN), "odd", 5, seed)


def made(bundle: Bundle, folder, generator, *, seed: int = 0):
    plan, prompts = plan_of(bundle, seed)
    return synthesise(DataFolder(folder, plan), prompts, generator, bundle.description, on_part=lambda _: None)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("fails", "no such animal"),
        ("breaks", "ZeroDivisionError: oh"),
        ("nothing", "has made nothing of it"),
        ("too large", "does not take"),
        ("not a number", "does not take"),
        ("wrong shape", "has made [5, 3]"),
        ("wrong class", "other classes than 0"),
    ],
)
def test_what_a_generator_can_not_make_is_said_and_the_rest_goes_on(bundle, tmp_path, behaviour, words):
    notes = made(bundle, tmp_path / "data", Odd({"ant": behaviour}))
    assert [note.made for note in notes] == [0, 5]
    assert words in notes[0].failure
    assert without_data(notes, 4) == [0, 1, 3]
    report = write_report(DataFolder(tmp_path / "data", plan_of(bundle)[0]), bundle.description)
    assert "Not made" in report.read_text()


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


def raising(error: BaseException):
    def make(_: Synthetic) -> Synthetic:
        raise error

    return make


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: replace(data, inputs=data.inputs.astype(np.float64)), "inputs are float64[5, "),
        (lambda data: replace(data, inputs=data.inputs.astype(object)), "inputs are object[5, "),
        (lambda data: replace(data, inputs=data.inputs.tolist()), "inputs are a list"),
        (lambda data: replace(data, labels=data.labels[:, None]), "labels are int64[5, 1]"),
        (lambda data: replace(data, labels=data.labels.astype(float)), "labels are float64[5]"),
        (lambda data: replace(data, origins=[7] * 5), "origins are not text"),
        (lambda data: replace(data, origins=["\ud800"] * 5), "origins are not text"),
        (lambda data: replace(data, origins=["odd"]), "5 labels and 1 origins"),
        (lambda _: None, "returned a NoneType"),
        (raising(GeneratorError("")), "does not say why"),
        (raising(GeneratorError("\ud800")), "?"),
        (raising(GeneratorError("clears \x1b[2J\u202e the screen")), "clears ?[2J? the screen"),
        (raising(MemoryError()), "MemoryError: the memory is full"),
        (raising(UnspeakableError()), "UnspeakableError"),
        (raising(SystemExit(0)), "SystemExit: 0"),
    ],
)
def test_whatever_a_generator_does_costs_its_own_prompt_alone(bundle, tmp_path, spoil, words):
    class Spoilt(Odd):
        def generate(self, prompts, count, seed):
            data = super().generate(prompts, count, seed)
            return spoil(data) if prompts[0].word == "ant" else data

    notes = made(bundle, tmp_path / "data", Spoilt({}))
    assert [note.made for note in notes] == [0, 5]
    assert words in notes[0].failure
    assert words in (DataFolder(tmp_path / "data", plan_of(bundle)[0]).part(0) or notes[0]).failure


def test_what_is_too_much_is_cut_off_and_what_is_too_little_is_known(bundle, tmp_path):
    class Uncounting(Odd):
        def generate(self, prompts, count, seed):
            return super().generate(prompts, 40 * count if prompts[0].word == "ant" else 2, seed)

    notes = made(bundle, tmp_path / "data", Uncounting({}))
    assert [(note.made, note.missing) for note in notes] == [(5, 0), (2, 3)]
    report = write_report(DataFolder(tmp_path / "data", plan_of(bundle)[0]), bundle.description)
    assert "<li>cat (small): 3 of 5 samples are missing" in report.read_text()


@pytest.mark.parametrize("spoilt", ["labels", "values", "shape", "origins", "number"])
def test_part_that_somebody_changed_is_made_again(bundle, tmp_path, spoilt):
    made(bundle, tmp_path / "data", Odd({}))
    data = DataFolder(tmp_path / "data", plan_of(bundle)[0])
    part = data.part(0)
    changed = {
        "labels": lambda made: replace(made, labels=made.labels + 99),
        "values": lambda made: replace(made, inputs=made.inputs + np.float32(5e29)),
        "shape": lambda made: replace(made, inputs=made.inputs[:, :1]),
        "origins": lambda made: replace(made, origins=[]),
        "number": lambda made: Synthetic(*(np.repeat(each, 2, 0) for each in (made.inputs, made.labels)), ["odd"] * 10),
    }[spoilt]
    data.keep(0, replace(part, data=changed(part.data)))
    again = Odd({})
    assert [note.made for note in made(bundle, tmp_path / "data", again)] == [5, 5]
    assert again.asked == ["ant"]


def test_generator_that_makes_nothing_at_all_ends_in_its_own_words(bundle, tmp_path):
    with pytest.raises(ConfigurationError, match="nothing was synthesised for tiny: no such animal"):
        made(bundle, tmp_path / "data", Odd({"ant": "fails", "cat": "breaks"}))


def test_interrupted_synthesis_goes_on_behind_the_last_part(bundle, tmp_path):
    class Interrupted(Odd):
        def generate(self, prompts, count, seed):
            if prompts[0].word == "cat":
                raise KeyboardInterrupt
            return super().generate(prompts, count, seed)

    with pytest.raises(KeyboardInterrupt):
        made(bundle, tmp_path / "data", Interrupted({}))
    later = Odd({})
    notes = made(bundle, tmp_path / "data", later)
    assert later.asked == ["cat"]
    assert [note.made for note in notes] == [5, 5]


def test_many_samples_of_a_prompt_are_several_parts_of_different_samples(bundle):
    plan, prompts = planned(bundle, combined({"a": (TWO, None)}, PLAN), "odd", 1201, 0)
    assert [order.count for order in plan.orders] == [500, 500, 201] * 2
    assert len({order.seed for order in plan.orders}) == len(prompts) == 6


def test_what_failed_is_tried_again_and_nothing_else(bundle, tmp_path):
    made(bundle, tmp_path / "data", Odd({"ant": "fails"}))
    again = Odd({})
    assert [note.failure for note in made(bundle, tmp_path / "data", again)] == ["", ""]
    assert again.asked == ["ant"]


@pytest.mark.parametrize(
    "damaged",
    [
        b"half a part",
        *(safetensors({"inputs": (dtype, [8], bytes(bits))}, {"origins": "[]"}) for dtype, bits in LACKING.items()),
    ],
    ids=["half", *LACKING],
)
def test_damaged_part_is_made_again(bundle, tmp_path, damaged):
    made(bundle, tmp_path / "data", Odd({}))
    (tmp_path / "data" / "part-00000.safetensors").write_bytes(damaged)
    again = Odd({})
    made(bundle, tmp_path / "data", again)
    assert again.asked == ["ant"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 1}, "made with seed 1, not odd with seed 0"),
        ({"generator": "even"}, "holds what even made with seed 0, not odd with seed 0"),
        ({"task": "beasts"}, "holds data of the task beasts, not tiny"),
        ({"bundle": "0" * 64}, "tiny was published anew since it was made"),
        ({"prompts": "0" * 64}, "devices tell other prompts since it was made, or --count was another"),
    ],
)
def test_folder_of_another_plan_is_refused_with_what_differs(bundle, tmp_path, changed, words):
    DataFolder(tmp_path / "data", msgspec.structs.replace(plan_of(bundle)[0], **changed))
    with pytest.raises(ConfigurationError, match=f"is in use: .*{words}; name another folder, or delete it"):
        made(bundle, tmp_path / "data", Odd({}))


def test_pipe_in_place_of_a_part_or_of_the_plan_is_not_waited_for(bundle, tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("part-00000.safetensors", "plan.json"):
        os.mkfifo(tmp_path / "data" / name)
    assert [note.made for note in made(bundle, tmp_path / "data", Odd({}))] == [5, 5]


def test_folder_whose_plan_is_damaged_is_refused(bundle, tmp_path):
    made(bundle, tmp_path / "data", Odd({}))
    (tmp_path / "data" / "plan.json").write_bytes(b"half a")
    with pytest.raises(ConfigurationError, match=r"plan.json can't be read; name another folder"):
        made(bundle, tmp_path / "data", Odd({}))


def test_folder_that_can_not_be_written_is_named(bundle, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="name a folder that this account may write to"):
        made(bundle, tmp_path / "file" / "data", Odd({}))
