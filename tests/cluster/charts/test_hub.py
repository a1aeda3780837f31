"""The hub's chart on a cluster: a trial, its upgrade, what stays of it; and one whose parts are elsewhere."""

import json
import re
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import kubectl, pods
from tests.cluster.charts import releases
from tests.cluster.charts.certificates import Authority, Certificate
from tests.cluster.rendered.render import Object, merged

pytestmark = pytest.mark.usefixtures("images")
NAME = "hub-koinon-hub"
PARTS = (f"{NAME}-postgresql", f"{NAME}-minio", f"{NAME}-tls")


def ask(namespace: str, path: str, ca: Path) -> tuple[int, Object]:
    """Status and JSON of an answer from the hub's Service, whose certificate is verified with `ca`."""
    address = kubectl.required("service", NAME, namespace)["spec"]["clusterIP"]
    context = ssl.create_default_context(cafile=str(ca))
    name = f"{NAME}.{namespace}.svc"
    with (
        socket.create_connection((address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65_536), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def ready(namespace: str, ca: Path) -> Object:
    """What it says of itself once its Service answers that it is ready."""

    def answer() -> Object:
        try:
            status, found = ask(namespace, "/readyz", ca)
        except OSError:
            return {}
        return found if status == 200 else {}

    return kubectl.until(answer, "the hub is ready", seconds=60)


def reaches(namespace: str, pod: str, target: str) -> bool:
    try:
        kubectl.execute(namespace, pod, "timeout", "3", "nc", *target.split(":"), "-e", "true")
    except kubectl.Failed:
        return False
    return True


@pytest.mark.timeout(900)
def test_a_trial_from_install_to_uninstall_and_back(new_namespace: Callable[[str], str], tmp_path: Path) -> None:
    namespace = new_namespace("hub")
    notes = releases.install("hub", "koinon-hub", namespace, releases.TRIAL, "--wait")
    assert f"helm test hub -n {namespace}" in notes
    before = {name: releases.read_secret(namespace, name) for name in PARTS}
    ca = tmp_path / "ca.crt"
    ca.write_text(before[f"{NAME}-tls"]["ca.crt"])
    assert ready(namespace, ca)["checks"] == {"database": "ok", "artifacts": "ok", "disk": "ok"}
    tested = subprocess.run(["helm", "test", "hub", "-n", namespace], capture_output=True, text=True, timeout=120)
    assert tested.returncode == 0, tested.stderr
    fingerprint = ask(namespace, "/v1/hub", ca)[1]["fingerprint"]
    assert f"fingerprint {fingerprint}" in tested.stdout + tested.stderr

    kubectl.apply(pods.pod(namespace, "stranger"))
    kubectl.wait(namespace, "pod/stranger", "condition=Ready")
    kubectl.until(lambda: reaches(namespace, "stranger", f"{NAME}:443"), "a stranger reaches the hub")
    assert not reaches(namespace, "stranger", f"{NAME}-postgresql:5432")
    assert not reaches(namespace, "stranger", f"{NAME}-minio:9000")
    kubectl.run("-n", namespace, "delete", "pod", "stranger", "--grace-period=0", "--force")

    releases.install("hub", "koinon-hub", namespace, merged(releases.TRIAL, {"gateway": {"awayAfter": 30}}), "--wait")
    assert {name: releases.read_secret(namespace, name) for name in PARTS} == before
    assert ready(namespace, ca)

    kubectl.helm("uninstall", "hub", "-n", namespace, "--wait")
    claims = {f"persistentvolumeclaim/data-{name}-0" for name in (NAME, f"{NAME}-postgresql", f"{NAME}-minio")}
    releases.require_left(namespace, claims | {f"secret/{name}" for name in PARTS})

    releases.install("hub", "koinon-hub", namespace, releases.TRIAL, "--wait")
    assert ready(namespace, ca)
    assert ask(namespace, "/v1/hub", ca)[1]["fingerprint"] == fingerprint


def server(namespace: str, name: str, certificate: Certificate, port: int, container: Object) -> list[Object]:
    """A pod that serves at NAME:port, with its certificate in /tls."""
    own = {
        "volumeMounts": [
            {"name": "tls", "mountPath": "/tls"},
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
    }
    files = {"name": "tls", "secret": {"secretName": name, "defaultMode": 0o440}}
    volumes = [files, {"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    made = pods.pod(namespace, name, container=container | own, volumes=volumes)
    if name == "database":
        made["spec"]["securityContext"] |= {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }
    keys = releases.secret(namespace, name, public_crt=certificate.certificate, private_key=certificate.key)
    return [keys, made, service]


DATABASE = """
initdb --pgdata=/data/pg --username=hub --pwfile=/dev/stdin --auth=scram-sha-256 --encoding=UTF8 <<P
correct horse
P
echo 'hostssl all all all scram-sha-256' >>/data/pg/pg_hba.conf
exec postgres -D /data/pg -c listen_addresses='*' -c unix_socket_directories=/tmp -c ssl=on \
  -c ssl_cert_file=/tls/public.crt -c ssl_key_file=/tls/private.key
"""


@pytest.mark.timeout(600)
def test_database_and_store_elsewhere_under_a_private_ca(new_namespace: Callable[[str], str], tmp_path: Path) -> None:
    namespace, authority = new_namespace("production"), Authority("the organisation's own CA")
    names = {part: f"{part}.{namespace}.svc" for part in ("database", "store")}
    own = authority.issue(f"{NAME}.{namespace}.svc")
    keys = [{"name": "MINIO_ROOT_USER", "value": "hub"}, {"name": "MINIO_ROOT_PASSWORD", "value": "battery staple"}]
    minio = {
        "image": pods.image("minio"),
        "command": ["minio", "server", "/data", "--address=:9000", "--certs-dir=/tls", "--quiet"],
        "env": [*keys, {"name": "HOME", "value": "/tmp"}],
    }
    postgresql = {"image": pods.image("postgresql"), "command": ["sh", "-ec", DATABASE]}
    url = f"postgresql://{names['database']}/postgres?user=hub&password=correct%20horse"
    kubectl.apply(
        *server(namespace, "database", authority.issue(names["database"]), 5432, postgresql),
        *server(namespace, "store", authority.issue(names["store"]), 9000, minio),
        releases.secret(namespace, "hub-tls", tls_crt=own.certificate, tls_key=own.key),
        releases.secret(namespace, "hub-database", url=url),
        releases.secret(namespace, "hub-s3", access__key="hub", secret__key="battery staple"),
    )
    kubectl.run("-n", namespace, "create", "configmap", "our-ca", f"--from-literal=ca.crt={authority.certificate}")
    for name in ("database", "store"):
        kubectl.wait(namespace, f"pod/{name}", "condition=Ready", 90)

    def address(pod: str) -> list[str]:
        return [f"{kubectl.required('pod', pod, namespace)['status']['podIP']}/32"]

    values = merged(
        releases.HUB,
        {
            "tls": {"existingSecret": "hub-tls"},
            "database": {"existingSecret": "hub-database", "cidrs": address("database")},
            "artifacts": {
                "url": f"s3://{names['store']}:9000/koinon",
                "existingSecret": "hub-s3",
                "cidrs": address("store"),
            },
            "privateCA": {"existingConfigMap": "our-ca"},
        },
    )
    releases.install("hub", "koinon-hub", namespace, values, "--wait")
    ca = tmp_path / "ca.crt"
    ca.write_text(authority.certificate)
    assert ready(namespace, ca)["checks"] == {"database": "ok", "artifacts": "ok", "disk": "ok"}

    # Without the setting it trusts neither of them.
    kubectl.run("-n", namespace, "scale", f"statefulset/{NAME}", "--replicas=0")
    kubectl.wait(namespace, f"pod/{NAME}-0", "delete")
    releases.install("hub", "koinon-hub", namespace, merged(values, {"privateCA": {"existingConfigMap": ""}}))

    def refused() -> bool:
        listed = kubectl.get("pod", f"{NAME}-0", namespace)
        states = (listed or {}).get("status", {}).get("containerStatuses", [])
        return any(state["restartCount"] > 0 for state in states)

    kubectl.until(refused, "the hub gives up", seconds=90)
    told = kubectl.run("-n", namespace, "logs", f"{NAME}-0", "--previous")
    assert re.search("object store does not answer|certificate", told), told
