"""Whose copy of its blocks a helper runs for a session."""

from pathlib import Path

import msgspec
import pytest

from edge_agent.shell.versions.version_follower import ReadyVersion
from fleet_protocol.cluster_plan import NO_CLUSTER, ClusterPlan
from fleet_protocol.sessions.events import Wanted
from session_relay.helper.middles import version_for
from tests.support.split_session import shipped

MOST = 3


def version(clusters: ClusterPlan | None) -> ReadyVersion:
    """Of the shipped task, with these clusters."""
    return ReadyVersion(
        3, "ab" * 32, msgspec.structs.replace(shipped().description, clusters=clusters), {}, Path("weights")
    )


def cluster_for(clusters: ClusterPlan | None, told: int) -> int:
    """What a device gets that tells this one."""
    wanted = Wanted("mnist_cnn", bytes(32), "1-2", 3, cluster=told)
    return version_for(version(clusters), wanted).cluster


@pytest.mark.parametrize("told", range(1, MOST + 1))
def test_a_session_trains_the_copy_of_its_devices_cluster(told: int) -> None:
    assert cluster_for(ClusterPlan(MOST, ("*",)), told) == told


@pytest.mark.parametrize("told", [NO_CLUSTER, MOST + 1, 10_000])
def test_a_cluster_that_the_task_has_not_is_none(told: int) -> None:
    assert cluster_for(ClusterPlan(MOST, ("*",)), told) == NO_CLUSTER


@pytest.mark.parametrize("clusters", [None, ClusterPlan(MOST, ("no such parameter",))])
def test_where_nothing_of_the_helpers_has_copies_all_sessions_share(clusters: ClusterPlan | None) -> None:
    assert cluster_for(clusters, 1) == NO_CLUSTER
