"""What somebody with rights in the work namespace may try: nothing of it lets a pod out, or outlives a grant."""

import base64
import logging
from typing import Any

import pytest

from koinon.domain.errors import TooLarge
from koinon_operator.kinds import (
    CONFIG_MAP,
    GRANT,
    NETWORK_POLICY,
    POD,
    RAY_CLUSTER,
    SECRET,
    SERVICE,
    SITE,
    Object,
)
from koinon_operator.names import CONSENTS, DENIAL, DENY_ALL, PROJECT, RAY_SECRET, cluster, head, short
from koinon_operator.objects import tokens
from koinon_operator.reconcile import removal
from tests.unit.operator import samples
from tests.unit.operator.rooms import HOME, WORK, Room


@pytest.fixture
def room() -> Room:
    return Room()


def policy(name: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    wanted = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], **spec}
    return NETWORK_POLICY.make(WORK, name, {"spec": wanted}, labels=labels or {})


def revoke(room: Room) -> None:
    room.now += 5
    (name,) = room.names(GRANT)
    given = samples.revocation(samples.grant(), now=room.now)

    def change(grant: Object) -> None:
        grant["spec"]["revocation"] = {"time": given.time, "signature": given.signature}

    room.edit(GRANT, name, change, namespace=HOME)
    room.settle()


def test_a_granted_project_gets_its_cluster(room: Room) -> None:
    manifest = room.grant()
    room.pod(manifest)
    assert room.names(RAY_CLUSTER) == [cluster(short(manifest.digest()))]
    assert room.condition(GRANT, "Ready") == ("True", "Ready")
    assert room.condition(SITE, "Isolated") == ("True", "DenyAll")


@pytest.mark.parametrize("labels", [{}, {PROJECT: "0123456789ab"}], ids=["plain", "as if a project's"])
def test_a_policy_that_lets_traffic_out_stops_everything(room: Room, labels: dict[str, str]) -> None:
    room.pod(room.grant())
    room.put(policy("open", labels, egress=[{}]))
    room.settle()
    assert room.names(POD) == room.names(RAY_CLUSTER) == []
    assert room.condition(SITE, "Isolated") == room.condition(GRANT, "EgressDenied") == ("False", "ForeignPolicy")
    assert any(reason == "ForeignPolicy" and "open" in message for reason, message in room.server.events)
    room.server.delete(NETWORK_POLICY, WORK, "open")
    room.settle()
    assert len(room.names(RAY_CLUSTER)) == 1
    assert room.condition(SITE, "Isolated") == ("True", "DenyAll")


def test_a_policy_that_only_denies_is_no_matter(room: Room) -> None:
    room.pod(room.grant())
    room.put(policy("platform-deny"))
    room.settle()
    assert room.condition(GRANT, "Ready") == ("True", "Ready")


def test_a_project_s_policy_that_is_left_over_opens_nothing(room: Room) -> None:
    room.pod(room.grant())
    own = {"podSelector": {"matchLabels": {PROJECT: "0123456789ab"}}, "egress": [{}]}
    room.put(policy(cluster("0123456789ab"), {PROJECT: "0123456789ab"}, **own))
    room.settle()
    assert room.condition(GRANT, "Ready") == ("True", "Ready")
    assert cluster("0123456789ab") not in room.names(NETWORK_POLICY)


@pytest.mark.parametrize("name", [cluster, head])
def test_a_project_s_own_wall_is_repaired_whatever_became_of_it(room: Room, name: Any) -> None:
    project = short(room.grant().digest())
    before = room.server.get(NETWORK_POLICY, WORK, name(project))

    def open_it(found: Object) -> None:
        found["spec"] |= {"podSelector": {}, "egress": [{}], "ingress": [{}], "policyTypes": ["Ingress", "Egress"]}
        found["metadata"]["labels"] = {}

    room.edit(NETWORK_POLICY, name(project), open_it)
    room.settle()
    after = room.server.get(NETWORK_POLICY, WORK, name(project))
    assert (after["spec"], after["metadata"]["labels"]) == (before["spec"], before["metadata"]["labels"])
    assert room.condition(SITE, "Isolated") == ("True", "DenyAll")


def mount_other_data(found: Object) -> None:
    spec = found["spec"]["headGroupSpec"]["template"]["spec"]
    spec["volumes"].append({"name": "other", "persistentVolumeClaim": {"claimName": "genomes"}})
    spec["containers"][0]["volumeMounts"].append({"name": "other", "mountPath": "/other"})


def test_a_pod_of_an_edited_cluster_goes_with_the_edit(room: Room) -> None:
    """KubeRay made it of the edited template; that is repaired, and the pod must not stay."""
    manifest = room.grant()
    name = cluster(short(manifest.digest()))
    edited = room.server.get(RAY_CLUSTER, WORK, name)
    mount_other_data(edited)
    room.edit(RAY_CLUSTER, name, mount_other_data)
    room.put(samples.pod(edited, "head", suffix="edited"))
    room.settle()
    assert room.names(POD) == []
    assert "other" not in str(room.server.get(RAY_CLUSTER, WORK, name)["spec"])


def test_while_someone_keeps_changing_the_cluster_nothing_runs(room: Room) -> None:
    manifest = room.grant()
    name = cluster(short(manifest.digest()))
    for _ in range(12):
        if name in room.names(RAY_CLUSTER):
            room.edit(RAY_CLUSTER, name, mount_other_data)
            room.put(samples.pod(room.server.get(RAY_CLUSTER, WORK, name), "head", suffix="edited"))
            room.settle()
    assert room.names(POD) == room.names(RAY_CLUSTER) == []
    assert room.condition(GRANT, "ClusterReady") == ("False", "Contested")
    room.later(3_600)
    assert room.names(RAY_CLUSTER) == [name]


