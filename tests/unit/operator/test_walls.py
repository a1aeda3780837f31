"""What stands around all Ray pods, and what each project may open in it."""

from decimal import Decimal
from typing import Any

from koinon_operator.documents import Quota
from koinon_operator.names import COMPONENT, NODE, PROJECT
from koinon_operator.objects import accounts, bounds, walls

PROJECT_ID = "0123456789ab"


def allowed(policy: dict[str, Any], direction: str) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = policy["spec"].get(direction, [])
    return rules


def test_deny_all_selects_every_pod_and_allows_nothing() -> None:
    spec = walls.deny_all("lyon-work")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_a_projects_pods_reach_each_other_and_nothing_else() -> None:
    policy = walls.project("lyon-work", PROJECT_ID)
    own = [{"podSelector": {"matchLabels": {PROJECT: PROJECT_ID}}}]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert allowed(policy, "egress") == [{"to": own}]
    assert allowed(policy, "ingress") == [{"from": own}]


def test_no_rule_is_open_to_everyone() -> None:
    policies = [
        walls.project("lyon-work", PROJECT_ID, monitoring="monitoring"),
        walls.head_policy("lyon-work", PROJECT_ID, home="lyon"),
    ]
    for policy in policies:
        for rule in (*allowed(policy, "ingress"), *allowed(policy, "egress")):
            peers = rule.get("from") or rule.get("to")
            assert peers
            for peer in peers:
                assert "ipBlock" not in peer
                assert all(selector["matchLabels"] for selector in peer.values())


def test_only_the_agent_of_the_home_namespace_reaches_the_head_at_two_ports() -> None:
    policy = walls.head_policy("lyon-work", PROJECT_ID, home="lyon")
    assert policy["spec"]["podSelector"]["matchLabels"] == {PROJECT: PROJECT_ID, NODE: "head"}
    (rule,) = allowed(policy, "ingress")
    (peer,) = rule["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "lyon"}
    assert peer["podSelector"]["matchLabels"] == {COMPONENT: "agent"}
    assert [port["port"] for port in rule["ports"]] == [8265, 8471]
    assert policy["spec"]["policyTypes"] == ["Ingress"]


def test_monitoring_reads_metrics_only() -> None:
    first, second = allowed(walls.project("lyon-work", PROJECT_ID, monitoring="monitoring"), "ingress")
    assert "ports" not in first
    assert [port["port"] for port in second["ports"]] == [8080]
    assert second["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}


def test_the_quota_bounds_requests_and_limits_and_no_service_leaves_the_cluster() -> None:
    hard = bounds.quota("lyon-work", Quota(Decimal("1.50"), 2**34, 2, 9))["spec"]["hard"]
    assert hard == {
        "requests.cpu": "1.5",
        "limits.cpu": "1.5",
        "requests.memory": str(2**34),
        "limits.memory": str(2**34),
        "requests.nvidia.com/gpu": "2",
        "pods": "9",
        "services.nodeports": "0",
        "services.loadbalancers": "0",
    }
    assert bounds.quota("w", Quota(Decimal(100), 1, 0, 1))["spec"]["hard"]["limits.cpu"] == "100"


def test_the_account_has_no_token() -> None:
    assert accounts.account("lyon-work")["automountServiceAccountToken"] is False


def test_the_heads_service_selects_the_projects_head_alone() -> None:
    spec = accounts.head_service("lyon-work", PROJECT_ID)["spec"]
    assert spec["type"] == "ClusterIP"
    assert spec["selector"] == {PROJECT: PROJECT_ID, NODE: "head"}
    assert {port["name"]: port["port"] for port in spec["ports"]} == {
        "gcs": 6379,
        "dashboard": 8265,
        "trainer": 8471,
        "metrics": 8080,
    }
