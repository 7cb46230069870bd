"""Pictures by a text-to-image pipeline in a folder of this machine: nothing is fetched, unpickled or run from it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.generator import Generator, GeneratorError, Synthetic
from prompt_synthesis.prompt import Prompt
from prompt_synthesis.style import Style

INDEX_FILE: Final = "model_index.json"
NOT_TAKEN: Final = (".py", ".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack", ".h5")
"""Code, and weights that are unpickled; what a pipeline needs is there as safetensors, JSON and text."""
AT_ONCE: Final = 4
"""Pictures of one call."""
USUAL_STEPS: Final = 30
CHANNELS: Final = (1, 3)


class Diffusers:
    """Of a task whose samples are pictures [channels, height, width], with values from `darkest` to `brightest`."""

    def __init__(self, pipeline: Any, shape: tuple[int, int, int], darkest: float, brightest: float) -> None:
        self._pipeline = pipeline
        self._shape = shape
        self._range = darkest, brightest

    def generate(self, prompts: Sequence[Prompt], count: int, seed: int) -> Synthetic:
        """As `Generator.generate`: the text is the class's word, and the style behind it."""
        pictures, labels, origins = [], [], []
        for place, prompt in enumerate(prompts):
            text = f"{prompt.word}, {prompt.style}" if prompt.style else prompt.word
            for start in range(0, count, AT_ONCE):
                made = self._drawn(text, Style(prompt.style), min(AT_ONCE, count - start), [seed, place, start])
                pictures += made
                labels += [prompt.label] * len(made)
                origins += [text] * len(made)
        return Synthetic(np.stack(pictures), np.array(labels), origins)

    def _drawn(self, text: str, style: Style, count: int, seeds: Sequence[int]) -> list[NDArray[np.float32]]:
        import torch  # noqa: PLC0415 - the extra `diffusers` brings it

        seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
        steps = round(style.number("steps", 1, 200) or USUAL_STEPS)
        try:
            drawn = self._pipeline(
                prompt=[text] * count,
                num_inference_steps=steps,
                generator=torch.Generator().manual_seed(seed),
                output_type="np",
            ).images
        except (RuntimeError, ValueError, IndexError) as error:
            raise GeneratorError(f"the pipeline draws nothing of {text!r}: {error}") from error
        darkest, brightest = self._range
        fitted = [_fitted(picture, self._shape) for picture in drawn]
        return [(darkest + (brightest - darkest) * picture).astype(np.float32) for picture in fitted]


def _fitted(picture: NDArray[np.floating[Any]], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """A picture [H, W, 3] from 0 to 1 in the shape of a sample: grey or coloured, at its size."""
    from PIL import Image  # noqa: PLC0415 - the extra `diffusers` brings it

    channels, height, width = shape
    image = Image.fromarray(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8))
    sized = np.asarray(image.convert("L" if channels == 1 else "RGB").resize((width, height)), np.float32)
    fitted: NDArray[np.float32] = (sized / np.float32(255)).reshape(height, width, channels).transpose(2, 0, 1)
    return fitted


def make(task: TaskDescription, argument: str) -> Generator:
    """For a task whose samples are pictures; `argument` is the pipeline's folder.

    Raises:
        ConfigurationError: the samples are none, the folder holds no pipeline that may be loaded, or the extra lacks.
    """
    shape = tuple(task.input.shape)
    if task.inputs or len(shape) != 3 or shape[0] not in CHANNELS:
        raise ConfigurationError(
            f"the generator diffusers draws pictures [1 or 3, height, width]; {task.task} takes {task.input.shape};"
            " name another generator"
        )
    folder = Path(argument)
    if not argument or not (folder / INDEX_FILE).is_file():
        raise ConfigurationError(
            f"the generator diffusers needs the folder of a pipeline, with {INDEX_FILE} in it, and {argument or 'none'}"
            " is given; name it: --generator diffusers:FOLDER"
        )
    if unsafe := sorted(file.name for file in folder.rglob("*") if file.suffix in NOT_TAKEN):
        raise ConfigurationError(
            f"{folder} holds {unsafe[0]}, which would be run or unpickled; save the pipeline with"
            " safe_serialization=True, and delete what is neither safetensors, JSON nor text"
        )
    channels, height, width = shape
    return Diffusers(_loaded(folder), (channels, height, width), task.input.minimum, task.input.maximum)


def _loaded(folder: Path) -> Any:
    os.environ |= {"HF_HUB_OFFLINE": "1", "DISABLE_TELEMETRY": "YES"}  # read on import
    try:
        from diffusers import DiffusionPipeline  # noqa: PLC0415 - the extra `diffusers` brings it
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the generator diffusers lacks {error.name}: pip install 'edgeflock[diffusers]'"
        ) from None
    try:
        pipeline = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise ConfigurationError(f"{folder}: no pipeline that can be loaded: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
