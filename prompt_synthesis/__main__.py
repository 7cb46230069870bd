"""`python -m prompt_synthesis CONFIG JOB`: what `broker-coordinator generate` starts; the job is JSON."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import msgspec

from broker_coordinator.commands.generate import GenerateJob
from broker_coordinator.commands.output import write_fields
from broker_coordinator.configuration import PROGRAM, load_configuration
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.journal import Journal
from fleet_host.command_line import write_error
from fleet_host.log_lines import configure_logging
from fleet_protocol.errors import ConfigurationError, ProtocolError
from prompt_synthesis.folder_lock import alone_in
from prompt_synthesis.worker import run_job

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one job. Returns 0, or 2 for an error that the operator can correct."""
    file, text = sys.argv[1:] if arguments is None else arguments
    configure_logging()
    try:
        job = msgspec.json.decode(text, type=GenerateJob)
        configuration = load_configuration(Path(file))
        folder = Path(job.folder)
        with Journal.open(configuration.journal()) as journal, alone_in(folder), redirect_stdout(sys.stderr):
            told = run_job(job, journal, configuration.keys())  # in which a generator may print; stdout is the answer
        write_fields(told, as_json=job.json)
    except (ConfigurationError, ProtocolError, JournalUnavailableError) as error:
        write_error(PROGRAM, error)
        return 2
    except MemoryError:
        sys.stderr.write(f"{PROGRAM}: the memory is full; ask for a smaller --count, or give the machine more memory\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{PROGRAM}: interrupted; the same command goes on where it was\n")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
