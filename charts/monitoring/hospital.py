"""One hospital, as its own IT sees it: agent, grants, walls, Ray clusters, operator. No loss and no score is shown.

`namespace` is the hospital's own (agent, operator, grants), `work` that of its Ray clusters; the operator names it.
"""

from grafana_foundation_sdk.builders import dashboard

from charts.monitoring.panels import (
    GREEN,
    ORANGE,
    RED,
    Cell,
    Query,
    Section,
    band,
    board,
    column,
    lines,
    number,
    place,
    rows,
    states,
    variable,
)  # fmt: skip

UID = "koinon-hospital"
H = 'cluster=~"$cluster", namespace=~"$namespace"'
G = 'cluster=~"$cluster", hospital=~"$namespace"'
W = 'cluster=~"$cluster", namespace=~"$work"'
_PROJECT = "koinon_dev_project"


def build() -> dashboard.Dashboard:
    made = board(UID, "Koinon hospital", "One hospital: agent, grants, walls, Ray clusters, operator.", "site")
    made.with_variable(variable("cluster", "Cluster", "label_values(koinon_agent_info, cluster)", every=True))
    homes = 'label_values(koinon_agent_info{cluster=~"$cluster"}, namespace)'
    made.with_variable(variable("namespace", "Hospital", homes, every=False))
    work = f"label_values(koinon_operator_hospital_info{{{G}}}, work_namespace)"
    made.with_variable(variable("work", "Work namespace", work, every=False, hidden=True))
    place(made, (_now(), _walls(), _work(), _clusters(), _operator()))
    return made


def _now() -> Section:
    connected = number(
        "Hub", "Does the hub answer the agent?", [Query(f"max(koinon_agent_connected{{{H}}})")],
        words={"1": ("connected", GREEN), "0": ("not connected", RED)}, none="no agent",
    )  # fmt: skip
    age = number(
        "Last answer of the hub", "Seconds ago.", [Query(f"max(koinon_agent_hub_contact_age_seconds{{{H}}})")],
        unit="s", steps=((None, GREEN), (90, ORANGE), (300, RED)),
    )  # fmt: skip
    clock = number(
        "Clock off by", "This clock against the hub's. Beyond 300 s nothing works.",
        [Query(f"abs(max(koinon_agent_clock_offset_seconds{{{H}}}))")], unit="s",
        steps=((None, GREEN), (30, ORANGE), (300, RED)), decimals=1,
    )  # fmt: skip
    certificate = number(
        "Certificate ends in", "Of the agent's operational keys: koinon site keys --renew.",
        [Query(f"min(koinon_agent_certificate_expiry_timestamp_seconds{{{H}}}) - time()")], unit="s",
        steps=((None, RED), (7 * 86_400, ORANGE), (14 * 86_400, GREEN)),
    )  # fmt: skip
    open_walls = number(
        "Walls not proved", "Granted projects whose Ray pods did not prove that they reach nothing. It must be 0.",
        [Query(f'sum(koinon_operator_conditions{{{G}, condition="EgressDenied", status="False"}})')],
        steps=((None, GREEN), (1, RED)),
    )  # fmt: skip
    projects = number(
        "Projects", "Offered by the hub and not granted; granted.",
        [
            Query(f"sum(koinon_agent_pending_projects{{{H}}})", "pending"),
            Query(f"sum(koinon_agent_granted_projects{{{H}}})", "granted"),
        ],
    )  # fmt: skip
    return Section("Is it working?", (band(4, connected, age, clock, certificate, open_walls, projects),))


