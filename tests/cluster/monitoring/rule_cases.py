"""For each alert series on which it fires, and series so near to them that it must not.

Times: promtool's clock starts at 1970 + 0 s, one sample a minute. `series` are in promtool's notation.
"""

from dataclasses import dataclass, field

AT = 240  # minutes after which the alerts are looked at
_HUB = 'cluster="c", namespace="koinon"'
_SITE = 'cluster="c", namespace="lyon"'
_HOME = 'cluster="c", hospital="lyon"'
_BUCKETS = ("1.0", "5.0", "10.0", "+Inf")


@dataclass(frozen=True)
class Case:
    """`labels` and `summary` are of the one alert that fires; more of them are in `also`."""

    fires: dict[str, str]
    labels: dict[str, str]
    summary: str
    quiet: dict[str, str]
    also: tuple[tuple[dict[str, str], str], ...] = field(default=())


def flat(value: float) -> str:
    return f"{value:g}x{AT}"


def rising(each_minute: float) -> str:
    return f"0+{each_minute:g}x{AT}"


def late(value: float) -> str:
    """A counter that was 0 and rose to `value` in the last half hour, in one step."""
    return f"0x{AT - 30} {value:g}x30"


def minutes_ago(minutes: float, *, moves: bool = False) -> str:
    """A time stamp that is so old at the end; or that moves with the clock and is always so old."""
    return f"{-60 * minutes:g}+60x{AT}" if moves else flat(60 * (AT - minutes))


def histogram(name: str, labels: str, fast: str, slow: str) -> dict[str, str]:
    """Events that all took below 1 s, or all more than 5."""
    values = (fast, fast, slow, slow)
    pairs = zip(_BUCKETS, values, strict=True)
    return {f'{name}{{{labels}, le="{bucket}"}}': value for bucket, value in pairs}


def latency(route: str, *, slow: bool) -> dict[str, str]:
    labels = f'{_HUB}, route="{route}"'
    return histogram("koinon_http_request_seconds_bucket", labels, rising(0 if slow else 9), rising(9))


def wait(site: str, cause: str, since: str) -> dict[str, str]:
    labels = f'{_HUB}, run="r1", project="heart", site="{site}", cause="{cause}"'
    return {f"koinon_wait_since_timestamp_seconds{{{labels}}}": since}


def condition(name: str, status: str, value: str) -> dict[str, str]:
    return {f'koinon_operator_conditions{{{_HOME}, condition="{name}", status="{status}"}}': value}


def removals(fast: str, all_of_them: str) -> dict[str, str]:
    name = "koinon_operator_removal_seconds"
    return {f'{name}_bucket{{{_SITE}, le="60.0"}}': fast, f"{name}_count{{{_SITE}}}": all_of_them}


def quota(used: float) -> dict[str, str]:
    labels = f'{_HOME}, resource="requests.cpu"'
    name = "koinon_operator_quota"
    return {f'{name}{{{labels}, kind="used"}}': flat(used), f'{name}{{{labels}, kind="hard"}}': flat(8)}


_H, _S = {"cluster": "c", "namespace": "koinon"}, {"cluster": "c", "namespace": "lyon"}
_O = {"cluster": "c", "hospital": "lyon"}
_UP_HUB = f'up{{job="koinon-hub", {_HUB}}}'
_UP_AGENT = f'up{{job="koinon-site", endpoint="status", {_SITE}}}'
_UP_OPERATOR = f'up{{job="koinon-site", endpoint="health", {_SITE}}}'
_AGENT_UP = {"job": "koinon-site", "endpoint": "status"}
_OPERATOR_UP = {"job": "koinon-site", "endpoint": "health"}

