"""The NetworkPolicies of a hospital."""

from typing import Any

import pytest

from tests.cluster.rendered import render
from tests.cluster.rendered.render import SITE, Object, one


def release(values: Any) -> list[Object]:
    return render.objects("koinon-site", values)


def policy(found: list[Object], name: str, namespace: str | None = None) -> Object:
    spec: Object = one(found, "NetworkPolicy", name, namespace)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    return spec


def test_both_namespaces_deny_from_the_first_moment() -> None:
    found = release(SITE)
    for namespace in (None, "lyon-work"):
        spec = policy(found, "koinon-site-deny-all", namespace)
        assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    kept = one(found, "NetworkPolicy", "koinon-site-deny-all", "lyon-work")["metadata"]["annotations"]
    assert kept == {"helm.sh/resource-policy": "keep"}  # as long as the namespace and the data in it


DNS = {
    "to": [{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }],
    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
}  # fmt: skip
HEADS = {
    "ports": [{"protocol": "TCP", "port": 8265}, {"protocol": "TCP", "port": 8471}],
    "to": [{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "lyon-work"}},
        "podSelector": {"matchLabels": {"koinon.dev/node": "head"}},
    }],
}  # fmt: skip


def out(cidr: str, *ports: int) -> Object:
    return {"ports": [{"protocol": "TCP", "port": port} for port in ports], "to": [{"ipBlock": {"cidr": cidr}}]}


def test_the_agent_reaches_hub_dns_and_heads_and_nothing_else() -> None:
    assert policy(release(SITE), "koinon-agent")["egress"] == [out("192.0.2.7/32", 443), DNS, HEADS]


@pytest.mark.parametrize(("url", "port"), [("https://h.example", 443), ("https://h.example:8443/x", 8443)])
def test_the_port_is_the_hub_s(url: str, port: int) -> None:
    values = render.merged(SITE, {"hub": {"url": url}})
    assert policy(release(values), "koinon-agent")["egress"][0] == out("192.0.2.7/32", port)


@pytest.mark.parametrize(
    ("url", "port"), [("http://p.example:3128", 3128), ("http://p.example/", 80), ("https://p.example", 443)]
)
def test_with_a_proxy_the_agent_reaches_it_and_not_the_hub(url: str, port: int) -> None:
    values = SITE | {"proxy": {"url": url, "cidrs": ["192.0.2.9/32"]}}
    assert policy(release(values), "koinon-agent")["egress"] == [out("192.0.2.9/32", port), DNS, HEADS]


def test_who_reaches_agent_and_operator() -> None:
    [rule] = policy(release(SITE), "koinon-agent")["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8472}]
    assert rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"
    assert rule["from"][1:] == [{"ipBlock": {"cidr": "192.0.2.1/32"}}]
    assert "ingress" not in policy(release(SITE), "koinon-operator")
    watched = release(SITE | {"monitoring": {"namespace": "watching"}})
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watching"}}}
    assert peer in policy(watched, "koinon-agent")["ingress"][0]["from"]
    assert policy(watched, "koinon-operator")["ingress"] == [
        {"ports": [{"protocol": "TCP", "port": 8480}], "from": [peer]}
    ]


def test_only_operator_and_jobs_reach_the_api_server() -> None:
    api = out("192.0.2.1/32", 443, 6443)
    found = release(SITE)
    assert policy(found, "koinon-operator")["egress"][:2] == [api, DNS]
    assert policy(found, "koinon-hook")["egress"] == [api]
    assert policy(found, "koinon-hook").get("ingress") is None
    named = [
        o["metadata"]["name"] for o in found if o["kind"] == "NetworkPolicy" and api in o["spec"].get("egress", [])
    ]
    assert sorted(named) == ["koinon-hook", "koinon-operator"]


def test_policies_can_be_left_to_another_tool() -> None:
    assert not [o for o in release(SITE | {"networkPolicy": {"enabled": False}}) if o["kind"] == "NetworkPolicy"]
