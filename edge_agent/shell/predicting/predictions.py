"""Predictions for whoever asks: with the newest weights that are here, by the resident predictor."""

import time
from collections.abc import Awaitable, Callable, Mapping

from edge_agent.core.prediction import interpret
from edge_agent.core.version_choice import VersionUnavailableError
from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.shell.connection.link import LinkDownError
from edge_agent.shell.predicting.resident_predictor import PredictionFailedError, ResidentPredictor
from edge_agent.shell.versions.version_follower import VersionFollower
from edge_agent.sources.prediction_command import CannotPredictError, Predicted
from edge_agent.sources.reading_receiver import OwnSeries, ReadingReceiver
from edge_agent.sources.readings import ReadingForm
from edge_agent.sources.schema_check import check_inputs
from edge_agent.worker.prediction import predicting_files
from fleet_protocol.sample_line import Sample
from fleet_protocol.sample_schema import WHOLE_ROW

_EXPECTED_ERRORS = (ValueError, VersionUnavailableError, LinkDownError, PredictionFailedError)


class Predictions:
    """Predicts for the tasks that `forms` has a form of readings for."""

    def __init__(
        self,
        versions: VersionFollower,
        predictor: ResidentPredictor,
        receiver: ReadingReceiver,
        forms: Mapping[str, ReadingForm],
        *,
        take_manifest: Callable[[str], Awaitable[None]],
    ) -> None:
        """`take_manifest` looks for a newer version of a task, where it is time to."""
        self._versions = versions
        self._predictor = predictor
        self._receiver = receiver
        self._forms = forms
        self._take_manifest = take_manifest

    async def predict(self, task: str, payload: bytes, own: OwnSeries | None = None) -> Predicted:
        """The prediction for one reading, JSON in the form of the task's source or of a sample; a label is ignored.
        A named reading follows those that the device has read, or its `own` series.

        Raises:
            CannotPredictError: the reading does not fit, no version is here, or the predictor failed.
        """
        if task not in self._forms:
            raise CannotPredictError(f"unknown task {task!r}; agent.toml lists {sorted(self._forms)}")
        return await self.predict_as(self._forms[task], payload, own)

    async def predict_as(self, form: ReadingForm, payload: bytes, own: OwnSeries | None = None) -> Predicted:
        """The same for a reading in another form."""
        started = time.perf_counter()
        try:
            sample = self._receiver.question(form, form.decode(payload), own)
        except ReadingRefusedError as error:
            raise CannotPredictError(str(error)) from error
        return await self.predict_sample(sample, started)

    async def predict_sample(self, sample: Sample, started: float | None = None) -> Predicted:
        """The prediction for inputs that are prepared; `started` is when they were asked about, as `perf_counter` has
        it, else it is now.

        Raises:
            CannotPredictError: they do not fit, no version is here, or the predictor failed.
        """
        began = time.perf_counter() if started is None else started
        try:
            await self._take_manifest(sample.task)
            version = await self._versions.version_to_use(sample.task, predicting_files)
            found = await self._predictor.scores(version, check_inputs(sample, version.description))
        except _EXPECTED_ERRORS as error:
            raise CannotPredictError(str(error)) from error
        labels = version.description.each_label.items()
        predictions = {
            head: interpret(found.values[head], label, found.spreads.get(head, ())) for head, label in labels
        }
        milliseconds = round(1000 * (time.perf_counter() - began), 3)
        return Predicted(sample.task, version.number, milliseconds, predictions.pop(WHOLE_ROW, None), predictions)
