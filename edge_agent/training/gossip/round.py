"""A device's round among its neighbours: it hears what has come, trains its own model, tells what changed, mixes."""

from collections.abc import Callable

import numpy as np

from edge_agent.core.gossip.state import changed_parts, read_state
from edge_agent.training.gossip.peer import Peer, local_task
from edge_agent.training.round import DivergedError
from edge_agent.worker.contract import GossipJob, GossipRound, RefusedChange, TrainingJob, TrainingResult, Withheld
from fleet_protocol.codec import decode_update
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import Told
from fleet_protocol.task_description import TaskDescription

Train = Callable[[TaskDescription, FloatVector], TrainingResult | Withheld]
"""A round of the task (`local_task`) from a model f32[P]; raises `DivergedError`."""


def gossip_round(job: TrainingJob, gossip: GossipJob, begun: FloatVector, train: Train) -> GossipRound:
    """The job's round; `begun` f32[P] are the weights that everybody began with. Whatever comes of the training, the
    device mixes.
    """
    peer = peer_of(job, gossip, begun)
    refused = [refusal for name, told in gossip.heard if (refusal := _hear(peer, name, told))]
    local, made, diverged = local_task(job.description), None, ""
    try:
        made = train(local, peer.model)
    except DivergedError as error:
        diverged = str(error)
    told = end_round(peer, made, local)
    return GossipRound(
        changed=changed_parts(gossip.kept, peer.state.parts),
        trained_through=made.trained_through if made else job.trained_through,
        epochs=made.epochs if made else job.epochs,
        withheld=made.words if isinstance(made, Withheld) else "",
        diverged=diverged,
        told=told is not None,
        refused=refused,
    )


def end_round(peer: Peer, made: TrainingResult | Withheld | None, task: TaskDescription) -> Told | None:
    """What a round made of the training goes into the model, neighbours are told, if they are, and the device mixes.
    None: training diverged, and the device tells nothing. `task` is the local one.
    """
    if made is None:
        peer.mix()
        return None
    if isinstance(made, TrainingResult):
        delta = np.zeros(task.parameter_count, np.float32)
        decode_update(made.packed, task.shapes).add_to(delta)
        peer.learn(delta)
    told = peer.tell()
    peer.mix()
    return told


def peer_of(job: TrainingJob, gossip: GossipJob, begun: FloatVector) -> Peer:
    """The device as its last round has left it. One whose state is lost, or can't be used, begins another life with the
    weights that everybody began with; one whose state was put back, with its model.
    """
    task = job.description
    peer = Peer(task, gossip.neighbours, begun, rule=gossip.rule, life=job.life)
    state = read_state(gossip.kept, task.parameter_count)
    if state is None or not np.isfinite(np.frombuffer(state.model, np.float32)).all():
        return peer
    try:
        peer.go_on(state)
    except ProtocolError:
        return peer
    if gossip.anew:
        peer.renew(job.life)
    return peer


def _hear(peer: Peer, name: str, told: Told) -> RefusedChange | None:
    try:
        peer.hear(name, told)
    except ProtocolError as error:
        return RefusedChange(name, error.reason.value, error.detail)
    return None