HUB = {
    "KoinonHubDown": Case(
        {_UP_HUB: flat(0)}, {"job": "koinon-hub", **_H}, "The hub does not answer Prometheus.",
        {_UP_HUB: f"1x{AT - 4} 0 1 1 0"},
    ),
    "KoinonHubPartAway": Case(
        {f'koinon_part_up{{{_HUB}, part="database"}}': flat(0)}, {**_H, "part": "database"},
        "The hub's database does not answer.",
        {f'koinon_part_up{{{_HUB}, part="database"}}': f"1x{AT - 1} 0"},
    ),
    "KoinonHubDiskFull": Case(
        {f"koinon_disk_free_bytes{{{_HUB}}}": flat(9), f"koinon_disk_size_bytes{{{_HUB}}}": flat(100)}, _H,
        "Only 9% of the hub's disk is free.",
        {f"koinon_disk_free_bytes{{{_HUB}}}": flat(11), f"koinon_disk_size_bytes{{{_HUB}}}": flat(100)},
    ),
    "KoinonRunStepFailing": Case(
        {f"koinon_scheduler_retrying{{{_HUB}}}": flat(2)}, _H,
        "2 runs wait for a step of the hub that fails again and again.",
        {f"koinon_scheduler_retrying{{{_HUB}}}": f"0x{AT - 9} 1x9"},
    ),
    "KoinonHubErrors": Case(
        {f'koinon_problems_total{{{_HUB}, code="unavailable"}}': rising(4),
         f'koinon_problems_total{{{_HUB}, code="internal"}}': rising(2),
         f'koinon_http_requests_total{{{_HUB}, status="200"}}': rising(100)}, _H,
        "6% of the hub's answers are errors of its own.",
        {f'koinon_problems_total{{{_HUB}, code="unavailable"}}': rising(4),
         f'koinon_problems_total{{{_HUB}, code="notfound"}}': rising(20),
         f'koinon_http_requests_total{{{_HUB}, status="200"}}': rising(100)},
    ),
    "KoinonHubSlow": Case(
        latency("/v1/runs", slow=True), _H, "The hub takes 9.75s to answer (95th percentile).",
        latency("/v1/runs", slow=False)
        | latency("/v1/sites/me/tasks", slow=True)
        | latency("/v1/runs/{run}/events", slow=True)
        | latency("/v1/sites/me/uploads/{run}/{round}/{attempt}/{part}", slow=True),
    ),
    "KoinonRunWaits": Case(
        wait("lyon", "train", minutes_ago(66)), {**_H, "site": "lyon", "cause": "train"},
        "Runs have waited for lyon for 1h 6m 0s (train).",
        wait("lyon", "train", minutes_ago(59)) | wait("nice", "not_granted", minutes_ago(200)),
    ),
    "KoinonGrantMissing": Case(
        wait("lyon", "revoked", minutes_ago(3_000)), {**_H, "site": "lyon", "cause": "revoked"},
        "Runs have waited for a grant of lyon for 2d 2h 0m 0s (revoked).",
        wait("lyon", "not_granted", minutes_ago(2_800)) | wait("nice", "train", minutes_ago(3_000)),
    ),
    "KoinonSiteAway": Case(
        {f'koinon_site_last_contact_timestamp_seconds{{{_HUB}, site="lyon"}}': minutes_ago(66)}, {**_H, "site": "lyon"},
        "lyon has not polled for 1h 6m 0s.",
        {f'koinon_site_last_contact_timestamp_seconds{{{_HUB}, site="lyon"}}': minutes_ago(59)},
    ),
    "KoinonManySitesAway": Case(
        {f'koinon_sites{{{_HUB}, state="away"}}': flat(3), f'koinon_sites{{{_HUB}, state="connected"}}': flat(2)}, _H,
        "60% of the sites are away.",
        {f'koinon_sites{{{_HUB}, state="away"}}': flat(2), f'koinon_sites{{{_HUB}, state="connected"}}': flat(2)},
    ),
    "KoinonSiteClockOff": Case(
        {f'koinon_site_clock_offset_seconds{{{_HUB}, site="lyon"}}': flat(-90)}, {**_H, "site": "lyon"},
        "The clock of lyon is 1m 30s off the hub's.",
        {f'koinon_site_clock_offset_seconds{{{_HUB}, site="lyon"}}': flat(-59)},
    ),
    "KoinonHubCertificateEnds": Case(
        {f"koinon_certificate_expiry_timestamp_seconds{{{_HUB}}}": flat(AT * 60 + 86_400)},
        _H, "The hub's certificate ends in 1d 0h 0m 0s.",
        {f"koinon_certificate_expiry_timestamp_seconds{{{_HUB}}}": flat(AT * 60 + 15 * 86_400)},
    ),
    "KoinonSiteCertificateEnds": Case(
        {f'koinon_site_certificate_expiry_timestamp_seconds{{{_HUB}, site="lyon"}}': flat(AT * 60 + 86_400)},
        {**_H, "site": "lyon"}, "The certificate of lyon ends in 1d 0h 0m 0s.",
        {f'koinon_site_certificate_expiry_timestamp_seconds{{{_HUB}, site="lyon"}}': flat(AT * 60 + 15 * 86_400)},
    ),
    "KoinonRunFailed": Case(
        {f'koinon_runs_ended_total{{{_HUB}, state="failed"}}': late(2)}, _H, "2 runs failed in the last hour.",
        {f'koinon_runs_ended_total{{{_HUB}, state="completed"}}': rising(1),
         f'koinon_runs_ended_total{{{_HUB}, state="failed"}}': f"0x{AT - 90} 1x90"},
    ),
    "KoinonRoundsVoid": Case(
        {f'koinon_rounds_total{{{_HUB}, kind="train", state="void"}}': late(2)}, _H,
        "2 rounds became void in the last hour.",
        {f'koinon_rounds_total{{{_HUB}, kind="train", state="committed"}}': rising(1),
         f'koinon_rounds_total{{{_HUB}, kind="train", state="void"}}': f"0x{AT - 90} 2x90"},
    ),
    "KoinonAttemptsFail": Case(
        {f'koinon_attempts_failed_total{{{_HUB}, phase="masked"}}': late(6)}, {**_H, "phase": "masked"},
        "6 attempts lost too many sites in phase masked in the last hour.",
        {f'koinon_attempts_failed_total{{{_HUB}, phase="masked"}}': late(4),
         f'koinon_attempts_failed_total{{{_HUB}, phase="keys"}}': late(4)},
    ),
    "KoinonSitesRefuse": Case(
        {f'koinon_site_troubles_total{{{_HUB}, kind="refusal", code="no_grant"}}': late(1)}, {**_H, "code": "no_grant"},
        "Sites refused rounds in the last hour: no_grant.",
        {f'koinon_site_troubles_total{{{_HUB}, kind="error", code="nan_loss"}}': rising(1),
         f'koinon_site_troubles_total{{{_HUB}, kind="refusal", code="no_grant"}}': flat(7)},
    ),
}  # fmt: skip

