"""Version choice: whether a manifest is new, and what a device fetches for it. Pure.

`is_here` tells whether the file with a SHA-256 (hex) is on the device.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.kinds import Invitation, Manifest
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.topics import PackedWeights

IsHere = Callable[[str], bool]


class VersionUnavailableError(Exception):
    """No version can be trained on right now; says why."""


class NotAskedError(VersionUnavailableError):
    """The task has no work for this device now: it has ended, or works in rounds and this one asks others, or has this
    device's part.
    """


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A version as its manifest named it: `bundle` and `weights` are SHA-256 in hex.

    `removed`: what the manifest said is that the task has ended.
    """

    version: int
    bundle: str
    weights: str
    generation: int = 0
    removed: bool = False

    def is_later_than(self, other: "KnownVersion") -> bool:
        """Whether a device that knows the `other` one follows this one: by generation, and then by version."""
        return (self.generation, self.version) > (other.generation, other.version)


class ManifestNews(Enum):
    """What a verified manifest tells a device."""

    NEW_VERSION = "a newer version"
    OTHERS_ASKED = "the version that it knew, and the round asks other devices now"
    REPETITION = "what it knew"
    OLD = "an older version, or the same number with other files"


def judge_manifest(known: KnownVersion | None, selection_threshold: int | None, manifest: Manifest) -> ManifestNews:
    """Compare with the newest version that the device knows, and the threshold that came with it, if it remembers."""
    named = known_from(manifest)
    if known == named:
        if selection_threshold in {None, manifest.selection_threshold}:
            return ManifestNews.REPETITION
        return ManifestNews.OTHERS_ASKED
    if known is not None and not named.is_later_than(known):
        return ManifestNews.OLD
    return ManifestNews.NEW_VERSION


def known_from(manifest: Manifest) -> KnownVersion:
    """The version that a manifest names."""
    return KnownVersion(manifest.version, manifest.bundle, manifest.weights, manifest.generation, manifest.removed)


def bundle_files(description: TaskDescription, names: Sequence[str]) -> dict[str, str]:
    """The files of a bundle with these names, by name: their SHA-256.

    Raises:
        VersionUnavailableError: the bundle was exported without one of them.
    """
    if missing := [name for name in names if name not in description.files]:
        raise VersionUnavailableError(
            f"the bundle of {description.task} lacks {', '.join(missing)}: export it with --ort-training, or choose"
            " [worker] engine = 'onnx-step'"
        )
    return {name: description.files[name] for name in names}


def choose_weights(
    description: TaskDescription,
    known: KnownVersion,
    held: KnownVersion | None,
    is_here: IsHere,
    refused: Collection[str],
) -> str | PackedWeights | None:
    """What to fetch for the weights of `known`: the whole file, or a difference from `held`; None where they are here.

    `held` is the version whose weights were last complete here. `refused` are weights that their difference did not
    give: they are fetched whole.
    """
    if is_here(known.weights):
        return None
    is_own_file = known.weights == description.files[WEIGHTS_FILE]  # in which another program wrote the header
    if is_own_file or not description.downlink.packs(known.version) or known.weights in refused:
        return known.weights
    usable = held is not None and is_same_line(held, known) and is_here(held.weights)
    return PackedWeights(description.task, known.version, held.version if held is not None and usable else None)


def weights_at_hand(known: KnownVersion, held: KnownVersion | None, is_here: IsHere) -> KnownVersion:
    """Which version to predict with: the newest, unless only those of an earlier one of its line are here."""
    if not is_here(known.weights) and held is not None and is_same_line(held, known) and is_here(held.weights):
        return held
    return known


def is_new_to(held: KnownVersion | None, known: KnownVersion | None) -> bool:
    """Whether a device whose weights of version `held` were last complete has not trained from `known` yet."""
    return known is not None and (held is None or known.bundle != held.bundle or known.is_later_than(held))


def begins_generation(known: KnownVersion | None, invitation: Invitation) -> bool:
    """Whether there is a manifest to look at, of a generation that the device does not know."""
    return known is None or invitation.generation > known.generation


def invites_to_round(held: KnownVersion | None, invitation: Invitation) -> bool:
    """Whether a device whose last round was from version `held` is asked for one. An invitation that somebody replays
    is not: its round is over.
    """
    if not invitation.wants_round:
        return False
    return held is None or (invitation.generation, invitation.version) > (held.generation, held.version)


def is_same_line(held: KnownVersion, known: KnownVersion) -> bool:
    """Whether two versions count in one line: in another generation, a number may name other weights."""
    return (held.generation, held.bundle) == (known.generation, known.bundle)


def needs_last_weights(description: TaskDescription) -> bool:
    """Whether a round looks at the version that the device's last one began with."""
    return description.sending.rule == "relevant" or description.training.correction != "off"


def files_to_keep(
    known: KnownVersion | None, held: KnownVersion | None, description: TaskDescription | None
) -> set[str]:
    """What a device keeps on its disk of a task. The next version is fetched as its difference from the held one."""
    kept = set(description.files.values()) if description else set()
    if known:
        kept |= {known.bundle, known.weights}
    if held:
        kept.add(held.weights)
    return kept
