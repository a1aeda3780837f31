"""The chart of the hub: what becomes of its values."""

import base64
from typing import Any

import pytest
from cryptography import x509

from tests.cluster.rendered import render
from tests.cluster.rendered.render import EVERYTHING, TRIAL, Object, one

EXTERNAL: Object = next(values for chart, name, values in EVERYTHING if (chart, name) == ("koinon-hub", "external"))
NAME = "it-koinon-hub"
AT_INGRESS: Object = {
    "tls": {"atIngress": True},
    "ingress": {"enabled": True, "host": "hub.example.org"},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]},
}


def release(values: Any) -> list[Object]:
    return render.objects("koinon-hub", values, namespace="hub")


def gateway(found: list[Object]) -> Object:
    container: Object = one(found, "StatefulSet", NAME)["spec"]["template"]["spec"]["containers"][0]
    return container


def environment(found: list[Object]) -> dict[str, Any]:
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in gateway(found)["env"]}


def secret_key(name: str, key: str) -> Object:
    return {"secretKeyRef": {"name": name, "key": key}}


def test_the_trial_brings_all_it_needs() -> None:
    found = release(TRIAL)
    assert environment(found) == {
        "KOINON_URL": f"https://{NAME}.hub.svc",
        "KOINON_TLS_CERT": "/etc/koinon/tls/tls.crt",
        "KOINON_TLS_KEY": "/etc/koinon/tls/tls.key",
        "KOINON_DATABASE": f"postgresql://koinon@{NAME}-postgresql/koinon",
        "PGPASSWORD": secret_key(f"{NAME}-postgresql", "password"),
        "KOINON_ARTIFACTS": f"s3://{NAME}-minio:9000/koinon?tls=no",
        "KOINON_S3_ACCESS_KEY": secret_key(f"{NAME}-minio", "access-key"),
        "KOINON_S3_SECRET_KEY": secret_key(f"{NAME}-minio", "secret-key"),
    }
    for name, keys in ((f"{NAME}-postgresql", {"password"}), (f"{NAME}-minio", {"access-key", "secret-key"})):
        secret = one(found, "Secret", name)
        assert {key: len(base64.b64decode(value)) for key, value in secret["data"].items()} == dict.fromkeys(keys, 32)
        assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_production_takes_everything_from_elsewhere() -> None:
    found = release(EXTERNAL)
    assert {o["kind"] for o in found} == {"NetworkPolicy", "Service", "StatefulSet", "ServiceMonitor", "Job"}
    assert environment(found) == {
        "KOINON_URL": f"https://{NAME}.hub.svc",
        "KOINON_TLS_CERT": "/etc/koinon/tls/tls.crt",
        "KOINON_TLS_KEY": "/etc/koinon/tls/tls.key",
        "KOINON_DATABASE": secret_key("hub-database", "url"),
        "KOINON_ARTIFACTS": "s3://s3.example.org:9000/koinon",
        "KOINON_S3_ACCESS_KEY": secret_key("hub-s3", "access-key"),
        "KOINON_S3_SECRET_KEY": secret_key("hub-s3", "secret-key"),
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/etc/koinon/ca/ca.crt",
        "SSL_CERT_FILE": "/etc/koinon/ca/ca.crt",
        "KOINON_METRICS_TOKEN": secret_key("hub-metrics", "token"),
    }
    volumes = {v["name"]: v for v in one(found, "StatefulSet", NAME)["spec"]["template"]["spec"]["volumes"]}
    assert volumes["ca"]["configMap"] == {"name": "our-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    assert volumes["tls"]["secret"]["secretName"] == "hub-tls"


def test_a_private_ca_from_a_secret() -> None:
    found = release(EXTERNAL | {"privateCA": {"existingSecret": "our-ca", "key": "chain.pem"}})
    volumes = {v["name"]: v for v in one(found, "StatefulSet", NAME)["spec"]["template"]["spec"]["volumes"]}
    assert volumes["ca"]["secret"] == {"secretName": "our-ca", "items": [{"key": "chain.pem", "path": "ca.crt"}]}


def test_without_a_private_ca_the_public_ones_verify_the_database() -> None:
    found = environment(release(EXTERNAL | {"privateCA": {}}))
    assert found["PGSSLMODE"] == "verify-full"
    assert f'Path("{found["PGSSLROOTCERT"]}")' in (render.ROOT / "services" / "images" / "rootfs.py").read_text()


def test_the_bundled_database_has_no_certificate() -> None:
    assert "PGSSLMODE" not in environment(release(TRIAL | {"privateCA": {"existingConfigMap": "our-ca"}}))


def test_existing_secrets_replace_the_generated_ones() -> None:
    values = render.merged(TRIAL, {"postgresql": {"existingSecret": "db"}, "minio": {"existingSecret": "s3"}})
    values["tls"] = {"existingSecret": "cert"}
    found = release(values)
    assert [o for o in found if o["kind"] == "Secret"] == []
    assert environment(found)["PGPASSWORD"] == secret_key("db", "password")
    assert environment(found)["KOINON_S3_ACCESS_KEY"] == secret_key("s3", "access-key")
    root = one(found, "StatefulSet", f"{NAME}-minio")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "MINIO_ROOT_PASSWORD", "valueFrom": secret_key("s3", "secret-key")} in root


