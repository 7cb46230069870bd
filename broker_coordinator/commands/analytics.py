"""`broker-coordinator analytics publish | list | show | stop`: ask devices about their samples."""

import argparse
import secrets
import time
from pathlib import Path

from broker_coordinator.aggregation.analytics.reports import RoundAnswers
from broker_coordinator.aggregation.analytics.results import result
from broker_coordinator.commands.new_query import query_of
from broker_coordinator.commands.output import add_noun, write_fields, write_rows
from broker_coordinator.commands.query_file import read_query_file
from broker_coordinator.configuration import load_configuration
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.query_registry import QueryRegistry, RegisteredQuery
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.command_line import Verbs, name_of
from fleet_protocol.limits import MAX_QUERY_NUMBER

LISTED = ("query", "task", "state", "ask", "field", "round", "answered", "refused")


def add_parser(nouns: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The noun and its verbs."""
    verb = add_noun(nouns, "analytics", "Publish, list, show or stop queries about devices' samples.", *parents)
    publish = verb("publish", "Ask the devices of a task what a file says, as far as their owners allow it.")
    publish.add_argument("file", type=Path, metavar="FILE", help="the query, as docs/analytics.md describes it")
    verb("list", "List all queries.")
    show = verb("show", "Show what a query has found, and why devices gave no answer.")
    show.add_argument("name", type=name_of("query"), metavar="NAME", help="the query's name")
    stop = verb("stop", "Ask nobody any more; what was answered stays.")
    stop.add_argument("name", type=name_of("query"), metavar="NAME", help="the query's name")


def run(options: argparse.Namespace) -> None:
    """Run the verb; a running coordinator notices within a second."""
    configuration = load_configuration(options.config)
    opened = Journal.open_to_look if options.action in {"list", "show"} else Journal.open
    with opened(configuration.journal()) as journal:
        registry = QueryRegistry(journal.engine)
        match options.action:
            case "list":
                rows = [_described(each, registry.answers(each)) for each in registry.all()]
                write_rows(rows, LISTED, as_json=options.json, when_empty="no query yet; analytics publish FILE")
                return
            case "publish":
                file = read_query_file(options.file)
                description = TaskRegistry(journal.engine).bundle(file.task).description
                stored = query_of(file, description, 1 + secrets.randbelow(MAX_QUERY_NUMBER))
                registry.publish(file.task, stored, int(time.time()))
                found = registry.named(file.name)
            case "stop":
                found = registry.stop(options.name)
            case _:
                found = registry.named(options.name)
        write_fields(_shown(found, registry.answers(found)), as_json=options.json)


def _described(registered: RegisteredQuery, answers: RoundAnswers) -> dict[str, object]:
    query = registered.query
    return {
        "query": query.name,
        "task": registered.task,
        "state": registered.state.value,
        "ask": query.ask,
        "field": query.field,
        "round": f"{query.round + 1} of {query.rounds}",
        "answered": len(answers.answered),
        "refused": sum(answers.refusals.values()),
    }


def _shown(registered: RegisteredQuery, answers: RoundAnswers) -> dict[str, object]:
    query = registered.query
    row = _described(registered, answers) | {
        "epsilon": query.epsilon,
        "minimum_devices": query.minimum_devices,
        "refusals": dict(answers.refusals),
    }
    return row | result(registered.stored, registered.state, answers)
