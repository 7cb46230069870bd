"""Reports to queries: checks that one answers an open query, in its present round, as a device can. Pure."""

from collections.abc import Sequence

from broker_coordinator.admission.consumer import Admitted, AnswerConsumer, Offered
from broker_coordinator.aggregation.analytics.reports import ReportFacts
from fleet_protocol.analytics.answers import check_report
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import ANALYTICS_REPORT, AnalyticsReport
from fleet_protocol.task_description import TaskDescription


def admit(offered: Offered[AnalyticsReport]) -> Admitted[ReportFacts, ReportFacts]:
    """Check a report against its query, which holds it from then on.

    Raises:
        ProtocolError: the query is not open, or no honest device answers so.
    """
    report = offered.payload
    query = offered.queries.get(report.query)
    if query is None:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"query {report.query} about {offered.task.task} is not open")
    check_report(query, report)
    facts = ReportFacts(report.query, report.round, report.outcome, report.numbers, report.word)
    return Admitted(facts, facts, held_by=query.number)


def _item(_: Offered[AnalyticsReport], facts: ReportFacts) -> ReportFacts:
    return facts


def _buffer_size(_: TaskDescription) -> int:
    """None waits: what was held by nothing, of a database that somebody changed, is made a row of its own."""
    return 1


def _partial(_state: bytes, reports: Sequence[ReportFacts], _task: TaskDescription) -> int:
    return len(reports)


def _finish(_state: bytes, _partial: int, _task: TaskDescription) -> bytes:
    return b""


ANALYTICS_REPORT_CONSUMER = AnswerConsumer(ANALYTICS_REPORT, ReportFacts, admit, _item, _buffer_size, _partial, _finish)
