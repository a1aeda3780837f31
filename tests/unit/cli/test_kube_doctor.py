"""The doctor looks at pictures of hospitals: a healthy one, and the same with one thing wrong at a time.

That the pictures are what a real API server shows is tested on the node (tests/cluster).
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

from koinon.cli.kube import doctor
from koinon.cli.kube.gather import Picture
from koinon.cli.kube.hospital import Hospital
from koinon.cli.kube.kubectl import Kubectl

NOW = 1_800_000_000.0
HASH = "ab" * 32
Change = Callable[[Picture], Picture]


def pod(component: str, *, ready: bool = True, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    labels = {"app.kubernetes.io/component": component}
    return {
        "metadata": {"name": f"{component}-0", "namespace": "lyon", "labels": labels},
        "status": {"phase": "Running", "conditions": conditions, **status},
    }


def ray_pod(**status: Any) -> dict[str, Any]:
    found = pod("ray", **status)
    found["metadata"] |= {"name": "p-abababababab-head-x", "namespace": "lyon-work"}
    found["metadata"]["labels"] = {"koinon.dev/project": HASH[:12]}
    return found


def warning(about: str, message: str) -> dict[str, Any]:
    return {"type": "Warning", "involvedObject": {"name": about}, "message": message, "lastTimestamp": "2027-01-15"}


def grant(**conditions: tuple[str, str, str]) -> dict[str, Any]:
    told = {"Ready": ("True", "Ready", ""), **conditions}
    listed = [{"type": k, "status": s, "reason": r, "message": m} for k, (s, r, m) in told.items()]
    return {
        "metadata": {"name": "heart-abababab"},
        "spec": {"manifest": HASH, "expires": NOW + 9},
        "status": {"conditions": listed},
    }


def healthy() -> Picture:
    site = {
        "metadata": {"name": "lyon"},
        "spec": {
            "root": "cd" * 32,
            "workNamespace": "lyon-work",
            "hub": {"url": "https://hub.example", "cidrs": ["203.0.113.4/32"]},
            "datasets": [{"name": "heart", "claimName": "heart", "path": "heart.csv"}],
        },
    }
    closed = {
        "metadata": {"name": "default-deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }
    claim = {"metadata": {"name": "heart"}, "status": {"phase": "Bound"}}
    agent = {"version": "0.1.0", "connected": True, "clock_offset": 0.0, "certificate_expires": NOW + 90 * 86_400}
    return Picture(
        Hospital(Kubectl("lyon"), "lyon", site),
        [grant()],
        {"pods": [pod("agent"), pod("operator")]},
        {
            "pods": [ray_pod()],
            "persistentvolumeclaims": [claim],
            "networkpolicies": [closed],
            "resourcequotas": [{}],
        },
        frozenset({"koinon-agent"}),
        agent,
    )


def here(**kinds: Any) -> Change:
    return lambda picture: dataclasses.replace(picture, here={**picture.here, **kinds})


def work(**kinds: Any) -> Change:
    return lambda picture: dataclasses.replace(picture, work={**picture.work, **kinds})


def agent(**said: Any) -> Change:
    return lambda picture: dataclasses.replace(picture, agent={**(picture.agent or {}), **said})


def grants(*found: Any) -> Change:
    return lambda picture: dataclasses.replace(picture, grants=list(found))


def silent(picture: Picture) -> Picture:
    return dataclasses.replace(picture, agent=None)


def planned(picture: Picture) -> Picture:
    return dataclasses.replace(picture, hospital=dataclasses.replace(picture.hospital, declared=False))


def mounting(**secrets: str) -> dict[str, Any]:
    """The agent's StatefulSet with these Secrets as volumes."""
    volumes = [{"name": name, "secret": {"secretName": secret}} for name, secret in secrets.items()]
    return {"spec": {"template": {"spec": {"volumes": volumes}}}}


