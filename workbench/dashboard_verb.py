"""`edgeflock dashboard`: a coordinator's pages, whether it runs or not."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from fleet_host.broker_settings import MAX_PORT
from workbench.coordinator_database import database_errors_told


def dashboard(
    *,
    config: Annotated[Path, typer.Option(metavar="FILE", help="coordinator.toml, whose database is shown.")],
    port: Annotated[
        int, typer.Option(metavar="N", help="The TCP port; 0 takes one that is free.", min=0, max=MAX_PORT)
    ] = 0,
) -> None:
    """Look at a coordinator's tasks, devices and versions in a browser, whether it runs or not; changes nothing."""
    from broker_coordinator.configuration import load_configuration  # noqa: PLC0415 - needs SQLAlchemy
    from broker_coordinator.dashboard.program import look  # noqa: PLC0415 - needs the extra `dashboard`
    from fleet_host.log_lines import configure_logging  # noqa: PLC0415

    configure_logging()
    with database_errors_told():
        asyncio.run(look(load_configuration(config), port, _say))


def _say(address: str) -> None:
    print(f"{address} (Ctrl-C ends it)", flush=True)
