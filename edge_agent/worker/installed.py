"""Whether the package that a training engine runs on is installed, without importing it."""

from importlib.util import find_spec
from pathlib import Path

from edge_agent.worker.contract import EngineName
from fleet_protocol.errors import ConfigurationError

STOCK = "onnxruntime"
TRAINING = "onnxruntime-training-cpu"
TRAINING_VERSION = "1.19.2"


def check_installed(engine: EngineName) -> None:
    """Both packages install a module named onnxruntime, so whichever came last has overwritten parts of the other.

    Raises:
        ConfigurationError: what to install or remove.
    """
    stock, training = _installed(STOCK), _installed(TRAINING)
    if stock and training:
        raise ConfigurationError(
            f"{STOCK} {stock} and {TRAINING} {training} overwrite each other's files; for engine {engine!r}:"
            f" pip uninstall {STOCK} {TRAINING}, then pip install {_wanted(engine)}"
        )
    if not training and (engine == "ort-training" or not stock):
        raise ConfigurationError(
            f"[worker] engine = {engine!r} needs {_wanted(engine)}, installed is"
            f" {f'{STOCK} {stock}' if stock else 'neither it nor ' + STOCK}"
            + ("; see docs/training-engines.md, or choose engine = 'onnx-step'" if engine == "ort-training" else "")
        )


def _wanted(engine: EngineName) -> str:
    return f"{TRAINING}=={TRAINING_VERSION}" if engine == "ort-training" else STOCK


def _installed(package: str) -> str:
    """Its version; empty if it is not there. `importlib.metadata` knows too, and takes a tenth of a round to import."""
    spec = find_spec("onnxruntime")
    prefix = package.replace("-", "_") + "-"
    if spec is None or spec.origin is None:
        return ""
    found = sorted(path.name for path in Path(spec.origin).parents[1].glob(f"{prefix}[0-9]*.dist-info"))
    return found[0].removeprefix(prefix).removesuffix(".dist-info") if found else ""
