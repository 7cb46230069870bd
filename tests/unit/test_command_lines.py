"""Every command says what it is and what its verbs do; options may stand before or after the verb."""

import argparse
import re
import tomllib
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest

from broker_coordinator import cli as coordinator_cli
from edge_agent import cli as agent_cli
from fleet_host.extras import EXIT_MISSING, EXTRA_OF, missing_extra_named
from fleet_protocol.keys import key_id, read_signing_key, write_verify_key
from fleet_protocol.limits import MAX_NAMED_GENERATION
from tests.support.completions import FOLDER, PARSERS, walk
from workbench.cli import app

ROOT = Path(__file__).parents[2]
PACKAGE_OF = {"prometheus_client": "prometheus-client", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Where a module's name is not that of its distribution."""
BROUGHT_BY = {"onnx_ir": "onnxscript"}

PLACES = [
    ["--config", "c.toml", "devices", "--json", "show", "pi"],
    ["devices", "--config", "c.toml", "--json", "show", "pi"],
    ["--config", "c.toml", "devices", "show", "pi", "--json"],
    ["devices", "show", "pi", "--json", "--config", "c.toml"],
]


@pytest.mark.parametrize("words", PLACES, ids=" ".join)
def test_options_may_stand_before_or_after_the_verb(words):
    options = coordinator_cli.parser().parse_args(words)
    assert (options.config, options.json, options.name) == (Path("c.toml"), True, "pi")


def test_option_that_stands_twice_counts_where_it_stands_last():
    assert agent_cli.parser().parse_args(["--config", "a", "run", "--config", "b"]).config == Path("b")


@pytest.mark.parametrize(
    ("program", "unit"), [("edge-agent", "edge-agent.service"), ("broker-coordinator", "broker-coordinator.service")]
)
def test_configuration_that_is_not_named_is_the_one_of_the_unit(program, unit):
    options = PARSERS[program].parse_args(["run"])
    assert f"run --config {options.config}\n" in (ROOT / "systemd" / unit).read_text()


def test_result_is_for_people_unless_json_is_asked_for():
    assert not coordinator_cli.parser().parse_args(["tasks", "list"]).json


TOO_LARGE = [str(2**63), "9" * 23, "9" * 5000, "-1", "-" + "9" * 23, "1.5", "five", ""]
ALLOWED = re.compile(r"is not a whole number from (\d+) to (\d+)$")


def number_arguments() -> list[tuple[str, argparse.Action]]:
    found = [pair for program in PARSERS.values() for pair in walk(program)]
    return [
        (parser.prog, action) for parser, action in found if action.type not in (None, Path) and not is_name(action)
    ]


def is_name(action: argparse.Action) -> bool:
    return action.dest in ("name", "task", "shard", "release", "drop")


@pytest.mark.parametrize(
    "action", [pytest.param(action, id=f"{verb} {action.dest}") for verb, action in number_arguments()]
)
def test_number_on_the_command_line_that_no_database_holds_is_refused_with_the_limits(action):
    for text in TOO_LARGE:
        with pytest.raises(argparse.ArgumentTypeError, match=ALLOWED) as refused:
            action.type(text)
        assert len(str(refused.value)) < 120
    least, most = map(int, ALLOWED.search(str(refused.value)).groups())
    assert (action.type(str(least)), action.type(str(most))) == (least, most)
    assert most < 2**63


LAST_WORDS = [
    (["tasks", "rollback", "digits", "9" * 23], "argument VERSION: "),
    (["tasks", "show", "digits", "--last", "9" * 23], "argument --last: "),
    (["tasks", "verify", "digits", "--from", str(2**63)], "argument --from: "),
    (["tasks", "export", "digits", "out", "--version", "-1"], "argument --version: "),
    (["tasks", "evaluate", "digits", "--version", "9" * 23], "argument --version: "),
    (["tasks", "renew", "digits", "--after-generation", "-5"], "argument --after-generation: "),
    (["tasks", "renew", "digits", "--after-generation", str(MAX_NAMED_GENERATION + 1)], f" to {MAX_NAMED_GENERATION}"),
    (["setup", "--broker", "here", "--port", "65536"], "from 1 to 65535"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), LAST_WORDS)
def test_number_out_of_its_limits_ends_with_2_and_one_line_that_names_the_argument(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        coordinator_cli.main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "is not a whole number from" in line


@pytest.mark.parametrize("name", ["Digits", "", "a" * 49, "k\udcff"])
@pytest.mark.parametrize(
    "words",
    [["tasks", "show"], ["tasks", "evaluate"], ["devices", "show"], ["devices", "revoke"], ["devices", "approve"]],
)
def test_name_that_no_device_and_no_task_has_ends_with_2_and_one_line(words, name, capsys):
    with pytest.raises(SystemExit) as ended:
        coordinator_cli.main([*words, name])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{words[0][:-1]} name {name!r} must be 1 to 48 characters of a-z, 0-9, '-' and '_'" in line


def test_every_number_of_edgeflock_has_both_limits():
    found = 0
    for verb in app.registered_commands:
        for name, hint in get_type_hints(verb.callback, include_extras=True).items():
            kind, option = get_args(hint) if get_origin(hint) is Annotated else (hint, None)
            if kind in (int, int | None):
                assert option.min is not None, (verb.callback, name)
                assert option.max < 2**63, (verb.callback, name)
                found += 1
    assert found >= 9


@pytest.mark.parametrize("program", PARSERS)
def test_version_is_told(program, capsys):
    with pytest.raises(SystemExit) as ended:
        PARSERS[program].parse_args(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(rf"{program} \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize("program", PARSERS)
def test_every_verb_is_a_sentence_and_every_argument_has_words(program):
    for parser, action in walk(PARSERS[program]):
        assert re.fullmatch(r"[A-Z].*\.", parser.description or ""), parser.prog
        if isinstance(action, argparse._SubParsersAction):
            assert {verb.dest for verb in action._choices_actions} == set(action.choices)
            continue
        assert action.help, (parser.prog, action.dest)
        assert action.nargs == 0 or action.metavar == action.metavar.upper(), (parser.prog, action.dest)


def test_every_verb_of_the_agent_has_its_exit_statuses_in_the_guide():
    table = (ROOT / "docs" / "agent.md").read_text().split("| command | ends with 0 |")[1].split("\n\n")[0]
    (verbs,) = (each for each in PARSERS["edge-agent"]._actions if isinstance(each, argparse._SubParsersAction))
    listed = {words.split()[0] for words in re.findall(r"`([^`]+)`", table)}
    assert set(verbs.choices) <= listed


def test_every_verb_of_the_coordinator_is_in_the_operators_guide():
    text = (ROOT / "docs" / "operating.md").read_text()
    for parser, action in walk(PARSERS["broker-coordinator"]):
        noun = parser.prog.removeprefix("broker-coordinator").strip()
        if noun and isinstance(action, argparse._SubParsersAction):
            assert [verb for verb in action.choices if f"`{noun} {verb}" not in text] == []


@pytest.mark.parametrize("program", PARSERS)
def test_completion_knows_every_verb_and_option_and_no_other(program):
    """Made by: python -m tests.support.completions."""
    text = (FOLDER / f"{program}.bash").read_text()
    found: dict[str, set[str]] = {}
    for name, words in re.findall(r"^_shtab_(\w+?)_(?:subparsers|option_strings)=\(([^)]*)\)", text, re.MULTILINE):
        found.setdefault(name, set()).update(words.split())
    wanted: dict[str, set[str]] = {}
    for parser, action in walk(PARSERS[program]):
        words = action.choices if isinstance(action, argparse._SubParsersAction) else action.option_strings
        wanted.setdefault(re.sub(r"\W", "_", parser.prog), set()).update(words)
    assert found == wanted


def test_key_is_told_with_its_id(tmp_path, capsys):
    file = tmp_path / "agent.key"
    agent_cli.main(["keygen", str(file)])
    public = read_signing_key(file.read_text(), "agent.key").verify_key
    assert capsys.readouterr().out == write_verify_key(public) + "\n"
    said = f"public key  {write_verify_key(public)}\nkey id      {key_id(public).hex()}\n"
    agent_cli.main(["key", str(file)])
    assert capsys.readouterr().out == said
    assert coordinator_cli.main(["key", str(file)]) == 0
    assert capsys.readouterr().out == said


def test_key_of_the_configuration_is_told_without_naming_its_file(tmp_path, capsys):
    agent_cli.main(["keygen", str(tmp_path / "coordinator.key")])
    public = capsys.readouterr().out
    configuration = tmp_path / "coordinator.toml"
    configuration.write_text('fleet = "home"\nkey_file = "coordinator.key"\ndatabase = "d"\n[broker]\nhost = "h"\n')
    assert coordinator_cli.main(["key", "--config", str(configuration)]) == 0
    assert public in capsys.readouterr().out


def test_keygen_tells_the_public_key_that_is_there_already(tmp_path, capsys):
    file = tmp_path / "agent.key"
    agent_cli.main(["keygen", str(file)])
    public = capsys.readouterr().out.strip()
    with pytest.raises(SystemExit) as ended:
        agent_cli.main(["keygen", str(file)])
    assert ended.value.code == 2
    assert f"never overwritten: use it, its public key is {public}" in capsys.readouterr().err


def test_every_optional_package_has_the_extra_that_brings_it():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = {
        extra: {re.match(r"[\w.-]+", each)[0].lower() for each in packages if "edgeflock[" not in each}
        for extra, packages in extras.items()
    }
    for module, extra in EXTRA_OF.items():
        package = PACKAGE_OF.get(module, BROUGHT_BY.get(module, module))
        assert package in brought[extra], module
    optional = set().union(*(brought[extra] for extra in ("coordinator", "postgresql", "demo", "workbench")))
    assert optional <= {PACKAGE_OF.get(module, module) for module in EXTRA_OF}


def test_missing_optional_package_is_one_line_with_the_command(capsys):
    with pytest.raises(SystemExit) as ended, missing_extra_named("broker-coordinator"):
        raise ModuleNotFoundError("No module named 'sqlalchemy.orm'", name="sqlalchemy.orm")
    assert ended.value.code == EXIT_MISSING
    said = capsys.readouterr().err
    assert said.startswith("broker-coordinator: sqlalchemy is not installed")
    assert "pip install 'edgeflock[coordinator]'" in said
    assert said.count("\n") == 1


def test_missing_module_of_ours_stays_a_defect_with_its_traceback():
    with pytest.raises(ModuleNotFoundError), missing_extra_named("edgeflock"):
        raise ModuleNotFoundError("No module named 'fleet_protocol.nothing'", name="fleet_protocol.nothing")
