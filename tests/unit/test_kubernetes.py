"""The Kubernetes manifests hold together, and the coordinator takes their configuration and its command line."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from broker_coordinator.cli import parser
from broker_coordinator.commands.shard_rules import serving
from broker_coordinator.configuration import load_configuration

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
CONFIGURATION = load_configuration(FOLDER / "coordinator.toml")


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


KUSTOMIZATION, COORDINATORS = read("kustomization.yaml"), read("coordinators.yaml")
POD = COORDINATORS["spec"]["template"]["spec"]
CONTAINERS = [*POD["initContainers"], *POD["containers"]]


def test_kustomization_names_every_file() -> None:
    generated = [file for each in KUSTOMIZATION["configMapGenerator"] for file in each["files"]]
    files = {path.name for path in FOLDER.iterdir()} - {"kustomization.yaml"}
    assert {*KUSTOMIZATION["resources"], *generated} == files
    assert read("namespace.yaml")["metadata"]["name"] == KUSTOMIZATION["namespace"]


@pytest.mark.parametrize("release", ["1.28", "1.34"])
@pytest.mark.parametrize("name", KUSTOMIZATION["resources"])
def test_every_resource_is_as_its_schema_says_in_the_oldest_release_that_is_promised_and_in_a_newer_one(
    name: str, release: str
) -> None:
    kubernetes_validate.validate(read(name), release, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(read(name) | {"unheard": "of"}, release, strict=True)


def test_there_is_a_pod_for_each_shard_which_is_named_as_it_counts() -> None:
    assert COORDINATORS["spec"]["replicas"] == len(CONFIGURATION.shards)
    assert CONFIGURATION.shards == tuple(map(str, range(len(CONFIGURATION.shards))))
    for shard in CONFIGURATION.shards:
        container = POD["containers"][0]
        words = [*container["command"], *container["args"]]
        program, *arguments = [word.replace("$(SHARD)", shard) for word in words]
        options = parser().parse_args(arguments)
        assert program == "broker-coordinator"
        assert serving(CONFIGURATION, options.shard, options.config).shard == shard
        assert options.metrics_port == container["ports"][0]["containerPort"]
        mounted = {each["mountPath"] for each in container["volumeMounts"]}
        assert {str(options.config.parent), str(CONFIGURATION.key_file.parent)} <= mounted


def test_every_file_of_the_configuration_is_copied_from_the_secret() -> None:
    copied = {Path(each).name for each in POD["initContainers"][0]["args"]}
    tls = CONFIGURATION.broker.tls
    assert tls is not None
    files = (
        CONFIGURATION.key_file,
        CONFIGURATION.database_password_file,
        CONFIGURATION.broker.password_file,
        tls.authority,
    )
    assert copied == {file.name for file in files if file}


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda each: each["name"])
def test_containers_are_confined_and_mount_what_is_there(container: Any) -> None:
    assert {each["name"] for each in container["volumeMounts"]} <= {each["name"] for each in POD["volumes"]}
    assert container["image"] == "edgeflock-coordinator", "an overlay says from where"
    confined = container["securityContext"]
    assert (confined["readOnlyRootFilesystem"], confined["allowPrivilegeEscalation"]) == (True, False)
    assert confined["capabilities"] == {"drop": ["ALL"]}
    assert "memory" in container["resources"]["limits"]
    assert POD["securityContext"]["runAsNonRoot"]


def test_selectors_find_the_pods() -> None:
    labels = COORDINATORS["spec"]["template"]["metadata"]["labels"]
    service, disruption = read("service.yaml"), read("disruption.yaml")
    assert COORDINATORS["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert disruption["spec"]["selector"]["matchLabels"] == labels
    assert COORDINATORS["spec"]["serviceName"] == service["metadata"]["name"]
