"""What participants have trained, as files that `edgeflock generate --weights` draws with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.split_gans.trainee import Training
from fleet_protocol.codec import write_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.parameter import Parameter


def run_name(method: str, scenario: str, training: Training) -> str:
    """A folder's, other for every run of a contest."""
    order = "-lockstep" if training.lockstep else ""
    noise = f"-noise{training.noise:g}" if training.noise else ""
    return f"{method}-{scenario}-{training.seed}-{training.learning_rate:g}-{training.wire}{noise}{order}"


def keep(folder: Path, weights: Mapping[str, FloatVector], parameters: Sequence[Parameter]) -> None:
    """A file of weights f32[P] for each pair that differs, named after the first participant that has it.

    Raises:
        FileExistsError: the folder is there already.
    """
    folder.mkdir(parents=True)
    owners: dict[bytes, str] = {}
    for name, flat in weights.items():
        content = write_weights(flat, parameters)
        if owners.setdefault(content, name) == name:
            (folder / f"{name}.safetensors").write_bytes(content)
