"""A thousand Grants over twenty hospitals, all served by one process: more than any hospital's operator has."""

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from koinon_operator.kinds import CLAIM, GRANT, RAY_CLUSTER, SITE, Object
from koinon_operator.kube import Kube
from tests.cluster import kubectl
from tests.cluster.operator.conftest import claim
from tests.cluster.operator.running import Running, running
from tests.unit.operator import samples

HOSPITALS = 20
GRANTS = 1_000
RESYNC_SECONDS = 15
HISTOGRAM = "koinon_operator_reconcile_seconds_bucket"


@pytest.fixture
def hospitals(kube: Kube) -> Iterator[dict[str, str]]:
    run = secrets.token_hex(3)
    names = {f"koinon-test-{run}-s{n}": f"koinon-test-{run}-s{n}-work" for n in range(HOSPITALS)}
    every = [*names, *names.values()]
    kubectl.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in every))
    yield names
    kubectl.run("delete", "namespace", *every, "--wait=false")


def _fill(kube: Kube, hospitals: dict[str, str]) -> None:
    def site(pair: tuple[str, str]) -> None:
        home, work = pair
        kube.create(CLAIM, claim(work))
        quota = {"cpu": "1000", "memory": "1000Gi", "pods": 1_000}
        kube.create(SITE, samples.site(home, work, quota=quota))

    homes = list(hospitals)
    now = time.time()
    grants = [
        samples.grant_resource(samples.manifest(f"p{number}"), home=homes[number % HOSPITALS], now=now)
        for number in range(GRANTS)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(site, hospitals.items()))
        list(pool.map(lambda grant: kube.create(GRANT, grant), grants))


def _quantile(operator: Running, share: float, before: dict[float, float]) -> float:
    """Upper bound of the bucket in which that share of the reconciles since `before` lies."""
    counts = _buckets(operator)
    since = {bound: count - before.get(bound, 0.0) for bound, count in counts.items()}
    wanted = share * since[float("inf")]
    return min(bound for bound, count in since.items() if count >= wanted)


def _buckets(operator: Running) -> dict[float, float]:
    found: dict[float, float] = {}
    for (name, labels), value in operator.metrics().items():
        if name == HISTOGRAM:
            bound = float(dict(labels)["le"])
            found[bound] = found.get(bound, 0.0) + value
    return found


def _calls(operator: Running) -> tuple[float, float]:
    """Reads and writes so far."""
    every, lists = (operator.total("koinon_operator_api_calls_total", **verb) for verb in ({}, {"verb": "LIST"}))
    return lists, every - lists


def _clusters(kube: Kube, hospitals: dict[str, str]) -> list[Object]:
    return [cluster for work in hospitals.values() for cluster in kube.list(RAY_CLUSTER, work)[0]]


def test_a_thousand_grants_over_twenty_hospitals(hospitals: dict[str, str], tmp_path: Path) -> None:
    kube = Kube(connections=16)
    settings = {"resync_seconds": str(RESYNC_SECONDS), "cluster_timeout": "3600"}
    with running(hospitals, tmp_path / "log", **settings) as operator:
        began = time.monotonic()
        _fill(kube, hospitals)
        filled = time.monotonic() - began
        kubectl.until(lambda: len(_clusters(kube, hospitals)) == GRANTS, f"{GRANTS} RayClusters", seconds=400)
        operator.idle(seconds=120)
        settled, (lists, writes) = time.monotonic() - began, _calls(operator)
        slow = _quantile(operator, 0.99, {})
        print(f"{GRANTS} Grants applied in {filled:.0f} s, all served after {settled:.0f} s, with {writes:.0f} writes")
        print(f"p99 of a reconcile: at most {slow} s; median at most {_quantile(operator, 0.5, {})} s")
        memory, buckets = operator.memory(), _buckets(operator)
        time.sleep(4 * RESYNC_SECONDS)
        grown, (more_lists, more_writes) = operator.memory() - memory, _calls(operator)
        again = _quantile(operator, 0.99, buckets)
        print(f"then, in {4 * RESYNC_SECONDS} s: memory {memory / 2**20:.0f} MiB, {grown / 2**20:+.1f} MiB")
        print(f"{more_lists - lists:.0f} lists and {more_writes - writes:.0f} other calls")
        print(f"p99 of a reconcile of what is as it should be: at most {again} s")
        assert grown < 0.1 * memory
        assert more_writes - writes < HOSPITALS  # a late one may come; none a Grant, none a resync
        operator.kill()
        operator.again()
        began = time.monotonic()
        operator.ready(120)
        ready = time.monotonic() - began
        operator.idle(seconds=120)
        restarted = time.monotonic() - began
        print(f"restart with all of them: everything read after {ready:.1f} s, settled after {restarted:.1f} s")
        print(f"memory {operator.memory() / 2**20:.0f} MiB, lists and other calls: {_calls(operator)}")
        assert operator.total("koinon_operator_api_calls_total", kind="RayCluster", verb="PUT") == 0
        assert operator.total("koinon_operator_drift_repaired_total") == 0
        assert operator.stop() == 0
        assert slow <= 1.0
