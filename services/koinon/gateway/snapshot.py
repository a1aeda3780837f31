"""What is true now, as metrics: made anew for every scrape, so that what is gone leaves no series behind.

Few series, whatever the federation's size: some for each enrolled site, and of all waits of runs only the longest.
"""

import shutil
from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from koinon.gateway.hub import Hub
from koinon.gateway.probes import Outcome

LONGEST_WAITS = 100


def families(hub: Hub, checks: Mapping[str, Outcome]) -> Iterator[Metric]:
    """`checks` by part, as `Probes.look` gives them."""
    yield from _runs(hub)
    yield from _sites(hub)
    yield from _parts(hub, checks)


def _runs(hub: Hub) -> Iterator[Metric]:
    runs = GaugeMetricFamily("koinon_runs", "Runs that are not over.", labels=["state"])
    for state, count in hub.scheduler.active().items():
        runs.add_metric([state], count)
    yield runs
    yield GaugeMetricFamily(
        "koinon_scheduler_retrying",
        "Runs whose next step is being tried again.",
        value=len(hub.scheduler.troubles()),
    )
    labels = ["run", "project", "site", "cause"]
    since = GaugeMetricFamily(
        "koinon_wait_since_timestamp_seconds",
        f"Since when a run waits for a site, or for the hub itself: the {LONGEST_WAITS} longest waits.",
        labels=labels,
    )
    until = GaugeMetricFamily(
        "koinon_wait_until_timestamp_seconds", "Until when it waits; then it goes on without, or fails.", labels=labels
    )
    for run, project, wait in hub.scheduler.longest_waits(LONGEST_WAITS):
        values = [run.id, project, wait.whom, wait.cause.value]
        since.add_metric(values, wait.since)
        until.add_metric(values, wait.until)
    yield since
    yield until


def _sites(hub: Hub) -> Iterator[Metric]:
    states = GaugeMetricFamily("koinon_sites", "Enrolled sites.", labels=["state"])
    connected = GaugeMetricFamily("koinon_site_connected", "Did the site poll lately?", labels=["site"])
    seen = GaugeMetricFamily(
        "koinon_site_last_contact_timestamp_seconds", "When the site polled last.", labels=["site"]
    )
    offset = GaugeMetricFamily(
        "koinon_site_clock_offset_seconds", "The site's clock less the hub's, when it polled last.", labels=["site"]
    )
    expiry = GaugeMetricFamily(
        "koinon_site_certificate_expiry_timestamp_seconds",
        "When the certificate of the site's operational keys ends.",
        labels=["site"],
    )
    names = hub.directory.names()
    live = {name for name in names if hub.scheduler.is_live(name)}
    states.add_metric(["connected"], len(live))
    states.add_metric(["away"], len(names) - len(live))
    for name in names:
        connected.add_metric([name], name in live)
        if last := hub.scheduler.last_seen(name):
            seen.add_metric([name], last)
        if (difference := hub.scheduler.clock_offset(name)) is not None:
            offset.add_metric([name], difference)
        expiry.add_metric([name], hub.directory.certificate(name).not_after)
    yield from (states, connected, seen, offset, expiry)


def _parts(hub: Hub, checks: Mapping[str, Outcome]) -> Iterator[Metric]:
    up = GaugeMetricFamily("koinon_part_up", "Does the database, artifact store or disk answer?", labels=["part"])
    took = GaugeMetricFamily("koinon_part_check_seconds", "Seconds until it answered the check.", labels=["part"])
    for part, outcome in checks.items():
        up.add_metric([part], outcome.ok)
        took.add_metric([part], outcome.seconds)
    yield up
    yield took
    usage = shutil.disk_usage(hub.folder.root)
    yield GaugeMetricFamily("koinon_disk_free_bytes", "Free on the disk of the hub's folder.", value=usage.free)
    yield GaugeMetricFamily("koinon_disk_size_bytes", "Size of that disk.", value=usage.total)
