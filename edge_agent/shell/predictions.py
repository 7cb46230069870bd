"""Predictions for whoever asks: with the newest weights that are here, by the resident predictor."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from edge_agent.core.prediction import interpret
from edge_agent.core.version_choice import VersionUnavailableError
from edge_agent.shell.link import LinkDownError
from edge_agent.shell.resident_predictor import PredictionFailedError, ResidentPredictor
from edge_agent.shell.version_follower import VersionFollower
from edge_agent.sources.prediction_command import CannotPredictError, Predicted
from edge_agent.sources.readings import ReadingForm, ReadingRefusedError
from edge_agent.sources.schema_check import check_inputs
from edge_agent.worker.prediction import predicting_files
from fleet_protocol.sample_schema import WHOLE_ROW

_EXPECTED_ERRORS = (ReadingRefusedError, ValueError, VersionUnavailableError, LinkDownError, PredictionFailedError)


class Predictions:
    """Predicts for the tasks that `forms` has a form of readings for."""

    def __init__(
        self,
        versions: VersionFollower,
        predictor: ResidentPredictor,
        forms: Mapping[str, ReadingForm],
        take_manifest: Callable[[str], Awaitable[None]],
    ) -> None:
        """`take_manifest` looks for a newer version of a task, where it is time to."""
        self._versions = versions
        self._predictor = predictor
        self._forms = forms
        self._take_manifest = take_manifest

    async def predict(self, task: str, payload: bytes) -> Predicted:
        """The prediction for one reading, JSON in the form of the task's source or of a sample; a label is ignored.

        Raises:
            CannotPredictError: the reading does not fit, no version is here, or the predictor failed.
        """
        if task not in self._forms:
            raise CannotPredictError(f"unknown task {task!r}; agent.toml lists {sorted(self._forms)}")
        return await self.predict_as(self._forms[task], payload)

    async def predict_as(self, form: ReadingForm, payload: bytes) -> Predicted:
        """The same for a reading in another form."""
        started = time.perf_counter()
        try:
            document = form.decode(payload)
            is_sample = isinstance(document, dict) and "inputs" in document
            sample = replace(form, inputs=() if is_sample else form.inputs, label=None).sample(document)
            await self._take_manifest(form.task)
            version = await self._versions.version_to_use(form.task, predicting_files)
            inputs = check_inputs(sample, version.description)
            scores = await self._predictor.scores(version, inputs)
        except _EXPECTED_ERRORS as error:
            raise CannotPredictError(str(error)) from error
        predictions = {head: interpret(scores[head], label) for head, label in version.description.each_label.items()}
        milliseconds = round(1000 * (time.perf_counter() - started), 3)
        return Predicted(form.task, version.number, milliseconds, predictions.pop(WHOLE_ROW, None), predictions)