def test_without_generated_secrets_two_renderings_are_the_same() -> None:
    values = render.merged(TRIAL, {
        "generateSecrets": False,
        "tls": {"generate": False, "existingSecret": "cert", "names": ["hub.example.org"]},
        "postgresql": {"existingSecret": "db"},
        "minio": {"existingSecret": "s3"},
        "monitoring": {"serviceMonitor": {"enabled": True, "existingSecret": "metrics"}},
    })  # fmt: skip
    assert release(values) == release(values | {"gateway": {}})  # which is rendered anew


def test_the_generated_certificate_names_all_its_addresses() -> None:
    values = TRIAL | {"tls": {"generate": True, "names": ["hub.example.org", "192.0.2.7", "2001:db8::7"]}}
    secret = one(release(values), "Secret", f"{NAME}-tls")
    assert secret["type"] == "kubernetes.io/tls"
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    ca, certificate = (
        x509.load_pem_x509_certificate(base64.b64decode(secret["data"][k])) for k in ("ca.crt", "tls.crt")
    )
    certificate.verify_directly_issued_by(ca)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = set(names.get_values_for_type(x509.DNSName)) | {str(a) for a in names.get_values_for_type(x509.IPAddress)}
    service = f"{NAME}.hub"
    inside = {NAME, service, f"{service}.svc", f"{service}.svc.cluster.local", "localhost", "127.0.0.1"}
    assert found == inside | {"hub.example.org", "192.0.2.7", "2001:db8::7"}


def test_tls_may_end_at_the_ingress() -> None:
    found = release(TRIAL | AT_INGRESS)
    assert {"KOINON_TLS_CERT", "KOINON_TLS_KEY"} & environment(found).keys() == set()
    assert environment(found)["KOINON_URL"] == "https://hub.example.org"
    assert gateway(found)["readinessProbe"]["httpGet"]["scheme"] == "HTTP"
    assert one(found, "Service", NAME)["spec"]["ports"] == [{"name": "http", "port": 443, "targetPort": "api"}]


def test_the_ingress() -> None:
    _, _, values = next(case for case in EVERYTHING if case[1] == "bundled")
    spec = one(release(values), "Ingress", "hub")["spec"]
    assert spec["tls"] == [{"hosts": ["hub.example.org"], "secretName": "hub-outside"}]
    assert spec["rules"][0]["http"]["paths"][0]["backend"] == {"service": {"name": "hub", "port": {"number": 8443}}}


@pytest.mark.parametrize("part", ["gateway", "postgresql", "minio"])
def test_volumes_outlive_the_release(part: str) -> None:
    name = NAME if part == "gateway" else f"{NAME}-{part}"
    spec = one(
        release(render.merged(TRIAL, {part: {"persistence": {"size": "7Gi", "storageClass": "fast"}}})),
        "StatefulSet",
        name,
    )["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claim = spec["volumeClaimTemplates"][0]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast", "7Gi")
    spec = one(release(render.merged(TRIAL, {part: {"persistence": {"existingClaim": "mine"}}})), "StatefulSet", name)[
        "spec"
    ]
    assert "volumeClaimTemplates" not in spec
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}} in spec["template"]["spec"]["volumes"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("hub", "hub-koinon-hub"), ("koinon-hub", "koinon-hub"), ("my-koinon-hub-2", "my-koinon-hub-2")],
)
def test_names(given: str, wanted: str) -> None:
    assert one(render.objects("koinon-hub", TRIAL, release=given), "StatefulSet", wanted)