AWAY = "https://hub.example: The hub does not answer ({})."
UNKNOWN = 'No site "lyon" is enrolled here. Enrol it: koinon site init'
OPEN = ("False", "EgressOpen", "reachable: 10.96.0.1:443")
PULL = {"containerStatuses": [{"name": "a", "image": "reg/x:1", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}
OOM = {"containerStatuses": [{"name": "ray-head", "state": {}, "lastState": {"terminated": {"reason": "OOMKilled"}}}]}
FAULTS: dict[str, tuple[list[Change], str]] = {
    "no KubeRay": (
        [lambda p: dataclasses.replace(p, troubles={"rayclusters.ray.io of lyon-work": "no such resource type"})],
        "KubeRay.*not installed",
    ),
    "operator scaled to zero": (
        [
            here(
                pods=[pod("agent")],
                deployments=[{"metadata": {"name": "koinon-operator"}, "spec": {"replicas": 0}}],
            )
        ],
        "operator.*scaled to zero",
    ),
    "keys missing": (
        [
            lambda p: dataclasses.replace(p, secrets=frozenset()),
            here(pods=[pod("agent", ready=False), pod("operator")]),
            here(events=[warning("agent-0", 'MountVolume.SetUp failed: secret "koinon-agent" not found')]),
            silent,
        ],
        "keys.*no Secret koinon-agent",
    ),
    "image cannot be pulled": (
        [here(pods=[pod("agent", ready=False, **PULL), pod("operator")]), silent],
        "reg/x:1 cannot be pulled.*image.registry",
    ),
    "hub's CA": (
        [agent(connected=False, trouble=AWAY.format("its certificate is not trusted: self-signed certificate"))],
        "hub: .*self-signed.*Last contact: never.*CA that the agent trusts",
    ),
    "hub outside the CIDRs": (
        [agent(connected=False, trouble=AWAY.format("ConnectTimeout"), last_contact=NOW - 600)],
        r"hub.*Last contact: 10 min ago.*open to 203\.0\.113\.4/32.*hub\.cidrs",
    ),
    "hub's name": ([agent(connected=False, trouble=AWAY.format("its name does not resolve"))], r"hub.*hub\.url"),
    "no invitation": (
        [agent(connected=False, trouble=UNKNOWN)],
        r"hub.*Secret koinon-invitation is not there \(agent\.invitation\.existingSecret\)",
    ),
    "invitation refused": (
        [
            agent(connected=False, trouble=UNKNOWN),
            lambda p: dataclasses.replace(p, secrets=frozenset({"koinon-agent", "invited"})),
            here(statefulsets=[mounting(invitation="invited")]),
        ],
        "hub.*Secret invited holds none that the hub takes: kubectl koinon logs",
    ),
    "certificate refused": (
        [agent(connected=False, trouble="The certificate of lyon is not valid now. Renew it")],
        r"Renew it Last contact: never\.$",
    ),
    "no Site, the job cannot start": (
        [planned, here(pods=[pod("agent"), pod("operator"), pod("hook", ready=False, **PULL)])],
        "Site: pod hook-0: the image reg/x:1 cannot be pulled",
    ),
    "clock off": ([agent(clock_offset=400.0)], r"clock.*\+400 s"),
    "certificate ended": ([agent(certificate_expires=NOW - 5)], "certificate.*renew"),
    "claim missing": ([work(persistentvolumeclaims=[])], "data set heart.*no claim heart"),
    "walls missing": ([work(networkpolicies=[])], "walls.*nothing denies"),
    "quota": ([work(events=[warning("p-1", "pods forbidden: exceeded quota: hospital")])], "quota.*exceeded quota"),
    "egress open": (
        [grants(grant(Ready=OPEN, EgressDenied=OPEN))],
        "heart-abababab.*EgressOpen.*10.96.0.1",
    ),
    "signature": (
        [grants(grant(Verified=("False", "BadSignature", "The signature is not by key")))],
        "heart-abababab.*BadSignature",
    ),
    "out of memory": (
        [
            grants(grant(ClusterReady=("False", "PodsNotReady", "head restarts"))),
            work(pods=[ray_pod(ready=False, **OOM)]),
        ],
        "ray-head needed more memory.*--memory",
    ),
    "no room": (
        [
            grants(grant(ClusterReady=("False", "ClusterTimeout", "no pod"))),
            work(
                pods=[
                    ray_pod(
                        ready=False,
                        conditions=[{"type": "PodScheduled", "status": "False", "message": "Insufficient cpu."}],
                    )
                ]
            ),
        ],
        "no node takes it: Insufficient cpu",
    ),
}  # fmt: skip


def test_a_healthy_hospital_has_nothing_to_repair() -> None:
    found = doctor.examine(healthy(), NOW)
    assert {finding.state for finding in found} == {"good"}
    assert {"KubeRay", "operator", "agent", "hub", "clock", "walls", "quota", "data set heart"} <= {
        f.what for f in found
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_finds_the_fault(fault: str) -> None:
    changes, expected = FAULTS[fault]
    picture = healthy()
    for change in changes:
        picture = change(picture)
    lines = [finding.line() for finding in doctor.examine(picture, NOW) if finding.state == "bad"]
    assert lines
    assert re.search(expected, "\n".join(lines), re.M), lines


def test_an_ended_grant_is_told_and_nothing_to_repair() -> None:
    for kind, word in (("Revoked", "revoked"), ("Expired", "expired")):
        picture = grants(grant(Ready=("False", kind, ""), **{kind: ("True", kind, "")}))(healthy())
        found = [f for f in doctor.examine(picture, NOW) if f.what.startswith("grant")]
        assert [f.state for f in found] == ["warn"]
        assert word in found[0].said


def test_a_cluster_that_starts_is_told_and_nothing_to_repair() -> None:
    starting = [
        grants(grant(ClusterReady=("False", "Creating", "The head is starting."))),
        work(pods=[ray_pod(ready=False)]),
    ]
    picture = healthy()
    for change in starting:
        picture = change(picture)
    found = [finding for finding in doctor.examine(picture, NOW) if finding.what.startswith("grant")]
    assert [(finding.state, finding.said) for finding in found] == [("warn", "Creating: The head is starting.")]


def test_an_undeclared_site_comes_after_what_keeps_it_from_being_declared() -> None:
    picture = agent(connected=False, trouble=AWAY.format("ConnectTimeout"))(planned(healthy()))
    bad = [finding for finding in doctor.examine(picture, NOW) if finding.state == "bad"]
    assert [finding.what for finding in bad] == ["hub", "Site"]
    assert "helm upgrade" in bad[1].todo


def test_kuberay_that_may_start_pods_beside_the_agent_is_told() -> None:
    picture = dataclasses.replace(healthy(), intruder="ray:operator")
    [told] = [finding for finding in doctor.examine(picture, NOW) if finding.state != "good"]
    assert (told.what, told.state) == ("KubeRay's rights", "warn")
    assert "ray:operator may start pods in lyon" in told.said
