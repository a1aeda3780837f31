"""Names that YAML takes for something else, and names that are as long as Kubernetes allows."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from koinon.agent import config
from tests.cluster.rendered import render
from tests.cluster.rendered.render import SITE, TRIAL, Object, Refused, one

TEXTS = {
    "cidr", "claimName", "host", "image", "ingressClassName", "key", "name", "namespace", "priorityClassName",
    "secretName", "serverName", "serviceAccountName", "serviceName", "storageClassName", "value",
}  # fmt: skip
MAPS = {"annotations", "labels", "matchLabels", "nodeSelector"}
REVISION = 11  # what a StatefulSet's controller adds to its name, for a label of its pods


def fields(value: Any) -> Iterator[tuple[str, Any]]:
    """(key, value) at any depth, of what Kubernetes wants to be text."""
    if isinstance(value, list):
        for item in value:
            yield from fields(item)
    elif isinstance(value, dict) and value.get("kind") != "CustomResourceDefinition":
        for key, item in value.items():
            if key in MAPS:
                yield from ((f"{key}.{name}", part) for name, text in item.items() for part in (name, text))
            elif key in TEXTS and not isinstance(item, dict):
                yield key, item
            else:
                yield from fields(item)


def hub(odd: str) -> Object:
    monitor = {"enabled": True, "existingSecret": odd, "tlsConfig": {"serverName": odd}}
    return {
        "image": {"pullSecrets": [odd]},
        "fullnameOverride": "no",
        "tls": {"existingSecret": odd},
        "ingress": {"enabled": True, "className": odd, "host": odd, "tlsSecret": odd},
        "database": {"existingSecret": odd, "key": odd, "cidrs": ["::/0"]},
        "artifacts": {
            "url": "s3://s/b", "existingSecret": odd, "accessKey": odd, "secretKey": odd, "cidrs": ["::/0"],
        },
        "privateCA": {"existingConfigMap": odd, "key": odd},
        "gateway": {"persistence": {"storageClass": odd, "size": 1}},
        "networkPolicy": {"dns": {"namespace": odd}},
        "monitoring": {"serviceMonitor": monitor},
        "scheduling": {"priorityClassName": odd, "nodeSelector": {odd: odd}},
    }  # fmt: skip


def bundled(odd: str) -> Object:
    volume: Object = {"persistence": {"existingClaim": odd}}
    part = volume | {"existingSecret": odd}
    return render.merged(TRIAL, {
        "fullnameOverride": "no",
        "gateway": volume,
        "postgresql": part,
        "minio": part,
        "privateCA": {"existingSecret": odd, "key": odd},
    })  # fmt: skip


def site(odd: str) -> Object:
    return render.merged(SITE, {
        "image": {"pullSecrets": [odd]},
        "site": {"name": odd},
        "hub": {"ca": {"existingConfigMap": odd, "key": odd}, "cidrs": ["::/0"]},
        "agent": {
            "keys": {"existingSecret": odd},
            "invitation": {"existingSecret": odd, "key": odd},
            "persistence": {"existingClaim": odd},
        },
        "workNamespace": {"name": "yes"},
        "datasets": [{"name": odd, "claimName": odd, "path": odd}],
        "kuberay": {"clusterRole": odd, "serviceAccount": {"name": odd, "namespace": odd}},
        "networkPolicy": {"dns": {"namespace": odd}},
        "monitoring": {"namespace": odd, "serviceMonitor": {"enabled": True}},
        "scheduling": {"priorityClassName": odd},
    })  # fmt: skip


@pytest.mark.parametrize("odd", ["no", "404"])
@pytest.mark.parametrize("values", [hub, bundled, site])
def test_a_name_stays_text_whatever_yaml_makes_of_it(values: Any, odd: str) -> None:
    chart = "koinon-site" if values is site else "koinon-hub"
    found = list(fields(render.objects(chart, values(odd), release=odd, namespace=odd)))
    assert [(key, item) for key, item in found if not isinstance(item, str)] == []
    assert sum(item == odd for _, item in found) > 15


@pytest.mark.parametrize("odd", ["no", "404"])
def test_the_agent_reads_odd_names_as_text(odd: str) -> None:
    found = render.objects("koinon-site", site(odd), namespace=odd)
    text = one(found, "ConfigMap", "koinon-agent")["data"]["site.yaml"]
    settings = config.Settings.of(yaml.safe_load(text), where="site.yaml")
    assert (settings.name, settings.datasets) == (odd, {odd: f"/data/{odd}/{odd}"})
    assert settings.kubernetes is not None
    assert settings.kubernetes.work_namespace == "yes"


def test_a_large_user_id_stays_a_whole_number() -> None:
    found = render.objects("koinon-hub", render.merged(TRIAL, {"gateway": {"runAsUser": 1_000_650_000}}))
    security = one(found, "StatefulSet", "it-koinon-hub")["spec"]["template"]["spec"]["securityContext"]
    assert [security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")] == [1_000_650_000] * 3
    assert isinstance(security["runAsUser"], int)


LONG = [
    ("koinon-hub", TRIAL, "h" * 53, "hub"),
    ("koinon-hub", TRIAL | {"fullnameOverride": "h" * 41}, "h" * 53, "hub"),
    ("koinon-hub", TRIAL, "koinon-hub" + "h" * 43, "hub"),
    ("koinon-site", SITE, "s" * 53, "n" * 58),
]


@pytest.mark.parametrize(("chart", "values", "release", "namespace"), LONG)
def test_long_names_fit_into_labels(chart: str, values: Object, release: str, namespace: str) -> None:
    monitoring = {"dashboards": {"enabled": True}}
    found = render.objects(chart, values | {"monitoring": monitoring}, release=release, namespace=namespace)
    assert [item for key, item in fields(found) if key.startswith(("labels", "matchLabels")) and len(item) > 63] == []
    names = {kind: [o["metadata"]["name"] for o in found if o["kind"] == kind] for kind in ("StatefulSet", "Service")}
    assert [name for name in names["StatefulSet"] if len(name) + REVISION > 63] == []
    assert [name for name in names["Service"] if len(name) > 63] == []
    assert len(set(names["StatefulSet"])) == (1 if chart == "koinon-site" else 3)


def test_a_work_namespace_that_no_namespace_can_be_is_refused() -> None:
    with pytest.raises(Refused, match="more than 63 characters"):
        render.text("koinon-site", SITE, namespace="n" * 59)


@pytest.mark.parametrize("release", ["4hub", "my.hub"])
def test_a_release_after_which_no_service_can_be_called_is_refused(release: str) -> None:
    with pytest.raises(Refused, match="set fullnameOverride"):
        render.text("koinon-hub", TRIAL, release=release)
    assert render.text("koinon-hub", TRIAL | {"fullnameOverride": "hub"}, release=release)