def test_policies_open_what_is_needed_and_nothing_else() -> None:
    found = release(TRIAL)
    own = one(found, "NetworkPolicy", NAME)["spec"]
    assert own["policyTypes"] == ["Ingress", "Egress"]
    assert own["ingress"] == [{"ports": [{"protocol": "TCP", "port": 8470}]}]
    ports = [[(p["protocol"], p["port"]) for p in rule["ports"]] for rule in own["egress"]]
    assert ports == [[("UDP", 53), ("TCP", 53)], [("TCP", 5432)], [("TCP", 9000)]]
    assert all(rule["to"] for rule in own["egress"])
    for part, port in (("postgresql", 5432), ("minio", 9000)):
        spec = one(found, "NetworkPolicy", f"{NAME}-{part}")["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert "egress" not in spec
        [rule] = spec["ingress"]
        assert rule["ports"] == [{"protocol": "TCP", "port": port}]
        [peer] = rule["from"]
        assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"


def test_policies_for_parts_outside() -> None:
    egress = one(release(EXTERNAL), "NetworkPolicy", NAME)["spec"]["egress"]
    assert [(rule["to"], rule["ports"][0]["port"]) for rule in egress[1:]] == [
        ([{"ipBlock": {"cidr": "192.0.2.10/32"}}], 5432),
        ([{"ipBlock": {"cidr": "192.0.2.20/32"}}], 9000),
    ]


@pytest.mark.parametrize(
    ("url", "port"),
    [("s3://s/b", 443), ("s3://s:9000/b", 9000), ("s3://s/b?tls=no", 80), ("s3://s:9000/b?tls=no", 9000),
     ("s3://[2001:db8::7]/b", 443), ("s3://[2001:db8::7]:9000/b", 9000)],
)  # fmt: skip
def test_the_store_s_port_is_the_url_s(url: str, port: int) -> None:
    egress = one(release(render.merged(EXTERNAL, {"artifacts": {"url": url}})), "NetworkPolicy", NAME)["spec"]["egress"]
    assert egress[-1]["ports"] == [{"protocol": "TCP", "port": port}]


def test_policies_can_narrow_who_comes_in_and_be_left_out() -> None:
    peers = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    [rule] = one(release(TRIAL | {"networkPolicy": {"from": peers}}), "NetworkPolicy", NAME)["spec"]["ingress"]
    assert rule["from"][:1] == peers
    assert rule["from"][1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    assert not [o for o in release(TRIAL | {"networkPolicy": {"enabled": False}}) if o["kind"] == "NetworkPolicy"]


def test_prometheus_comes_in_beside_those_that_are_named() -> None:
    peers: list[Object] = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    values = TRIAL | {"networkPolicy": {"from": peers}, "monitoring": {"namespace": "watching"}}
    [rule] = one(release(values), "NetworkPolicy", NAME)["spec"]["ingress"]
    watching = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watching"}}}
    assert rule["from"][:2] == [*peers, watching]
    [rule] = one(release(TRIAL | {"monitoring": {"namespace": "watching"}}), "NetworkPolicy", NAME)["spec"]["ingress"]
    assert "from" not in rule  # everybody, still


def test_the_service_says_who_comes() -> None:
    spec = one(release(EXTERNAL), "Service", NAME)["spec"]
    assert spec["externalTrafficPolicy"] == "Local"
    assert spec["loadBalancerSourceRanges"] == ["198.51.100.0/24"]
    spec = one(release(TRIAL), "Service", NAME)["spec"]
    assert not spec.keys() & {"externalTrafficPolicy", "loadBalancerSourceRanges"}


def test_nothing_is_of_the_cluster() -> None:
    kinds = {
        "Namespace",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "PriorityClass",
        "StorageClass",
    }
    assert not [
        o for chart, _, values in render.CASES if chart == "koinon-hub" for o in release(values) if o["kind"] in kinds
    ]
