"""Which extra of edgeflock brings an optional package, for whoever runs a command without it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

EXIT_MISSING = 2

EXTRA_OF: Mapping[str, str] = {
    "prometheus_client": "coordinator",
    "sqlalchemy": "coordinator",
    "segno": "qr",
    "psycopg": "postgresql",
    "tenseal": "homomorphic",
    "starlette": "dashboard",
    "uvicorn": "dashboard",
    "amqtt": "demo",
    "rich": "demo",
    "sklearn": "demo",
    "typer": "demo",
    "yaml": "demo",
    "ray": "ray",
    "threadpoolctl": "ray",
    "onnx": "workbench",
    "onnx_ir": "workbench",
    "onnxscript": "workbench",
    "torch": "workbench",
}
"""A package that may be imported, and the smallest extra that installs it."""

OPTIONS_OF: Mapping[str, str] = {"workbench": " --extra-index-url https://download.pytorch.org/whl/cpu"}
"""PyTorch's wheels for the CPU: those of PyPI bring gigabytes of CUDA."""


@contextmanager
def missing_extra_named(program: str) -> Iterator[None]:
    """Ends the program, with one line, where the block imports a package that only an extra brings.

    Raises:
        SystemExit: with `EXIT_MISSING`; the line is on standard error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA_OF:
            raise
        extra = EXTRA_OF[missing]
        options = OPTIONS_OF.get(extra, "")
        sys.stderr.write(
            f"{program}: {missing} is not installed, the extra {extra!r} brings it: pip install 'edgeflock[{extra}]'"
            f"{options} (in a checkout: pip install '.[{extra}]'{options})\n"
        )
        raise SystemExit(EXIT_MISSING) from None