def _walls() -> Section:
    told = rows(
        "Conditions of the grants", "How many grants that have not ended. `kubectl get grants` has the reason of each.",
        [
            Cell("Condition", label="condition"),
            Cell("True", expr=f'sum by (condition) (koinon_operator_conditions{{{G}, status="True"}})'),
            Cell("False", expr=f'sum by (condition) (koinon_operator_conditions{{{G}, status="False"}})',
                 steps=((None, GREEN), (1, RED))),
            Cell("Unknown", expr=f'sum by (condition) (koinon_operator_conditions{{{G}, status="Unknown"}})',
                 steps=((None, GREEN), (1, ORANGE))),
        ],
        sort="Condition", rising=True,
    )  # fmt: skip
    egress = lines(
        "Denial of egress", "Granted projects by whether their Ray pods proved that they reach nothing.",
        [Query(f'sum by (status) (koinon_operator_conditions{{{G}, condition="EgressDenied"}})', "{{status}}")],
        stacked=True, colors={"True": GREEN, "False": RED, "Unknown": ORANGE},
    )  # fmt: skip
    grants = lines(
        "Grants by state", "All that are in the namespace.",
        [Query(f"sum by (state) (koinon_operator_grants{{{G}}})", "{{state}}")], stacked=True,
    )  # fmt: skip
    used = f'sum by (resource) (koinon_operator_quota{{{G}, kind="used"}})'
    hard = f'sum by (resource) (koinon_operator_quota{{{G}, kind="hard"}})'
    quota = lines(
        "Quota in use", "Of the work namespace, by resource.", [Query(f"{used} / ({hard} > 0)", "{{resource}}")],
        unit="percentunit", most=1, steps=((None, GREEN), (0.95, RED)),
    )  # fmt: skip
    return Section("Grants and walls", (band(8, told, egress, grants, quota),))


def _work() -> Section:
    connection = states(
        "Connected to the hub", "Over time.", [Query(f"max(koinon_agent_connected{{{H}}})", "agent")],
        {"1": ("connected", GREEN), "0": ("not connected", RED)},
    )  # fmt: skip
    rounds = lines(
        "Rounds per minute", "That this hospital took part in, by kind.",
        [Query(f"60 * sum by (kind) (rate(koinon_agent_rounds_total{{{H}}}[5m]))", "{{kind}}")], stacked=True,
    )  # fmt: skip
    buckets = f"sum by (phase, le) (rate(koinon_agent_phase_seconds_bucket{{{H}}}[5m]))"
    seconds = lines(
        "Seconds of a phase, 95th percentile", "What the agent does, without its waiting for others.",
        [Query(f"histogram_quantile(0.95, {buckets})", "{{phase}}")], unit="s",
    )  # fmt: skip
    results = lines(
        "Phases by result", "In the hour before.",
        [Query(f"sum by (result) (increase(koinon_agent_phases_total{{{H}}}[1h]))", "{{result}}")], stacked=True,
        colors={"done": GREEN, "failed": RED, "refused": ORANGE},
    )  # fmt: skip
    refusals = lines(
        "Refusals", "In the hour before, the five most frequent: what the grant or the agent's rules do not allow.",
        [Query(f"topk(5, sum by (code) (increase(koinon_agent_refusals_total{{{H}}}[1h])))", "{{code}}")], stacked=True,
    )  # fmt: skip
    trainers = lines(
        "Trainers", "By state; lost: in the hour before.",
        [
            Query(f"sum by (state) (koinon_agent_trainers{{{H}}})", "{{state}}"),
            Query(f"sum(increase(koinon_agent_trainer_losses_total{{{H}}}[1h]))", "lost"),
            Query(f"sum(increase(koinon_agent_trainer_starts_total{{{H}}}[1h]))", "started"),
        ],
    )  # fmt: skip
    traffic = lines(
        "Bytes per second", "To and from the hub.",
        [Query(f"sum by (direction) (rate(koinon_agent_hub_bytes_total{{{H}}}[5m]))", "{{direction}}")], unit="Bps",
    )  # fmt: skip
    disk = lines(
        "Free on the agent's volume", "It holds the journal and the update of the running round.",
        [Query(f"min(koinon_agent_disk_free_bytes{{{H}}})", "free")], unit="bytes",
    )  # fmt: skip
    return Section("Work", (band(7, connection, rounds, seconds, results), band(7, refusals, trainers, traffic, disk)))