SITE = {
    "KoinonEgressOpen": Case(
        condition("EgressDenied", "False", f"0x{AT - 1} 1"), _O,
        "In lyon the walls around 1 projects are not proved.",
        condition("EgressDenied", "False", flat(0)) | condition("EgressDenied", "Unknown", flat(1))
        | condition("Ready", "False", flat(1)),
    ),
    "KoinonAgentDown": Case(
        {_UP_AGENT: flat(0), _UP_OPERATOR: flat(1)}, {**_S, **_AGENT_UP}, "The agent does not answer Prometheus.",
        {_UP_AGENT: f"1x{AT - 4} 0x4", _UP_OPERATOR: flat(0)},
    ),
    "KoinonAgentStuck": Case(
        {f"koinon_agent_loop_age_seconds{{{_SITE}}}": flat(121)}, _S, "The agent's loop has stood still for 2m 1s.",
        {f"koinon_agent_loop_age_seconds{{{_SITE}}}": flat(60)},
    ),
    "KoinonAgentDisconnected": Case(
        {f"koinon_agent_hub_contact_age_seconds{{{_SITE}}}": flat(360)}, _S,
        "The hub has not answered the agent for 6m 0s.",
        {f"koinon_agent_hub_contact_age_seconds{{{_SITE}}}": f"20x{AT - 3} 301x3"},
    ),
    "KoinonClockOff": Case(
        {f"koinon_agent_clock_offset_seconds{{{_SITE}}}": flat(-61)}, _S, "This clock is 1m 1s off the hub's.",
        {f"koinon_agent_clock_offset_seconds{{{_SITE}}}": flat(59)},
    ),
    "KoinonCertificateEnds": Case(
        {f"koinon_agent_certificate_expiry_timestamp_seconds{{{_SITE}}}": flat(AT * 60 + 86_400)}, _S,
        "The agent's certificate ends in 1d 0h 0m 0s.",
        {f"koinon_agent_certificate_expiry_timestamp_seconds{{{_SITE}}}": flat(AT * 60 + 15 * 86_400)},
    ),
    "KoinonAgentDiskFull": Case(
        {f"koinon_agent_disk_free_bytes{{{_SITE}}}": flat(2**29)}, _S, "Only 512MiB are free on the agent's volume.",
        {f"koinon_agent_disk_free_bytes{{{_SITE}}}": flat(3 * 2**30)},
    ),
    "KoinonRefuses": Case(
        {f'koinon_agent_refusals_total{{{_SITE}, code="revoked"}}': late(2)}, {**_S, "code": "revoked"},
        "The agent refused 2 rounds in the last hour: revoked.",
        {f'koinon_agent_refusals_total{{{_SITE}, code="revoked"}}': flat(5)},
    ),
    "KoinonTrainerLost": Case(
        {f"koinon_agent_trainer_losses_total{{{_SITE}}}": late(3)}, _S,
        "Trainers were lost 3 times in the last hour.",
        {f"koinon_agent_trainer_losses_total{{{_SITE}}}": late(1)},
    ),
    "KoinonGrantNotReady": Case(
        condition("ClusterReady", "False", flat(2)), _O,
        "In lyon 2 granted projects have no Ray cluster that is ready.",
        condition("ClusterReady", "False", f"0x{AT - 14} 1x14") | condition("ClusterReady", "True", flat(3)),
    ),
    "KoinonOperatorDown": Case(
        {_UP_OPERATOR: flat(0), _UP_AGENT: flat(1)}, {**_S, **_OPERATOR_UP}, "The operator does not answer Prometheus.",
        {_UP_OPERATOR: f"1x{AT - 9} 0x9", _UP_AGENT: flat(0)},
    ),
    "KoinonOperatorStalled": Case(
        {f"koinon_operator_last_resync_timestamp_seconds{{{_SITE}}}": minutes_ago(30)}, _S,
        "The operator has not looked at everything for 30m 0s.",
        {f"koinon_operator_last_resync_timestamp_seconds{{{_SITE}}}": minutes_ago(5, moves=True)},
    ),
    "KoinonReconcileFails": Case(
        {f'koinon_operator_reconcile_errors_total{{{_SITE}, what="project"}}': rising(1)}, {**_S, "what": "project"},
        "Reconciles of a project fail again and again.",
        {f'koinon_operator_reconcile_errors_total{{{_SITE}, what="project"}}': late(3)},
    ),
    "KoinonReconcileSlow": Case(
        {f"koinon_operator_queue_depth{{{_SITE}}}": flat(250)}, _S, "The operator is behind (250).",
        histogram("koinon_operator_reconcile_seconds_bucket", _SITE, rising(9), rising(9))
        | {f"koinon_operator_queue_depth{{{_SITE}}}": flat(99)},
    ),
    "KoinonRemovalSlow": Case(
        removals(flat(0), late(1)), _S,
        "It took longer than a minute until nothing was left of a revoked or expired project.",
        removals(late(4), late(4)),
    ),
    "KoinonContested": Case(
        {f'koinon_operator_contested_total{{{_SITE}, kind="NetworkPolicy"}}': rising(1)},
        {**_S, "kind": "NetworkPolicy"},
        "Somebody keeps changing a NetworkPolicy that the operator owns.",
        {f'koinon_operator_contested_total{{{_SITE}, kind="NetworkPolicy"}}': flat(4)},
    ),
    "KoinonDriftRepaired": Case(
        {f'koinon_operator_drift_repaired_total{{{_SITE}, kind="Service"}}': late(1)}, {**_S, "kind": "Service"},
        "1 edits or deletions of a Service by hand were undone in the last hour.",
        {f'koinon_operator_drift_repaired_total{{{_SITE}, kind="Service"}}': flat(4)},
    ),
    "KoinonQuotaFull": Case(
        quota(8), {**_O, "resource": "requests.cpu"}, "lyon uses 100% of its quota of requests.cpu.", quota(7.5),
    ),
    "KoinonRayMemory": Case(
        {f'ray_node_mem_used{{{_SITE}, pod="p-1-head", koinon_dev_project="1"}}': flat(95),
         f'ray_node_mem_total{{{_SITE}, pod="p-1-head", koinon_dev_project="1"}}': flat(100)},
        {**_S, "pod": "p-1-head", "koinon_dev_project": "1"}, "The Ray pod p-1-head uses 95% of its memory.",
        {f'ray_node_mem_used{{{_SITE}, pod="p-1-head", koinon_dev_project="1"}}': flat(89),
         f'ray_node_mem_total{{{_SITE}, pod="p-1-head", koinon_dev_project="1"}}': flat(100)},
    ),
}  # fmt: skip
