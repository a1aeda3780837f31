"""What the charts render, against the API server's own schemas and its admission, with everything turned on."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import kubectl, schemas
from tests.cluster.conftest import Cluster
from tests.cluster.rendered import render

cases = pytest.mark.parametrize(("chart", "name", "values"), render.CASES, ids=render.IDS)


@pytest.fixture(scope="module")
def location(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    return schemas.write(tmp_path_factory.mktemp("schemas"))


def conform(location: str, text: str) -> subprocess.CompletedProcess[str]:
    command = ["kubeconform", "-strict", "-summary", "-output", "json", "-schema-location", location, "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@cases
def test_kubeconform(location: str, chart: str, name: str, values: Any) -> None:
    done = conform(location, render.text(chart, values))
    assert done.returncode == 0, done.stdout
    summary = json.loads(done.stdout)["summary"]
    assert summary["valid"] >= 5
    assert (summary["invalid"], summary["errors"], summary["skipped"]) == (0, 0, 0)


def test_kubeconform_sees_a_misspelt_field(location: str) -> None:
    text = render.text("koinon-site", render.SITE).replace("runAsNonRoot:", "runAsNonroot:", 1)
    done = conform(location, text)
    assert done.returncode == 1
    assert "runAsNonroot" in done.stdout


@cases
def test_the_api_server_takes_it_without_a_warning(
    new_namespace: Callable[[str], str], chart: str, name: str, values: Any, tmp_path: Path
) -> None:
    home, work = new_namespace("home"), new_namespace("work")
    if chart == "koinon-site":
        values = render.merged(values, {"workNamespace": {"name": work, "create": False}})
    found = render.objects(chart, values, namespace=home)
    for o in found:
        if o["kind"] not in ("CustomResourceDefinition", "ClusterRole"):
            o["metadata"].setdefault("namespace", home)
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(found))
    command = ["kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"]
    done = subprocess.run([*command, "-f", str(file)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("(server dry run)") == len(found)


def test_pod_security_would_refuse_less(new_namespace: Callable[[str], str]) -> None:
    home = new_namespace("home")
    _, spec = next(render.pods(render.objects("koinon-site", render.SITE, namespace=home)))
    pod: Any = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "less"},
        "spec": {**spec, "serviceAccountName": "default"},
    }
    kubectl.run("-n", home, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    del pod["spec"]["securityContext"]["runAsNonRoot"]
    with pytest.raises(kubectl.Failed, match=r"violates PodSecurity .*restricted"):
        kubectl.run("-n", home, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
