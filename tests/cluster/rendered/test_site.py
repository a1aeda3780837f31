"""The chart of a hospital: what becomes of its values."""

import json
import re
from typing import Any

import pytest
import yaml

from koinon.agent import config
from tests.cluster.rendered import render
from tests.cluster.rendered.render import EVERYTHING, SITE, Object, one

ALL: Object = next(values for chart, _, values in EVERYTHING if chart == "koinon-site")


def release(values: Any, *options: str) -> list[Object]:
    return render.objects("koinon-site", values, *options)


def declared(found: list[Object]) -> Object:
    site: Object = json.loads(one(found, "ConfigMap", "koinon-site")["data"]["site.json"])
    return site


def settings(found: list[Object]) -> config.Settings:
    """What the agent makes of its site.yaml."""
    text = one(found, "ConfigMap", "koinon-agent")["data"]["site.yaml"]
    return config.Settings.of(yaml.safe_load(text), where="site.yaml")


def test_the_site_says_what_the_values_say() -> None:
    site = declared(release(ALL))
    assert (site["apiVersion"], site["kind"], site["metadata"]["name"]) == ("koinon.dev/v1alpha1", "Site", "lyon")
    assert site["metadata"]["namespace"] == "lyon"
    assert site["spec"] == {
        "hub": {"url": "https://hub.example.org:8443/koinon", "cidrs": ["192.0.2.7/32", "2001:db8::7/128"]},
        "root": "0" * 63 + "1",
        "workNamespace": "lyon-work",
        "images": {"worker": "registry.hospital.example:5000/koinon/koinon-worker@sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "pull-key"}],
        "datasets": ALL["datasets"],
        "quota": {"cpu": "64", "memory": "256Gi", "pods": 40, "gpus": 4},
        "egressProbes": ["192.0.2.30:443", "192.0.2.31:514/udp"],
        "requestPercent": 50,
        "monitoringNamespace": "monitoring",
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }


def test_the_site_knows_only_what_its_definition_knows() -> None:
    definition = yaml.safe_load((render.CHARTS / "koinon-site" / "files" / "crds" / "sites.yaml").read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec = declared(release(ALL))["spec"]
    assert spec.keys() <= schema["properties"].keys()
    assert set(schema["required"]) <= declared(release(SITE))["spec"].keys()
    for path in ("egressProbes",):
        assert all(re.fullmatch(schema["properties"][path]["items"]["pattern"], item) for item in spec[path])


def test_the_agent_reads_its_settings() -> None:
    found = settings(release(ALL))
    assert (found.name, found.hub) == ("lyon", "https://hub.example.org:8443/koinon")
    assert found.hub_ca == "/etc/koinon/hub-ca/ca.crt"
    assert found.proxy == "http://proxy.hospital.example:3128"
    assert found.datasets == {"heart": "/data/heart/heart.csv", "stroke": "/data/stroke/all/stroke.parquet"}
    assert found.kubernetes is not None
    assert found.kubernetes.work_namespace == "lyon-work"
    least = settings(release(SITE))
    assert (least.name, least.hub_ca, least.proxy) == ("lyon", None, None)


def test_the_agent_s_mounts_are_where_it_looks() -> None:
    found = release(ALL)
    pod = one(found, "StatefulSet", "koinon-agent")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    mounts = {m["name"]: m for m in container["volumeMounts"]}
    kubernetes = settings(found).kubernetes
    assert kubernetes is not None
    assert str(kubernetes.keys) == mounts["keys"]["mountPath"]
    assert str(kubernetes.consents) == mounts["consents"]["mountPath"]
    assert str(kubernetes.ray_secret) == mounts["ray"]["mountPath"] + "/secret"
    assert str(kubernetes.invitation) == mounts["invitation"]["mountPath"] + "/token"
    assert kubernetes.status == f"0.0.0.0:{container['ports'][0]['containerPort']}"
    assert {name for name, mount in mounts.items() if not mount.get("readOnly")} == {"data", "tmp"}
    assert not any("subPath" in mount for mount in mounts.values())  # which kubelet would not keep up to date
    volumes = {v["name"]: v for v in pod["volumes"]}
    optional = {
        name
        for name, v in volumes.items()
        if any(part.get("optional") for part in v.values() if isinstance(part, dict))
    }
    assert optional == {"invitation", "consents", "ray"}


def test_other_settings_are_another_pod() -> None:
    def annotation(values: Object) -> str:
        meta = one(release(values), "StatefulSet", "koinon-agent")["spec"]["template"]["metadata"]
        return str(meta["annotations"]["checksum/settings"])

    assert annotation(SITE) == annotation(SITE | {"quota": {"pods": 5}})
    assert annotation(SITE) != annotation(render.merged(SITE, {"hub": {"url": "https://other.example.org"}}))


def test_names_follow_the_namespace() -> None:
    found = render.objects("koinon-site", SITE, namespace="nice")
    assert declared(found)["metadata"]["name"] == "nice"
    one(found, "Namespace", "nice-work")
    operator = one(found, "Deployment", "koinon-operator")["spec"]
    assert operator["strategy"] == {"type": "Recreate"}
    environment = {v["name"]: v["value"] for v in operator["template"]["spec"]["containers"][0]["env"]}
    assert environment["KOINON_HOSPITALS"] == "nice:nice-work"


def test_the_work_namespace_is_restricted_and_kept() -> None:
    meta = one(release(SITE), "Namespace", "lyon-work")["metadata"]
    assert {meta["labels"][f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn", "audit")} == {
        "restricted"
    }
    assert meta["annotations"] == {"helm.sh/resource-policy": "keep"}
    passing = release(SITE | {"workNamespace": {"keep": False}})
    assert "annotations" not in one(passing, "Namespace", "lyon-work")["metadata"]
    assert "annotations" not in one(passing, "NetworkPolicy", "koinon-site-deny-all", "lyon-work")["metadata"]
    assert not [o for o in release(SITE | {"workNamespace": {"create": False}}) if o["kind"] == "Namespace"]


def test_definitions_are_the_files_and_are_kept() -> None:
    found = [o for o in release(SITE) if o["kind"] == "CustomResourceDefinition"]
    assert {o["metadata"]["name"] for o in found} == {"sites.koinon.dev", "grants.koinon.dev"}
    for o in found:
        file = render.CHARTS / "koinon-site" / "files" / "crds" / f"{o['metadata']['name'].partition('.')[0]}.yaml"
        assert o["spec"] == yaml.safe_load(file.read_text())["spec"]
        assert o["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    gone = release(SITE | {"crds": {"keep": False}})
    assert all("annotations" not in o["metadata"] for o in gone if o["kind"] == "CustomResourceDefinition")


def test_one_namespace_is_enough_where_an_administrator_made_the_rest() -> None:
    found = release(SITE | {"crds": {"install": False}, "workNamespace": {"create": False}})
    kinds = {o["kind"] for o in found}
    assert not kinds & {"Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    assert {o["metadata"].get("namespace", "lyon") for o in found} == {"lyon", "lyon-work"}


def test_roles_of_the_cluster_come_with_the_definitions_alone() -> None:
    roles = {o["metadata"]["name"]: o for o in release(SITE) if o["kind"] == "ClusterRole"}
    assert roles.keys() == {"koinon-view", "koinon-admin"}
    assert roles["koinon-view"]["rules"][0]["verbs"] == ["get", "list", "watch"]
    for role in roles.values():  # other hospitals' people lean on them
        assert role["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    passing = [o for o in release(SITE | {"crds": {"keep": False}}) if o["kind"] == "ClusterRole"]
    assert ["annotations" in o["metadata"] for o in passing] == [False, False]
    assert not [o for o in release(SITE | {"crds": {"aggregateRoles": False}}) if o["kind"] == "ClusterRole"]


def test_kuberay_gets_rights_in_the_work_namespace_alone() -> None:
    account = {"name": "ray-op", "namespace": "ray-system"}
    found = release(render.merged(SITE, {"kuberay": {"serviceAccount": account}}))
    bindings = [o for o in found if o["kind"] == "RoleBinding" and o["subjects"][0]["name"] == "ray-op"]
    assert [(o["metadata"]["namespace"], o["roleRef"]["kind"], o["roleRef"]["name"]) for o in bindings] == [
        ("lyon-work", "ClusterRole", "kuberay-work-namespace")
    ]
    assert bindings[0]["subjects"] == [{"kind": "ServiceAccount", **account}]
    own = release(render.merged(SITE, {"kuberay": {"clusterRole": ""}}))
    assert not [o for o in own if o["metadata"]["name"] == "koinon-kuberay"]


def rules(found: list[Object], name: str, namespace: str | None = None) -> list[Object]:
    role: list[Object] = one(found, "Role", name, namespace)["rules"]
    return role


@pytest.mark.parametrize("namespace", [None, "lyon-work"])
def test_the_operator_reads_no_secret_that_it_did_not_make(namespace: str | None) -> None:
    for rule in rules(release(SITE), "koinon-operator", namespace):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        if {"secrets", "configmaps"} & set(rule["resources"]) and rule["verbs"] != ["create"]:
            assert rule["resourceNames"] in (["koinon-ray"], ["koinon-consents"], ["koinon-denial"])


def test_the_operator_cannot_write_what_the_hospital_decides() -> None:
    for rule in rules(release(SITE), "koinon-operator"):
        if {"sites", "grants"} & set(rule["resources"]):
            assert rule["verbs"] == ["get", "list", "watch"]


def test_the_declaring_job_can_do_nothing_but_declare() -> None:
    assert rules(release(SITE), "koinon-declare") == [
        {"apiGroups": ["koinon.dev"], "resources": ["sites"], "verbs": ["create"]},
        {"apiGroups": ["koinon.dev"], "resources": ["sites"], "resourceNames": ["lyon"], "verbs": ["get", "update"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["koinon-site"], "verbs": ["get"]},
    ]


def test_the_cleaning_job_can_do_what_the_operator_can_and_delete_the_site() -> None:
    found = release(SITE)
    assert rules(found, "koinon-clean") == [
        {"apiGroups": ["koinon.dev"], "resources": ["sites"], "resourceNames": ["lyon"], "verbs": ["delete"]}
    ]
    for namespace in (None, "lyon-work"):
        subjects = one(found, "RoleBinding", "koinon-operator", namespace)["subjects"]
        assert [(s["name"], s["namespace"]) for s in subjects] == [
            ("koinon-operator", "lyon"),
            ("koinon-clean", "lyon"),
        ]


def test_jobs_run_when_they_must() -> None:
    found = release(SITE)
    notes = {o["metadata"]["name"]: o["metadata"]["annotations"] for o in found if o["kind"] == "Job"}
    assert {name: note["helm.sh/hook"] for name, note in notes.items()} == {
        "koinon-declare": "post-install,post-upgrade,post-rollback",
        "koinon-clean": "pre-delete",
        "koinon-no-egress": "test",
    }
    assert all("hook-failed" in note["helm.sh/hook-output-log-policy"] for note in notes.values())  # helm says why


def test_the_egress_test_tries_what_the_operator_wrote_down() -> None:
    job = one(release(SITE), "Job", "koinon-no-egress", "lyon-work")
    pod = job["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert container["env"][0]["valueFrom"] == {"configMapKeyRef": {"name": "koinon-denial", "key": "targets"}}
    assert container["image"] == "koinon-worker:0.1.0"
    assert "koinon.dev/project" not in pod["metadata"]["labels"]
