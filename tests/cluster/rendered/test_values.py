"""Values: each has a comment, a schema and a line in the README; a wrong one is refused before anything is made."""

import importlib.machinery
import importlib.util
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.cluster.rendered import render
from tests.cluster.rendered.render import CHARTS, NAMES, SITE, TRIAL, Refused


@pytest.fixture(scope="module")
def readme() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("charts_readme", str(CHARTS / "readme"))
    spec = importlib.util.spec_from_loader("charts_readme", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("chart", NAMES)
def test_every_value_has_a_comment(chart: str, readme: ModuleType) -> None:
    leaves = list(readme.leaves((CHARTS / chart / "values.yaml").read_text()))
    assert len(leaves) > 40
    assert [path for path, comment, _ in leaves if len(comment) < 10] == []


@pytest.mark.parametrize("chart", NAMES)
def test_the_readme_is_up_to_date(chart: str, readme: ModuleType) -> None:
    assert readme.main(["--check", chart]) == 0


def test_the_readme_follows_the_values(tmp_path: Path, readme: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CHARTS / "koinon-hub", tmp_path / "koinon-hub")
    values = tmp_path / "koinon-hub" / "values.yaml"
    values.write_text(values.read_text() + "\n# A | new one.\nnovelty:\n  # How new.\n  degree: 7\n")
    monkeypatch.setattr(readme, "HERE", tmp_path)
    assert readme.main(["--check"]) == 1
    assert readme.main([]) == 0
    assert "| `novelty.degree` | `7` | How new. |" in (tmp_path / "koinon-hub" / "README.md").read_text()
    assert readme.main(["--check"]) == 0


def schema_of(chart: str) -> Any:
    return json.loads((CHARTS / chart / "values.schema.json").read_text())


def known(schema: Any, root: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that a schema knows, below objects with named properties."""
    for name, part in schema.get("properties", {}).items():
        inner = root["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        here = f"{path}.{name}" if path else name
        if "properties" in inner and inner.get("type") == "object":
            yield from known(inner, root, here)
        else:
            yield here, inner


@pytest.mark.parametrize("chart", NAMES)
def test_schema_and_values_know_the_same(chart: str, readme: ModuleType) -> None:
    schema = schema_of(chart)
    settable = {path for path, _, _ in readme.leaves((CHARTS / chart / "values.yaml").read_text())}
    checked = {re.sub(r"\.resources\..*", ".resources", path) for path, _ in known(schema, schema)}
    assert checked == settable | {"global"}  # which helm adds


def closed(part: Any, path: str = "") -> Iterator[str]:
    """Where a schema lets unknown names through."""
    if isinstance(part, dict):
        if "properties" in part and part.get("additionalProperties") is not False:
            yield path
        for key, item in part.items():
            yield from closed(item, f"{path}/{key}")


@pytest.mark.parametrize("chart", NAMES)
def test_schemas_are_closed(chart: str) -> None:
    open_ones = [path for path in closed(schema_of(chart)) if path]
    assert open_ones == []


def test_what_both_charts_define_is_the_same() -> None:
    hub, site = (schema_of(chart)["definitions"] for chart in NAMES)
    shared = hub.keys() & site.keys()
    assert len(shared) > 10
    assert {name: hub[name] for name in shared} == {name: site[name] for name in shared}
    assert len({(CHARTS / chart / "templates" / "_common.tpl").read_text() for chart in NAMES}) == 1


@pytest.mark.parametrize("chart", NAMES)
def test_versions_are_the_package_s(chart: str) -> None:
    version = tomllib.loads((render.ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
    assert (found["version"], found["appVersion"]) == (version, version)


@pytest.mark.parametrize(("chart", "name", "values"), render.CASES, ids=render.IDS)
def test_lint(chart: str, name: str, values: Any) -> None:
    printed = render.helm("lint", str(CHARTS / chart), "--strict", "-f", "-", stdin=yaml.safe_dump(values))
    assert "0 chart(s) failed" in printed


BAD = [
    ("koinon-hub", {"gateway": {"replicas": 2}}, "gateway/replicas"),
    ("koinon-hub", {"gatway": {}}, "gatway"),
    ("koinon-hub", {"fullnameOverride": "h" * 42}, "fullnameOverride"),
    ("koinon-hub", {"fullnameOverride": "4"}, "fullnameOverride"),
    ("koinon-hub", {"gateway": {"image": {"registry": "elsewhere"}}}, "registry"),
    ("koinon-hub", {"gateway": {"image": {"digest": "sha256:123"}}}, "gateway/image/digest"),
    ("koinon-hub", {"gateway": {"runAsUser": 0}}, "gateway/runAsUser"),
    ("koinon-hub", {"gateway": {"resources": {"limits": {"memory": "4 GB"}}}}, "gateway/resources/limits/memory"),
    ("koinon-hub", {"artifacts": {"url": "s3://key@s3.example.org/koinon"}}, "artifacts/url"),
    ("koinon-hub", {"artifacts": {"url": "https://s3.example.org/koinon"}}, "artifacts/url"),
    ("koinon-hub", {"database": {"cidrs": ["db.example.org"]}}, "database/cidrs"),
    ("koinon-hub", {"database": {"password": "x"}}, "password"),
    ("koinon-hub", {"service": {"type": "ExternalName"}}, "service/type"),
    ("koinon-hub", {"image": {"pullPolicy": "Sometimes"}}, "image/pullPolicy"),
    ("koinon-hub", {"networkPolicy": {"from": [{}]}}, "networkPolicy/from"),
    (
        "koinon-hub",
        {"networkPolicy": {"from": [{"ipBlock": {"cidr": "::/0"}, "podSelector": {}}]}},
        "networkPolicy/from",
    ),
    ("koinon-hub", {"artifacts": {"port": 9000}}, "port"),
    ("koinon-site", {"agent": {"replicas": 2}}, "agent/replicas"),
    ("koinon-site", {"operator": {"replicas": 2}}, "operator/replicas"),
    ("koinon-site", {"site": {"root": "AB" * 32}}, "site/root"),
    ("koinon-site", {"site": {"root": ""}}, "site/root"),
    ("koinon-site", {"site": {"name": "Lyon"}}, "site/name"),
    ("koinon-site", {"hub": {"url": "http://hub.example.org"}}, "hub/url"),
    ("koinon-site", {"hub": {"cidrs": []}}, "hub/cidrs"),
    ("koinon-site", {"proxy": {"url": "http://me@proxy:3128", "cidrs": ["192.0.2.9/32"]}}, "proxy/url"),
    ("koinon-site", {"datasets": []}, "datasets"),
    ("koinon-site", {"datasets": [{"name": "a", "claimName": "a", "path": "../keys"}]}, "datasets/0/path"),
    ("koinon-site", {"datasets": [{"name": "a", "claimName": "a", "path": "/etc/passwd"}]}, "datasets/0/path"),
    ("koinon-site", {"datasets": [{"name": "a", "claimName": "a", "path": "b/../../c"}]}, "datasets/0/path"),
    ("koinon-site", {"quota": {"pods": 0}}, "quota/pods"),
    ("koinon-site", {"egressProbes": ["udp:192.0.2.30:53"]}, "egressProbes"),
    ("koinon-site", {"egressProbes": ["intranet.example.org:80"]}, "egressProbes"),
    ("koinon-site", {"worker": {"requestPercent": 0}}, "worker/requestPercent"),
    ("koinon-site", {"networkPolicy": {"dns": {"ports": []}}}, "networkPolicy/dns/ports"),
]


@pytest.mark.parametrize(("chart", "wrong", "where"), BAD, ids=[f"{chart}-{where}" for chart, _, where in BAD])
def test_a_wrong_value_is_refused_by_name(chart: str, wrong: Any, where: str) -> None:
    right = SITE if chart == "koinon-site" else TRIAL
    with pytest.raises(Refused) as refused:
        render.text(chart, render.merged(right, wrong))
    assert where in str(refused.value)
    assert "schema" in str(refused.value)


@pytest.mark.parametrize("chart", NAMES)
def test_a_group_of_values_cannot_be_taken_away(chart: str, readme: ModuleType) -> None:
    paths = [path for path, _, _ in readme.leaves((CHARTS / chart / "values.yaml").read_text())]
    groups = {path.rpartition(".")[0] for path in paths} - {""}
    for group in groups | {group.partition(".")[0] for group in groups} | {"networkPolicy.enabled"}:
        nothing: Any = None
        for name in reversed(group.split(".")):
            nothing = {name: nothing}
        with pytest.raises(Refused, match=f"schema(.|\n)*'{group.rpartition('.')[2]}'"):
            render.text(chart, render.merged(SITE if chart == "koinon-site" else TRIAL, nothing))


NETWORKS = ["0.0.0.0/0", "192.0.2.255/32", "::/0", "::1/128", "2001:db8::7/64", "1:2:3:4:5:6:7:8/128"]
NO_NETWORKS = [
    "192.0.2.7", "192.0.2.256/32", "192.0.2/24", "192.0.2.7/33", "010.0.0.1/8",
    "1:2:3:4:5:6:7:8:9/64", "::/129", "a/8", ":/8",
]  # fmt: skip


def test_networks_are_known_from_what_is_none() -> None:
    pattern = schema_of("koinon-site")["definitions"]["cidr"]["pattern"]
    assert [text for text in NETWORKS if not re.search(pattern, text)] == []
    assert [text for text in NO_NETWORKS if re.search(pattern, text)] == []


MONITOR = {"serviceMonitor": {"enabled": True}}
AT_INGRESS = {"tls": {"generate": False, "atIngress": True}, "ingress": {"enabled": True, "host": "hub.example.org"}}
CONTRADICTIONS = [
    ("koinon-hub", {"tls": {"existingSecret": "x"}}, "TLS: set one of"),
    ("koinon-hub", {"tls": {"generate": False}}, "TLS: set one of"),
    ("koinon-hub", {"tls": {"generate": False, "atIngress": True}}, "needs ingress.enabled"),
    ("koinon-hub", AT_INGRESS | {"service": {"type": "LoadBalancer"}}, "a LoadBalancer would serve plain HTTP"),
    ("koinon-hub", AT_INGRESS | {"service": {"type": "NodePort"}}, "a NodePort would serve plain HTTP"),
    ("koinon-hub", AT_INGRESS, "needs networkPolicy.from"),
    ("koinon-hub", {"ingress": {"enabled": True}}, "needs ingress.host"),
    ("koinon-hub", {"database": {"existingSecret": "x"}}, "which database"),
    ("koinon-hub", {"postgresql": {"enabled": False}}, "needs a database"),
    ("koinon-hub", {"postgresql": {"enabled": False}, "database": {"existingSecret": "x"}}, "database.cidrs is empty"),
    ("koinon-hub", {"artifacts": {"url": "s3://s/b"}}, "which object store"),
    ("koinon-hub", {"minio": {"enabled": False}}, "needs an object store"),
    ("koinon-hub", {"minio": {"enabled": False}, "artifacts": {"url": "s3://s/b", "existingSecret": "x"}},
     "artifacts.cidrs is empty"),
    ("koinon-hub", {"image": {"registry": "a"}, "gateway": {"image": {"repository": "b:5/hub"}}}, "the registry in b"),
    ("koinon-hub", {"privateCA": {"existingSecret": "a", "existingConfigMap": "b"}}, "contradict each other"),
    ("koinon-hub", {"service": {"nodePort": 30000}}, "needs service.type NodePort"),
    ("koinon-hub", {"service": {"externalTrafficPolicy": "Local"}}, "needs service.type NodePort or LoadBalancer"),
    ("koinon-hub", {"service": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}}, "needs service.type LoadBalancer"),
    ("koinon-hub", {"monitoring": MONITOR, "networkPolicy": {"from": [{"podSelector": {}}]}},
     "networkPolicy.from needs monitoring.namespace"),
    ("koinon-hub", {"monitoring": MONITOR, "tls": {"generate": False, "existingSecret": "t"}},
     "needs a name in tls.names"),
    ("koinon-hub", {"generateSecrets": False, "monitoring": MONITOR},
     "give minio.existingSecret, monitoring.serviceMonitor.existingSecret, postgresql.existingSecret, tls.existing"),
    ("koinon-site", {"workNamespace": {"name": "lyon"}}, "the release's own namespace"),
    ("koinon-site", {"hub": {"ca": {"existingSecret": "a", "existingConfigMap": "b"}}}, "contradict each other"),
    ("koinon-site", {"proxy": {"url": "http://proxy:3128"}}, "proxy.cidrs is empty"),
    ("koinon-site", {"proxy": {"cidrs": ["192.0.2.9/32"]}}, "which proxy"),
    ("koinon-site", {"monitoring": {"serviceMonitor": {"enabled": True}}}, "needs monitoring.namespace"),
    ("koinon-site", {"datasets": [{"name": "a", "claimName": c, "path": "p"} for c in "bc"]}, "names a twice"),
    ("koinon-site", {"kuberay": {"check": True}}, "KubeRay is not in this cluster"),
    ("koinon-site", {"apiServer": {"cidrs": []}}, "apiServer.cidrs is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("chart", "wrong", "said"), CONTRADICTIONS, ids=[said for _, _, said in CONTRADICTIONS])
def test_a_contradiction_is_refused_with_what_to_do(chart: str, wrong: Any, said: str) -> None:
    right = SITE if chart == "koinon-site" else TRIAL
    with pytest.raises(Refused) as refused:
        render.text(chart, render.merged(right, wrong))
    assert said in str(refused.value)


def test_with_kuberay_in_the_cluster_nothing_is_refused() -> None:
    assert render.text("koinon-site", SITE | {"kuberay": {}}, "--api-versions", "ray.io/v1/RayCluster")
