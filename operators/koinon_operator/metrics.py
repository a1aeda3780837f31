"""What the operator counts, for Prometheus; `gauges` has what is so now.

The label is `hospital` (its home namespace), since Prometheus itself says in which `namespace` it found the operator.
"""

from prometheus_client import Counter, Gauge, Histogram

from koinon_operator.kinds import HOME, WORK

RECONCILE_SECONDS = Histogram(
    "koinon_operator_reconcile_seconds",
    "Time of one reconcile of a site or a project.",
    ["what"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
RECONCILE_ERRORS = Counter("koinon_operator_reconcile_errors", "Reconciles that failed and are tried again.", ["what"])
API_CALLS = Counter("koinon_operator_api_calls", "Calls to the API server.", ["verb", "kind"])
QUEUE_DEPTH = Gauge("koinon_operator_queue_depth", "Sites and projects that wait for a reconcile now.")
GRANTS = Gauge("koinon_operator_grants", "Grants by state.", ["hospital", "state"])
DRIFT_REPAIRED = Counter("koinon_operator_drift_repaired", "Edits and deletions by hand that were undone.", ["kind"])
CONTESTED = Counter("koinon_operator_contested", "Repairs put off since someone keeps changing the object.", ["kind"])
REMOVAL_SECONDS = Histogram(
    "koinon_operator_removal_seconds",
    "Time from a grant's end to nothing left of its cluster.",
    buckets=(0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 60.0, 120.0, 300.0),
)
LAST_RESYNC = Gauge("koinon_operator_last_resync_timestamp_seconds", "When everything was last read anew.")
CONNECTED = Gauge("koinon_operator_agent_connected", "Whether the agent reaches its hub.", ["hospital"])

# At 0 from the start: else the first event would be no increase.
for _kind in (*HOME, *WORK):
    DRIFT_REPAIRED.labels(kind=_kind.name)
    CONTESTED.labels(kind=_kind.name)
for _what in ("site", "project"):
    RECONCILE_SECONDS.labels(what=_what)
    RECONCILE_ERRORS.labels(what=_what)