def test_while_someone_keeps_changing_what_is_tried_nothing_runs(room: Room) -> None:
    room.pod(room.grant())
    for _ in range(12):
        room.edit(CONFIG_MAP, DENIAL, lambda found: found["data"].update(targets="127.0.0.1:12"))
        room.settle()
    assert room.names(POD) == []
    assert room.condition(SITE, "Isolated") == ("False", "Contested")


def test_a_wall_that_cannot_go_costs_no_loop(room: Room) -> None:
    room.pod(room.grant())
    gone = {"finalizers": ["example.org/keep"], "deletionTimestamp": "2023-11-14T22:13:20Z"}
    room.edit(NETWORK_POLICY, DENY_ALL, lambda found: found["metadata"].update(gone))
    room.settle()
    assert room.names(POD) == []


def test_a_pod_with_a_grace_of_a_day_ends_with_its_grant(room: Room) -> None:
    pod = room.pod(room.grant())["metadata"]["name"]
    going = {"deletionTimestamp": "2023-11-15T22:13:20Z", "deletionGracePeriodSeconds": 86_400}
    room.edit(POD, pod, lambda found: found["metadata"].update(going))
    room.settle()
    revoke(room)
    assert ("delete", "Pod", pod) in room.server.calls
    assert room.condition(GRANT, "Revoked")[0] == "True"


def test_a_pod_that_loses_its_labels_ends(room: Room) -> None:
    pod = room.pod(room.grant())["metadata"]["name"]
    room.edit(POD, pod, lambda found: found["metadata"].update(labels={}, ownerReferences=[]))
    room.settle()
    assert room.names(POD) == []
    assert any(reason == "PodRemoved" for reason, _ in room.server.events)


@pytest.mark.parametrize("how", ["edited", "deleted"])
def test_a_revocation_outlives_an_edit_of_what_keeps_it(room: Room, how: str) -> None:
    manifest = room.grant()
    revoke(room)
    (name,) = room.names(GRANT)
    room.server.delete(GRANT, HOME, name)
    room.settle()
    if how == "edited":
        room.edit(CONFIG_MAP, CONSENTS, lambda found: found.pop("data"), namespace=HOME)
    else:
        room.server.delete(CONFIG_MAP, HOME, CONSENTS)
    room.settle()
    assert f"revocations.{manifest.digest()}.json" in room.server.get(CONFIG_MAP, HOME, CONSENTS)["data"]
    room.put(samples.grant_resource(manifest))
    room.settle()
    assert room.names(RAY_CLUSTER) == []
    assert room.condition(GRANT, "Revoked")[0] == "True"


def test_a_service_without_an_address_is_made_anew(room: Room) -> None:
    project = short(samples.manifest().digest())
    made = room.put(SERVICE.make(WORK, head(project), {"spec": {"clusterIP": "None"}}))
    room.grant()
    service = room.server.get(SERVICE, WORK, head(project))
    assert service["metadata"]["uid"] != made["metadata"]["uid"]
    assert service["spec"]["clusterIP"] == "10.96.9.9"
    pod = room.server.get(RAY_CLUSTER, WORK, cluster(project))["spec"]["headGroupSpec"]["template"]["spec"]
    assert pod["hostAliases"][0]["ip"] == "10.96.9.9"


def test_more_grants_than_a_config_map_holds_are_told(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.grant()
    create, replace = room.server.create, room.server.replace

    def full(call: Any) -> Any:
        def refuse(kind: Any, body: Object) -> Object:
            if kind == CONFIG_MAP and len(body.get("data", {})) > 1:
                raise TooLarge("Request entity too large.")
            found: Object = call(kind, body)
            return found

        return refuse

    monkeypatch.setattr(room.server, "create", full(create))
    monkeypatch.setattr(room.server, "replace", full(replace))
    room.grant("lungs")
    room.later(1)
    assert room.condition(SITE, "AgentInformed") == ("False", "TooManyGrants")
    assert room.condition(SITE, "Ready")[0] == "False"
    assert len(room.names(RAY_CLUSTER)) == 2


def test_looks_at_what_does_not_go_become_seldom() -> None:
    assert removal.look_again(100.0, 100.0) == 0.5
    assert removal.look_again(100.0, 130.0) == 3.0
    assert removal.look_again(100.0, 90_000.0) == 10.0


def test_an_api_server_with_a_name_is_tried_at_its_address(room: Room) -> None:
    room.server.address = ("localhost", 6443)
    room.grant()
    room.world.lookup.refresh(lambda: room.queue.add((HOME, "")))
    room.settle()
    targets = room.server.get(CONFIG_MAP, WORK, DENIAL)["data"]["targets"].split()
    assert {"127.0.0.1:6443", "[::1]:6443"} & set(targets)
    assert not any(target.startswith("localhost") for target in targets)


def test_no_token_is_told(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    """Also when somebody edits the Secrets, of which the difference is told."""
    caplog.set_level(logging.DEBUG)
    manifest = room.grant()
    room.pod(manifest)
    known = room.server.get(SECRET, HOME, RAY_SECRET)["data"]["secret"]
    token = tokens.token(base64.b64decode(known), manifest.digest())
    for namespace in (HOME, WORK):
        room.edit(SECRET, RAY_SECRET, lambda found: found["data"].update(more=known), namespace=namespace)
        room.settle()
    told = caplog.text + str(room.server.events) + str([obj.get("status") for obj in room.server.objects.values()])
    assert "DriftRepaired" in told
    assert not [secret for secret in (known, token, base64.b64encode(token.encode()).decode()) if secret in told]
