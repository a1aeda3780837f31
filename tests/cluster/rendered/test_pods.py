"""What every pod of both charts holds to, hooks included, whatever the values."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.rendered import render
from tests.cluster.rendered.render import SITE, TRIAL, Object

_SECRET_WORDS = re.compile(r"password|secret|token|[a-z0-9]+://[^/]*:[^/]*@", re.IGNORECASE)


@pytest.fixture(scope="module", params=render.CASES, ids=render.IDS)
def release(request: pytest.FixtureRequest) -> list[Object]:
    chart, _, values = request.param
    return render.objects(chart, values)


def test_hooks_are_among_them(release: list[Object]) -> None:
    hooks = {
        o["metadata"]["annotations"]["helm.sh/hook"]
        for o in release
        if o["metadata"].get("annotations", {}).get("helm.sh/hook")
    }
    assert "test" in hooks


def test_pod_security_is_restricted(release: list[Object]) -> None:
    seen = 0
    for name, pod in render.pods(release):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"}, name
        assert (
            all(v.keys() & {"emptyDir", "configMap", "secret", "persistentVolumeClaim"} for v in pod["volumes"])
            if "volumes" in pod
            else True
        ), name
        for container in render.containers(pod):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert not own.keys() & {"privileged", "runAsUser", "procMount", "seLinuxOptions", "seccompProfile"}, name
            assert not any("hostPort" in port for port in container.get("ports", [])), name
            seen += 1
    assert seen >= 2


def test_every_container_says_what_it_needs(release: list[Object]) -> None:
    for name, pod in render.pods(release):
        for container in render.containers(pod):
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name


def test_quantities_may_be_numbers() -> None:
    resources = {"requests": {"cpu": 0.5, "memory": 34359738368}, "limits": {"memory": 34359738368}}
    values = render.merged(SITE, {"agent": {"resources": resources}, "quota": {"cpu": 7.5, "memory": 34359738368}})
    found = render.objects("koinon-site", values)
    [pod] = [pod for name, pod in render.pods(found) if name == "StatefulSet koinon-agent"]
    assert pod["containers"][0]["resources"] == resources
    site = json.loads(render.one(found, "ConfigMap", "koinon-site")["data"]["site.json"])
    assert site["spec"]["quota"] == {"cpu": "7.5", "memory": "34359738368", "pods": 20, "gpus": 0}


def test_only_the_operator_s_jobs_have_a_token_of_the_api(release: list[Object]) -> None:
    with_token = {
        name: pod["serviceAccountName"] for name, pod in render.pods(release) if pod["automountServiceAccountToken"]
    }
    site = any(o["kind"] == "Deployment" for o in release)
    wanted = {
        "Deployment koinon-operator": "koinon-operator",
        "Job koinon-clean": "koinon-clean",
        "Job koinon-declare": "koinon-declare",
    }
    assert with_token == (wanted if site else {})


def test_no_secret_in_arguments_or_environment(release: list[Object]) -> None:
    for name, pod in render.pods(release):
        for container in render.containers(pod):
            for word in [*container.get("command", []), *container.get("args", [])]:
                assert not _SECRET_WORDS.search(word.replace("--pwfile=/etc/koinon/postgresql/password", "")), (
                    f"{name}: {word}"
                )
            for variable in container.get("env", []):
                assert variable.keys() == {"name", "valueFrom"} or not _SECRET_WORDS.search(variable["value"]), name
                assert not re.search("PASSWORD|SECRET|ACCESS_KEY", variable["name"]) or "value" not in variable, name


def test_probes_ask_ports_that_exist(release: list[Object]) -> None:
    probed = 0
    for name, pod in render.pods(release):
        for container in pod["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if asked := container.get(probe, {}).get("httpGet"):
                    assert asked["port"] in ports, name
                    probed += 1
    assert probed >= 3


def test_labels_select_exactly_their_pods(release: list[Object]) -> None:
    templates = [o["spec"]["template"]["metadata"]["labels"] for o in release if "template" in o.get("spec", {})]
    checked = 0
    for o in release:
        selector: dict[str, str] | None = None
        if o["kind"] == "Service":
            selector = o["spec"]["selector"]
        elif o["kind"] in ("StatefulSet", "Deployment"):
            selector = o["spec"]["selector"]["matchLabels"]
        if selector is not None:
            fitting = [labels for labels in templates if selector.items() <= labels.items()]
            assert len(fitting) == 1, o["metadata"]["name"]
            assert "app.kubernetes.io/version" not in selector  # it changes, a selector cannot
            checked += 1
    assert checked >= 2


def test_no_disruption_budget_for_one_replica(release: list[Object]) -> None:
    assert not [o for o in release if o["kind"] == "PodDisruptionBudget"]
    assert all(o["spec"]["replicas"] <= 1 for o in release if o["kind"] in ("StatefulSet", "Deployment"))


def test_an_upgrade_replaces_a_pod_that_never_got_ready(release: list[Object]) -> None:
    sets = [o["spec"] for o in release if o["kind"] == "StatefulSet"]
    assert [spec.get("podManagementPolicy") for spec in sets] == ["Parallel"] * len(sets) != []


def variants(registry: str) -> Iterator[tuple[str, Object]]:
    for chart, _, values in render.CASES:
        yield chart, render.merged(values, {"image": {"registry": registry}})


def test_one_setting_moves_every_image() -> None:
    for chart, values in variants("registry.hospital.example:5000/mirror/"):
        found = list(render.images(render.objects(chart, values)))
        assert len(found) >= 2
        for image in found:
            assert re.fullmatch(
                r"registry\.hospital\.example:5000/mirror/[-a-z/]+(:[-\w.]+|@sha256:[0-9a-f]{64})", image
            )
    without = {chart: set(render.images(render.objects(chart, values))) for chart, values in variants("")}
    assert all(not image.startswith("registry") for images in without.values() for image in images)


def test_the_images_are_those_of_the_dockerfile() -> None:
    targets = set(
        re.findall(r"^FROM \S+ AS (gateway|agent|operator|worker)$", (render.ROOT / "Dockerfile").read_text(), re.M)
    )
    found = {
        image
        for chart, values in (("koinon-hub", TRIAL), ("koinon-site", SITE))
        for image in render.images(render.objects(chart, values))
    }
    assert {f"koinon-{target}:0.1.0" for target in targets} == {image for image in found if image.startswith("koinon-")}


def test_tag_and_digest() -> None:
    found = set(render.images(render.objects("koinon-site", SITE | {"image": {"tag": "2.0", "pullPolicy": "Never"}})))
    assert found == {"koinon-agent:2.0", "koinon-operator:2.0", "koinon-worker:2.0"}
    elsewhere = render.merged(SITE, {"agent": {"image": {"repository": "registry.example.org:5000/x/agent"}}})
    assert "registry.example.org:5000/x/agent:0.1.0" in set(render.images(render.objects("koinon-site", elsewhere)))
    digest = "sha256:" + "0" * 64
    pinned = render.merged(SITE, {"agent": {"image": {"digest": digest}}})
    assert f"koinon-agent@{digest}" in set(render.images(render.objects("koinon-site", pinned)))


def test_pull_secrets_reach_every_pod() -> None:
    for chart, _, values in render.CASES:
        release = render.objects(chart, render.merged(values, {"image": {"pullSecrets": ["a", "b"]}}))
        for name, pod in render.pods(release):
            assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}], name


def test_scheduling_reaches_every_long_lived_pod() -> None:
    wanted: dict[str, Any] = {
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
    }
    for chart, _, values in render.CASES:
        for name, pod in render.pods(render.objects(chart, values | {"scheduling": wanted})):
            if "no-egress" not in name:
                assert {key: pod[key] for key in wanted} == wanted, name


def test_the_walls_are_tried_on_the_nodes_of_research_code() -> None:
    wanted: dict[str, Any] = {"nodeSelector": {"gpu": "yes"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    other = {"nodeSelector": {"a": "b"}, "affinity": {"podAntiAffinity": {}}, "priorityClassName": "high"}
    for worker in (wanted, {}):
        found = render.objects("koinon-site", render.merged(SITE, {"worker": worker, "scheduling": other}))
        [job] = [pod for name, pod in render.pods(found) if name == "Job koinon-no-egress"]
        keys = {"nodeSelector", "tolerations", "affinity", "priorityClassName"}
        assert {key: item for key, item in job.items() if key in keys} == worker


def test_a_platform_may_choose_the_users() -> None:
    site = render.merged(SITE, {"agent": {"runAsUser": None}, "operator": {"runAsUser": None}})
    for name, pod in render.pods(render.objects("koinon-site", site)):
        if "no-egress" not in name:
            assert pod["securityContext"].keys() == {"runAsNonRoot", "seccompProfile"}, name
