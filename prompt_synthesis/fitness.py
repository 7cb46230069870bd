"""Whether what a generator made is training data of a task, and what is said of it where it is not."""

from typing import Final

import numpy as np

from bundle_runtime.sample_checks import find_misfits
from fleet_protocol.printable import printable
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.generator import GeneratorError, Synthetic

MOST_FAILURE_CHARACTERS: Final = 300


def failure_of(error: BaseException) -> str:
    """What a generator's error says, in text that can be written anywhere; never empty."""
    try:
        said = str(error)
    except Exception:  # somebody else's class of errors
        said = ""
    if isinstance(error, MemoryError):
        said = "the memory is full; give the machine more, or ask for less"
    kind = "" if isinstance(error, GeneratorError) else type(error).__name__
    text = ": ".join(filter(None, (kind, said))) or "the generator does not say why it fails"
    return printable(text)[:MOST_FAILURE_CHARACTERS]


def why_unfit(data: object, label: int, task: TaskDescription) -> str:
    """Why the task can't take what is to be samples of one class; empty where it can."""
    if not isinstance(data, Synthetic):
        return f"the generator has returned a {type(data).__name__}, not a Synthetic"
    return _why_not_arrays(data) or _why_not_samples(data, label, task)


def _why_not_arrays(data: Synthetic) -> str:
    if not (isinstance(data.inputs, np.ndarray) and data.inputs.dtype == np.float32):
        return f"the generator's inputs are {_kind(data.inputs)}; float32 is wanted"
    if not (isinstance(data.labels, np.ndarray) and data.labels.dtype.kind in "iu" and data.labels.ndim == 1):
        return f"the generator's labels are {_kind(data.labels)}; int64[N] is wanted"
    if not all(isinstance(origin, str) and _is_writable(origin) for origin in data.origins):
        return "the generator's origins are not text"
    return ""


def _why_not_samples(data: Synthetic, label: int, task: TaskDescription) -> str:
    schema = task.trained_input if data.features else task.input
    if not len(data.labels):
        return "the generator has made nothing of it"
    if data.inputs.shape != (len(data.labels), *schema.shape) or len(data.origins) != len(data.labels):
        return (
            f"the generator has made {list(data.inputs.shape)} with {len(data.labels)} labels and {len(data.origins)}"
            f" origins; {task.task} takes {['N', *schema.shape]} with N of each"
        )
    if (data.labels != label).any():
        return f"the generator has made other classes than {label}"
    fields = task.each_trained_input if data.features else task.each_input
    if misfits := find_misfits(data.inputs, data.labels[:, None], fields, task):
        return f"the generator has made what the task does not take: {misfits.reason}"
    return ""


def _kind(values: object) -> str:
    return f"{values.dtype}{list(values.shape)}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"


def _is_writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
