"""Who judges the pictures of each domain: trained when first asked for, by whichever process asks first."""

import fcntl
import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.split_gans.classifier import Classifier, trained_on
from benchmarks.split_gans.scenario import Labelled

SEED = 0


@dataclass(frozen=True, slots=True)
class Judges(Mapping[str, Classifier]):
    """One for each domain's pictures, kept in `folder`, where forked processes find them.

    Who asks for one that another process trains waits for it; if that process dies, who waits trains it.
    """

    folder: Path
    pictures: Mapping[str, Labelled]
    _known: dict[str, Classifier] = field(default_factory=dict)

    def __getitem__(self, domain: str) -> Classifier:
        """Train it, wait for it, or know it.

        Raises:
            KeyError: there is no such domain.
        """
        if domain not in self._known:
            self._known[domain] = self._found_or_trained(domain, self.pictures[domain])
        return self._known[domain]

    def __iter__(self) -> Iterator[str]:
        """Names of the domains."""
        return iter(self.pictures)

    def __len__(self) -> int:
        """How many domains there are."""
        return len(self.pictures)

    @contextmanager
    def trained_beside(self) -> Iterator[None]:
        """Train all in a process of their own meanwhile; what goes wrong there is said to who asks for one."""
        process = multiprocessing.get_context("fork").Process(target=lambda: list(self.values()))
        process.start()
        try:
            yield
        finally:
            process.terminate()
            process.join()

    def _found_or_trained(self, domain: str, pictures: Labelled) -> Classifier:
        kept = self.folder / f"{domain}.safetensors"
        with (self.folder / f"{domain}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                fresh = kept.with_suffix(".new")
                trained_on(pictures, SEED).save(fresh)
                fresh.replace(kept)
            return Classifier.load(kept)
