"""The schemas and rules of Site and Grant, as the API server enforces them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from koinon.domain.errors import Invalid
from koinon_operator.kinds import GRANT, SITE, Object
from koinon_operator.kube import Kube
from tests.cluster import kubectl
from tests.unit.operator import samples

SAMPLES = Path(__file__).parents[3] / "operators/samples"
Change = Callable[[Object], Any]
LATER = samples.NOW + 100


def _put(path: str, value: Any) -> Change:
    """A change of the field at `path`."""
    *parents, last = path.split(".")

    def change(spec: Object) -> None:
        for parent in parents:
            spec = spec[parent]
        spec[last] = value

    return change


def _drop(name: str) -> Change:
    return lambda spec: spec.pop(name)


GOOD_SITES: dict[str, Change] = {
    "as it is": lambda spec: None,
    "quantities": _put("quota", {"cpu": "1500m", "memory": 2**34, "pods": 3}),
    "a hub at an address": _put("hub.url", "https://[fd00::1]:8470/koinon"),
    "all of it": lambda spec: spec.update(
        imagePullSecrets=[{"name": "pull"}],
        egressProbes=["10.0.0.1:443", "[fd00::1]:53/udp"],
        requestPercent=5,
        monitoringNamespace="monitoring",
        nodeSelector={"gpu": "yes"},
        tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        datasets=[{"name": "heart", "claimName": "heart", "path": "a/b.csv", "subPath": "c/d"}],
    ),
}
BAD_SITES: dict[str, tuple[Change, str]] = {
    "no root": (_drop("root"), "spec.root"),
    "root in capitals": (_put("root", "AB" * 32), "spec.root"),
    "no hub": (_drop("hub"), "spec.hub"),
    "hub with a password": (_put("hub.url", f"https://me{':'}secret@hub.example.org"), "spec.hub.url"),
    "hub by FTP": (_put("hub.url", "ftp://hub.example.org"), "spec.hub.url"),
    "hub at a port that is none": (_put("hub.url", "https://hub.example.org:84700"), "port"),
    "hub at port 0": (_put("hub.url", "https://hub.example.org:0"), "port"),
    "hub at a port of letters": (_put("hub.url", "https://hub.example.org:abc"), "spec.hub.url"),
    "hub at half an address": (_put("hub.url", "https://[::1"), "spec.hub.url"),
    "hub with an empty label": (_put("hub.url", "https://hub..example.org"), "spec.hub.url"),
    "hub with a long label": (_put("hub.url", f"https://{'a' * 64}.example.org"), "spec.hub.url"),
    "no network": (_put("hub.cidrs", []), "spec.hub.cidrs"),
    "a name as network": (_put("hub.cidrs", ["hub.example.org"]), "This is no network"),
    "two data sets of a name": (lambda s: s["datasets"].append(dict(s["datasets"][0])), "Duplicate"),
    "a path that climbs": (_put("datasets", [{"name": "a", "claimName": "b", "path": "../etc/passwd"}]), '".."'),
    "an absolute path": (_put("datasets", [{"name": "a", "claimName": "b", "path": "/etc/passwd"}]), "relative"),
    "a folder that climbs": (
        _put("datasets", [{"name": "a", "claimName": "b", "path": "c", "subPath": "d/../.."}]),
        '".."',
    ),
    "a data set with a bad name": (_put("datasets", [{"name": "A/b", "claimName": "b", "path": "c"}]), "name"),
    "no cores": (_put("quota.cpu", 0), "no number of cores"),
    "cores of letters": (_put("quota.cpu", "many"), "no number of cores"),
    "negative memory": (_put("quota.memory", "-1Gi"), "no amount of memory"),
    "no pods": (_put("quota.pods", 0), "spec.quota.pods"),
    "a probe without a port": (_put("egressProbes", ["10.0.0.1"]), "spec.egressProbes"),
    "a probe of a name": (_put("egressProbes", ["intranet.example:80"]), "spec.egressProbes"),
    "a probe of no address": (_put("egressProbes", ["10.0.0.256:80"]), "This is no address"),
    "a probe of a port that is none": (_put("egressProbes", ["[fd00::1]:65536/udp"]), "port"),
    "more than all": (_put("requestPercent", 101), "spec.requestPercent"),
}
GOOD_GRANTS: dict[str, Change] = {
    "as it is": lambda spec: None,
    "without its document": _drop("document"),
    "revoked from the start": _put("revocation", {"time": samples.NOW, "signature": "0" * 128}),
}
BAD_GRANTS: dict[str, tuple[Change, str]] = {
    **{
        f"no {name}": (_drop(name), f"spec.{name}")
        for name in ("manifest", "signature", "resources", "vouched", "minSites")
    },
    "a short hash": (_put("manifest", "ab" * 31), "spec.manifest"),
    "a short signature": (_put("signature", "ab" * 63), "spec.signature"),
    "ends before it starts": (lambda s: s.update(expires=s["notBefore"]), "ends before it starts"),
    "vouches for itself": (lambda s: s["vouched"].update(lyon="ab" * 32), "does not vouch for itself"),
    "vouches for too few": (_put("vouched", {"nice": "ab" * 32}), "minOthers"),
    "a key of letters": (lambda s: s["vouched"].update(nice="z" * 64), "spec.vouched.nice"),
    "two sites are enough": (_put("minSites", 2), "spec.minSites"),
    "no cores": (_put("resources.cpus", 0), "spec.resources.cpus"),
    "little memory": (_put("resources.memory", 2**20), "spec.resources.memory"),
    "fewer workers at most than at least": (
        lambda s: s["resources"].update(minWorkers=3, maxWorkers=2),
        "maxWorkers is below minWorkers",
    ),
    "a resource is missing": (lambda s: s["resources"].pop("gpus"), "spec.resources.gpus"),
    "half a revocation": (_put("revocation", {"time": 1}), "spec.revocation.signature"),
    "a name in capitals": (_put("site", "Lyon"), "spec.site"),
}
RENEWED: dict[str, Change] = {
    "longer, signed anew": lambda s: s.update(expires=s["expires"] + 1, signature="cd" * 64),
    "another data set, signed anew": lambda s: s.update(dataset="lungs", signature="cd" * 64),
    "a document": _put("document", "{}"),
    "a revocation": _put("revocation", {"time": LATER, "signature": "0" * 128}),
}
CHANGED: dict[str, tuple[Change, str]] = {
    "another project": (_put("manifest", "ab" * 32), "for one project"),
    "another hospital": (_put("site", "nantes"), "by one hospital"),
    "longer": (lambda s: s.update(expires=s["expires"] + 1), "without a new signature"),
    "another data set": (_put("dataset", "lungs"), "without a new signature"),
    "more memory": (lambda s: s["resources"].update(memory=2**40), "without a new signature"),
    "fewer peers": (lambda s: s["vouched"].update(nantes="ab" * 32), "without a new signature"),
    "an older one": (lambda s: s.update(notBefore=s["notBefore"] - 1, signature="cd" * 64), "older than the one"),
}
ENDED = {"time": LATER, "signature": "0" * 128}
REVOKED: dict[str, tuple[Change, str]] = {
    "taken back": (_drop("revocation"), "cannot be taken back"),
    "earlier": (_put("revocation.time", LATER - 1), "cannot be changed"),
    "other signature": (_put("revocation.signature", "1" * 128), "cannot be changed"),
}


@pytest.fixture
def home(kube: Kube, new_namespace: Callable[[str], str]) -> str:
    return new_namespace("definitions")


def site(home: str, change: Change, name: str = "lyon") -> Object:
    made = samples.site(home, name=name)
    change(made["spec"])
    return made


def grant(home: str, change: Change, name: str) -> Object:
    made = samples.grant_resource(home=home)
    made["metadata"]["name"] = name
    change(made["spec"])
    return made


def _name(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text).lower()


def test_sites(kube: Kube, home: str) -> None:
    for name, change in GOOD_SITES.items():
        made = kube.create(SITE, site(home, change, _name(name)))
        assert made["spec"]["requestPercent"] in (5, 100)
    for name, (change, words) in BAD_SITES.items():
        with pytest.raises(Invalid) as caught:
            kube.create(SITE, site(home, change, _name(name)))
        assert words in caught.value.what, name
    for name in ("a.b", "l" * 64):
        with pytest.raises(Invalid, match="without dots, 63 characters"):
            kube.create(SITE, site(home, lambda spec: None, name))


def test_a_sites_root_and_work_namespace_never_change(kube: Kube, home: str) -> None:
    made = kube.create(SITE, site(home, lambda spec: None))
    for field, value in (("root", "ab" * 32), ("workNamespace", "other")):
        with pytest.raises(Invalid, match="another Site"):
            kube.replace(SITE, {**made, "spec": {**made["spec"], field: value}})
    changed = kube.replace(SITE, {**made, "spec": {**made["spec"], "requestPercent": 7}})
    assert changed["metadata"]["generation"] == 2


def test_grants(kube: Kube, home: str) -> None:
    for name, change in GOOD_GRANTS.items():
        kube.create(GRANT, grant(home, change, _name(name)))
    for name, (change, words) in BAD_GRANTS.items():
        with pytest.raises(Invalid) as caught:
            kube.create(GRANT, grant(home, change, _name(name)))
        assert words in caught.value.what, name


def test_what_is_signed_changes_with_a_new_signature_only(kube: Kube, home: str) -> None:
    for name, change in RENEWED.items():
        made = kube.create(GRANT, grant(home, _drop("document"), _name(name)))
        change(made["spec"])
        kube.replace(GRANT, made)
    for name, (change, words) in CHANGED.items():
        made = kube.create(GRANT, grant(home, lambda spec: None, _name(name)))
        change(made["spec"])
        with pytest.raises(Invalid) as caught:
            kube.replace(GRANT, made)
        assert words in caught.value.what, name


def test_a_revocation_is_never_taken_back(kube: Kube, home: str) -> None:
    for name, (change, words) in REVOKED.items():
        made = kube.create(GRANT, grant(home, _put("revocation", dict(ENDED)), _name(name)))
        change(made["spec"])
        with pytest.raises(Invalid) as caught:
            kube.replace(GRANT, made)
        assert words in caught.value.what, name
    made = kube.create(GRANT, grant(home, _put("revocation", dict(ENDED)), "later"))
    made["spec"]["revocation"] = {"time": LATER + 1, "signature": "2" * 128}
    kube.replace(GRANT, made)


def test_the_largest_grant_fits(kube: Kube, home: str) -> None:
    """Three hundred hospitals and a manifest near the limit of what etcd keeps; the rules still cost little enough."""
    peers = {f"hospital-{number}": f"{number:064x}" for number in range(300)}
    made = grant(home, lambda spec: spec.update(vouched=peers, document="x" * 900_000), "large")
    began = time.perf_counter()
    kube.create(GRANT, made)
    print(f"a Grant of 300 hospitals and 900 kB: {1_000 * (time.perf_counter() - began):.0f} ms")


def test_kubectl_shows_what_matters(kube: Kube, home: str) -> None:
    made = kube.create(GRANT, grant(home, lambda spec: None, "shown"))
    kube.create(SITE, site(home, lambda spec: None))
    status = {
        "project": "heart",
        "workers": 2,
        "expires": "2026-12-24T14:25:58Z",
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "Reachable",
                "message": "m",
                "lastTransitionTime": "2026-11-24T14:25:58Z",
            }
        ],
    }
    kube.patch_status(GRANT, home, made["metadata"]["name"], status)
    head, line = kubectl.run("-n", home, "get", "kgr").splitlines()
    assert head.split() == ["NAME", "PROJECT", "READY", "REASON", "SINCE", "WORKERS", "EXPIRES"]
    assert line.split()[:4] == ["shown", "heart", "False", "Reachable"]
    assert line.split()[5:] == ["2", "2026-12-24T14:25:58Z"]
    shown = kubectl.run("-n", home, "get", "koinon")
    assert "site.koinon.dev/lyon" in shown
    assert "grant.koinon.dev/shown" in shown
    assert "hospital's id in the federation" in " ".join(kubectl.run("explain", "kst").split())


def test_the_samples_are_taken(kube: Kube, home: str) -> None:
    for name in ("site.yaml", "grant.yaml"):
        found = yaml.safe_load((SAMPLES / name).read_text(encoding="utf-8"))
        found["metadata"]["namespace"] = home
        kubectl.apply(found)
    assert kube.get(GRANT, home, found["metadata"]["name"])["spec"] == found["spec"]
