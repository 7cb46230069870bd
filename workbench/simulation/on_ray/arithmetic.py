"""What the bits of a result depend on besides its input: a sum has another last bit in another order."""

import platform
from importlib.metadata import version

import msgspec
import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from bundle_runtime.graph import ONNXRUNTIME_VERSION
from fleet_host.command_line import DISTRIBUTION
from fleet_protocol.errors import ConfigurationError

_BLAS = "blas"


class Arithmetic(msgspec.Struct, frozen=True):
    """Of one process. `processor` is what its linear algebra takes it for; `threads` are those over which numpy spreads
    a long sum, which decides in which order it adds.
    """

    edgeflock: str
    python: str
    numpy: str
    onnxruntime: str
    processor: str
    threads: int

    def adopt(self) -> None:
        """Compute in this process as in the one that this is of.

        Raises:
            ConfigurationError: it can't; says what differs.
        """
        threadpool_limits(self.threads, user_api=_BLAS)
        here = arithmetic()
        for name in self.__struct_fields__:
            wanted, found = getattr(self, name), getattr(here, name)
            if wanted != found:
                raise ConfigurationError(
                    f"--ray: a worker on {platform.node()} has {name} {found}, and the simulation {wanted}: their"
                    " results would not be the same; make them alike, or take another cluster"
                )


def arithmetic() -> Arithmetic:
    """That of this process."""
    found = [each for each in threadpool_info() if each["user_api"] == _BLAS and "numpy" in each["filepath"]]
    kernels = [f"{each['internal_api']} {each.get('architecture', '')}".strip() for each in found]
    return Arithmetic(
        version(DISTRIBUTION),
        platform.python_version(),
        np.__version__,
        ONNXRUNTIME_VERSION,
        " ".join([platform.machine(), *kernels]),
        max((each["num_threads"] for each in found), default=1),
    )
