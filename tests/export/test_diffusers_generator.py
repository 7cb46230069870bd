"""Pictures by a tiny text-to-image pipeline with random weights, which is made and saved here."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import InputSchema
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.generators import make_generator
from prompt_synthesis.prompt import Prompt
from tests.support.prompts import bundle_with_prompts

START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    # Here, as both take seconds to import: of the processes that collect tests, one makes a pipeline.
    from diffusers import (  # noqa: PLC0415
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    characters = [chr(number) for number in range(33, 127)]
    vocabulary = [*characters, *(f"{each}</w>" for each in characters), START, END]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    made = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **blocks
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=len(vocabulary) - 2,
                eos_token_id=len(vocabulary) - 1,
                pad_token_id=len(vocabulary) - 1,
            )
        ),
        tokenizer=CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77),
        unet=UNet2DConditionModel(
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=2,
            **blocks,
        ),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(folder / "saved", safe_serialization=True)
    return folder / "saved"


def task_of(folder: Path, shape: list[int]) -> TaskDescription:
    return msgspec.structs.replace(bundle_with_prompts(folder).description, input=InputSchema(shape, -1.0, 1.0))


@pytest.mark.parametrize("shape", [[1, 12, 10], [3, 8, 8]])
def test_pictures_fit_the_task_and_are_the_same_for_the_same_seed(pipeline, tmp_path, shape):
    generator = make_generator(f"diffusers:{pipeline}", task_of(tmp_path, shape))
    prompts = [Prompt(2, "cat", "on a sofa steps=2", 1)]
    data = generator.generate(prompts, 5, seed=3)
    assert data.inputs.shape == (5, *shape)
    assert data.labels.tolist() == [2] * 5
    assert -1 <= data.inputs.min() < data.inputs.max() <= 1
    assert data.origins[0] == "cat, on a sofa steps=2"
    np.testing.assert_array_equal(generator.generate(prompts, 5, seed=3).inputs, data.inputs)
    assert (generator.generate(prompts, 5, seed=4).inputs != data.inputs).any()


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.bin", "pipeline.py", "vae/model.ckpt"])
def test_folder_with_code_or_pickles_is_refused_before_anything_is_loaded(pipeline, tmp_path, name):
    file = pipeline / name
    file.write_bytes(b"")
    try:
        with pytest.raises(ConfigurationError, match="would be run or unpickled"):
            make_generator(f"diffusers:{pipeline}", task_of(tmp_path, [1, 8, 8]))
    finally:
        file.unlink()


@pytest.mark.parametrize("argument", ["", ":", ":/nowhere"])
def test_folder_without_a_pipeline_is_refused_with_how_to_name_one(tmp_path, argument):
    with pytest.raises(ConfigurationError, match="--generator diffusers:FOLDER"):
        make_generator(f"diffusers{argument}", task_of(tmp_path, [1, 8, 8]))


def test_pipeline_that_is_damaged_is_said(pipeline, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "model_index.json").write_bytes((pipeline / "model_index.json").read_bytes())
    with pytest.raises(ConfigurationError, match="no pipeline that can be loaded"):
        make_generator(f"diffusers:{damaged}", task_of(tmp_path, [1, 8, 8]))


def test_task_without_pictures_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"tiny takes \[8\]"):
        make_generator("diffusers:/nowhere", task_of(tmp_path, [8]))
