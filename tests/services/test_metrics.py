"""The hub's metrics: whom runs wait for, and that their number stays small in a large federation."""

import time
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from koinon.gateway import folder
from koinon.gateway.snapshot import LONGEST_WAITS
from koinon.store import accounts
from koinon.store.store import Store
from tests.services import hubs
from tests.services.consortium import NAMES, Federation
from tests.services.hospitals import Hospital
from tests.services.hubs import HubProcess, wait_for
from tests.unit.domain import manifests

SITES, RUNS, MEMBERS, PROJECTS = 300, 2_000, 30, 10


def samples(hub: HubProcess) -> list[Sample]:
    text = httpx.get(f"{hub.url}/metrics", timeout=30, trust_env=False).text
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def scraped(hub: HubProcess) -> dict[str, float]:
    """Every series by its name and labels."""
    return {
        sample.name + "".join(f" {label}={value}" for label, value in sorted(sample.labels.items())): sample.value
        for sample in samples(hub)
    }


def waits(hub: HubProcess) -> dict[tuple[str, str, str], float]:
    """Since when, by run, site and cause."""
    found = [sample for sample in samples(hub) if sample.name == "koinon_wait_since_timestamp_seconds"]
    return {(one.labels["run"], one.labels["site"], one.labels["cause"]): one.value for one in found}


def test_metrics_say_which_run_waits_for_whom_since_when(tmp_path: Path) -> None:
    with hubs.running(tmp_path / "hub") as hub, Federation(hub) as federation:
        nice = federation.sites["nice"]
        nice.before = lambda task: False
        begun = time.time()
        federation.start()
        run = federation.submit(rounds=1)
        seen = wait_for(lambda: (w := waits(hub)) and w.get((run, "nice", "train")), 30, "a wait for nice")
        assert begun <= seen <= time.time()
        shown = wait_for(lambda: [w for w in federation.run(run).get("waiting", []) if w["for"] == "nice"])
        assert shown[0]["since"] == seen
        series = scraped(hub)
        until = [value for name, value in series.items() if "wait_until" in name and name.endswith("site=nice")]
        assert until == [shown[0]["until"]]
        assert series["koinon_site_connected site=nice"] == 1
        assert abs(series["koinon_site_clock_offset_seconds site=nice"]) < 5
        assert series["koinon_site_last_contact_timestamp_seconds site=nice"] >= begun
        nice.before = lambda task: True
        federation.complete(run)
        assert waits(hub) == {}
        series = scraped(hub)
        assert series["koinon_runs_ended_total state=completed"] == 1
        assert series["koinon_rounds_total kind=train state=committed"] == 1
        assert [series[f"koinon_part_up part={part}"] for part in ("database", "artifacts", "disk")] == [1, 1, 1]


def test_a_hub_whose_store_is_away_says_so_and_that_runs_wait_for_it(tmp_path: Path) -> None:
    with hubs.running(tmp_path / "hub") as hub, Federation(hub) as federation:
        store, gone = hub.folder / "artifacts", hub.folder / "gone"
        store.rename(gone)
        federation.start()
        run = federation.submit(rounds=1)
        wait_for(lambda: (run, "hub", "hub") in waits(hub), 60, "a wait for the hub")
        series = scraped(hub)
        assert series["koinon_part_up part=artifacts"] == 0
        assert series["koinon_part_up part=database"] == 1
        assert series["koinon_scheduler_retrying"] == 1
        gone.rename(store)
        federation.complete(run)
        assert scraped(hub)["koinon_part_up part=artifacts"] == 1


def enrol(store: Store, hospitals: list[Hospital]) -> None:
    for hospital in hospitals:
        token = accounts.hash_token(hospital.name)
        store.add_enrolment(token, hospital.name, time.time() + 600)
        store.redeem_enrolment(token, hospital.name, hospital.root.public, hospital.certificate)


def test_metrics_stay_few_and_quick_with_300_sites_and_2000_runs(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    keys = folder.create(hub.folder)
    about = {"signing": keys.signing.public, "recipient": keys.identity.recipient}
    hospitals = [Hospital(f"site-{index:03}", "http://127.0.0.1:1") for index in range(SITES)]
    with hub.store() as store:
        store.acquire()
        enrol(store, hospitals)
        for project in range(PROJECTS):
            members = hospitals[project * MEMBERS :][:MEMBERS]
            listed = [{"site": site.name, "root": site.root.public} for site in members]
            manifest = manifests.build(name=f"project-{project}", hub=about, members=listed)
            digest = store.add_project(manifest, "ada").hash
            for number in range(RUNS // PROJECTS):
                store.add_run(f"run{project}x{number:05}", digest, "ada", {"rounds": 1, "strategy": "fedavg"})
    for hospital in hospitals:
        hospital.http.close()
    hub.start()
    try:
        took = []
        for _ in range(5):
            begun = time.monotonic()
            series = scraped(hub)
            took.append(time.monotonic() - begun)
        seconds = min(took)  # the first ones meet a hub that still takes up its runs
        told = waits(hub)
        assert series["koinon_runs state=queued"] == RUNS
        assert series["koinon_sites state=away"] == SITES
        assert len(told) == LONGEST_WAITS
        assert {cause for _, _, cause in told} == {"not_granted"}
        assert sum(" site=site-" in name and name.startswith("koinon_site") for name in series) <= 4 * SITES
        print(f"{len(series)} series for {SITES} sites and {RUNS} runs, scrapes in {took} s")
        assert len(series) < 4 * SITES + 2 * LONGEST_WAITS + 800
        assert seconds < 4
    finally:
        hub.stop()
    assert set(NAMES).isdisjoint(hospital.name for hospital in hospitals)