def _clusters() -> Section:
    by = f"by ({_PROJECT})"
    legend = f"{{{{{_PROJECT}}}}}"
    pods = lines(
        "Ray pods by phase", "Pending: no node has room, or the image is being pulled.",
        [Query(f"sum by (phase) (koinon_operator_pods{{{G}}})", "{{phase}}")], stacked=True,
        colors={"Pending": ORANGE, "Running": GREEN, "Failed": RED},
    )  # fmt: skip
    nodes = lines(
        "Ray nodes", "Pods that report, by project: the head and its workers.",
        [Query(f"count {by} (ray_node_cpu_count{{{W}}})", legend)], stacked=True,
    )  # fmt: skip
    cpu = lines(
        "CPU in use", "Of the cores of a project's pods.",
        [Query(f"avg {by} (ray_node_cpu_utilization{{{W}}}) / 100", legend)], unit="percentunit", most=1,
    )  # fmt: skip
    memory = lines(
        "Memory in use", "Of what the grant gives; the fullest pod of each project. Ray kills workers above 95 %.",
        [Query(f"max {by} (ray_node_mem_used{{{W}}} / ray_node_mem_total{{{W}}})", legend)], unit="percentunit", most=1,
        steps=((None, GREEN), (0.95, RED)),
    )  # fmt: skip
    in_use = f"sum {by} (ray_object_store_used_memory{{{W}}})"
    store = lines(
        "Object store in use", "Ray's shared memory: rows and weights on their way between processes.",
        [Query(f"{in_use} / ({in_use} + sum {by} (ray_object_store_available_memory{{{W}}}))", legend)],
        unit="percentunit", most=1,
    )  # fmt: skip
    first = (column(5, (7, pods)), column(5, (7, nodes)), column(5, (7, cpu)), column(5, (7, memory)))
    return Section("Ray clusters, by project", ((*first, column(4, (7, store))),))


def _operator() -> Section:
    buckets = f"sum by (le) (rate(koinon_operator_reconcile_seconds_bucket{{{H}}}[5m]))"
    reconcile = lines(
        "Reconcile", "Of one site or project.",
        [
            Query(f"histogram_quantile(0.5, {buckets})", "median"),
            Query(f"histogram_quantile(0.99, {buckets})", "99th percentile"),
        ],
        unit="s",
    )  # fmt: skip
    queue = lines(
        "Queue and failures", "Sites and projects that wait for a reconcile; reconciles that failed, per minute.",
        [
            Query(f"sum(koinon_operator_queue_depth{{{H}}})", "waiting"),
            Query(f"60 * sum(rate(koinon_operator_reconcile_errors_total{{{H}}}[5m]))", "failures per minute"),
        ],
    )  # fmt: skip
    repairs = lines(
        "Drift", "In the hour before: edits by hand that were undone, and repairs put off since somebody keeps at it.",
        [
            Query(f"topk(5, sum by (kind) (increase(koinon_operator_drift_repaired_total{{{H}}}[1h])))", "{{kind}}"),
            Query(f"sum(increase(koinon_operator_contested_total{{{H}}}[1h]))", "put off"),
        ],
    )  # fmt: skip
    removal = f"sum by (le) (increase(koinon_operator_removal_seconds_bucket{{{H}}}[1h]))"
    removals = lines(
        "From a grant's end to nothing left", "95th percentile, and how many, in the hour before.",
        [
            Query(f"histogram_quantile(0.95, {removal})", "seconds"),
            Query(f"sum(increase(koinon_operator_removal_seconds_count{{{H}}}[1h]))", "grants"),
        ],
    )  # fmt: skip
    resync = lines(
        "Since it looked at everything", "It should every 5 minutes.",
        [Query(f"time() - max(koinon_operator_last_resync_timestamp_seconds{{{H}}})", "seconds ago")], unit="s",
        steps=((None, GREEN), (900, RED)),
    )  # fmt: skip
    calls = lines(
        "Calls to the API server", "Per minute, by verb.",
        [Query(f"60 * sum by (verb) (rate(koinon_operator_api_calls_total{{{H}}}[5m]))", "{{verb}}")], stacked=True,
    )  # fmt: skip
    return Section("Operator", (band(7, reconcile, queue, repairs), band(7, removals, resync, calls)))
