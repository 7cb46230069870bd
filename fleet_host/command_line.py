"""What the commands of devices, helpers and coordinator share: their options, and the verbs for keys."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn, TypeAlias

from fleet_host.broker_settings import MAX_PORT
from fleet_host.key_files import make_key_file
from fleet_host.program_folder import BrokerAnswers
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import VerifyKey, key_id, write_verify_key
from fleet_protocol.printable import printable
from fleet_protocol.topics import check_name

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DISTRIBUTION = "edgeflock"
EXIT_CONFIGURATION = 2
READER_LEFT = 141
"""Exit status of what SIGPIPE would have ended, as shells have it."""
MAX_SHOWN_CHARACTERS = 40
"""Of a value in an error."""


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """End with `EXIT_CONFIGURATION`."""
        self.exit(EXIT_CONFIGURATION, f"{self.prog}: {message}; see {self.prog} --help\n")


def program_parser(program: str, description: str, configuration: Path) -> argparse.ArgumentParser:
    """The parser of a whole program, with `--version` and `--config`, which is `configuration` where not given."""
    parser = OneLineParser(prog=program, description=description)
    parser.add_argument("--version", action="version", version=f"{program} {version(DISTRIBUTION)}")
    _add_configuration(parser, f"the configuration file ({configuration})", configuration)
    return parser


def configuration_option() -> argparse.ArgumentParser:
    """A parent of verbs that read the configuration file: `--config` may stand before or after them."""
    parent = argparse.ArgumentParser(add_help=False)
    _add_configuration(parent, "the configuration file", argparse.SUPPRESS)
    return parent


def add_verb(verbs: Verbs, name: str, sentence: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add a verb; `sentence` says what it does, in its own help and in the list of verbs."""
    return verbs.add_parser(name, parents=parents, help=sentence, description=sentence)


def add_key_verbs(verbs: Verbs, made_for: str, *parents: argparse.ArgumentParser) -> None:
    """Add `keygen` and `key`; `made_for` says whose key it is."""
    keygen = add_verb(verbs, "keygen", f"Make {made_for} and print its public half. An existing key is kept.")
    keygen.add_argument("file", type=Path, metavar="FILE", help="the private key file to write, readable by you alone")
    key = add_verb(verbs, "key", f"Print the public half of {made_for}, and the key's id.", *parents)
    key.add_argument("file", type=Path, metavar="FILE", nargs="?", help="the private key file (the one configured)")


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            shown = f"{text[:MAX_SHOWN_CHARACTERS]!r}"
            raise argparse.ArgumentTypeError(f"{shown} is not a whole number from {least} to {most}")
        return number

    return read


def name_of(what: str) -> Callable[[str], str]:
    """The type of an argument that is the name of a device or a task."""

    def read(text: str) -> str:
        try:
            return check_name(what, text)
        except ProtocolError as error:
            raise argparse.ArgumentTypeError(error.detail) from None

    return read


def add_broker_options(verb: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The options that `broker_answers` reads; `required`: a broker has to be named."""
    verb.add_argument("--fleet", default="home", metavar="NAME", help="the fleet's name (home)")
    verb.add_argument(
        "--broker", required=required, metavar="HOST", help="the broker's name or address, as its certificate has it"
    )
    verb.add_argument(
        "--port",
        type=whole_number(1, MAX_PORT),
        metavar="N",
        help="the broker's port (8883, or 1883 without certificates)",
    )
    verb.add_argument(
        "--certificates", type=Path, metavar="FOLDER", help="what certificates.sh wrote (without: no TLS)"
    )


def broker_answers(options: argparse.Namespace) -> BrokerAnswers:
    """What the command line says about the broker."""
    return BrokerAnswers(options.broker, options.port, options.certificates)


@contextmanager
def output_that_may_end() -> Iterator[None]:
    """End the program quietly, with `READER_LEFT`, where whoever reads its output has left, as `head` does."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it ends
        sys.exit(READER_LEFT)


def write_error(program: str, error: Exception) -> None:
    """Say on standard error what is wrong, in lines that hold nothing for a terminal to act on: an error may quote what
    somebody else wrote.
    """
    lines = "\n".join(map(printable, str(error).split("\n")))
    sys.stderr.write(f"{program}: {lines}\n")


def run_verb(program: str, verb: Callable[[], None]) -> None:
    """Do what a command line says. A configuration error, alone or in a group, is one line and exit code 2."""
    refused: list[Exception] = []
    with output_that_may_end():
        try:
            verb()
        except* ConfigurationError as group:
            refused += _leaves(group)
    for error in refused:  # not in the handler: what is raised there comes out in a group
        write_error(program, error)
    if refused:
        sys.exit(EXIT_CONFIGURATION)


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def write_at_once(text: str) -> None:
    """Write it to standard output, where another program may read it through a pipe."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_line(line: str) -> None:
    """Write a line at once."""
    write_at_once(f"{line}\n")


def print_new_key(file: Path, program: str) -> None:
    """Make a key file and print the public key.

    Raises:
        ConfigurationError: it exists, and stays as it is; or it can't be written.
    """
    sys.stdout.write(write_verify_key(make_key_file(file, program)) + "\n")


def print_key(public: VerifyKey) -> None:
    """Print a public key and its id."""
    sys.stdout.write(f"public key  {write_verify_key(public)}\nkey id      {key_id(public).hex()}\n")


def _add_configuration(parser: argparse.ArgumentParser, words: str, default: Path | str) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", default=default, help=words)
