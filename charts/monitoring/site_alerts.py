"""Alerts of a hospital's IT: its agent, its operator, its Ray clusters."""

from charts.monitoring.alerts import Alert

_BY = "by (cluster, namespace"
_HOME = "by (cluster, hospital"
_DENIAL = 'condition="EgressDenied", status="False"'

ALERTS = (
    Alert(
        "KoinonEgressOpen", "critical", f"sum {_HOME}) (koinon_operator_conditions{{{_DENIAL}}}) > 0", "0m",
        "In {{ $labels.hospital }} the walls around {{ $value }} projects are not proved.",
        "Their pods do not start: no data is mounted until the denial is proved. Something changed in the network.",
    ),
    Alert(
        "KoinonAgentDown", "critical",
        'up{job="koinon-site", endpoint="status"} == 0 or absent(up{job="koinon-site", endpoint="status"})', "5m",
        "The agent does not answer Prometheus.",
        "The hospital takes no part in rounds. Nothing is lost: it goes on from its journal.",
    ),
    Alert(
        "KoinonAgentStuck", "critical", f"max {_BY}) (koinon_agent_loop_age_seconds) > 120", "5m",
        "The agent's loop has stood still for {{ $value | humanizeDuration }}.",
        "Kubernetes restarts it; if it comes back to this, its log says where it stands.",
    ),
    Alert(
        "KoinonAgentDisconnected", "warning", f"max {_BY}) (koinon_agent_hub_contact_age_seconds) > 300", "5m",
        "The hub has not answered the agent for {{ $value | humanizeDuration }}.",
        "Rounds go on without this hospital. kubectl koinon doctor finds most causes.",
    ),
    Alert(
        "KoinonClockOff", "warning", f"abs(max {_BY}) (koinon_agent_clock_offset_seconds)) > 60", "15m",
        "This clock is {{ $value | humanizeDuration }} off the hub's.",
        "Beyond 300 s the hub refuses the agent's requests, and the agent refuses rounds.",
    ),
    Alert(
        "KoinonCertificateEnds", "warning",
        f"min {_BY}) (koinon_agent_certificate_expiry_timestamp_seconds) - time() < 14 * 86400", "1h",
        "The agent's certificate ends in {{ $value | humanizeDuration }}.",
        "After that the hub refuses the agent. koinon site keys --renew makes the next one.",
    ),
    Alert(
        "KoinonAgentDiskFull", "warning", f"min {_BY}) (koinon_agent_disk_free_bytes) < 2147483648", "10m",
        "Only {{ $value | humanize1024 }}B are free on the agent's volume.",
        "It holds the journal and the update of the running round. Full, the agent refuses rounds.",
    ),
    Alert(
        "KoinonRefuses", "info", f"sum {_BY}, code) (increase(koinon_agent_refusals_total[1h])) > 0", "0m",
        'The agent refused {{ $value | printf "%.0f" }} rounds in the last hour: {{ $labels.code }}.',
        "It does so by the grant and its own rules. The agent's log names run and reason.",
    ),
    Alert(
        "KoinonTrainerLost", "warning", f"sum {_BY}) (increase(koinon_agent_trainer_losses_total[1h])) > 2", "0m",
        'Trainers were lost {{ $value | printf "%.0f" }} times in the last hour.',
        "Each costs at most the round it was in. Memory, or nodes that go away, are the usual cause.",
    ),
    Alert(
        "KoinonGrantNotReady", "warning",
        f'sum {_HOME}) (koinon_operator_conditions{{condition="ClusterReady", status!="True"}}) > 0', "15m",
        "In {{ $labels.hospital }} {{ $value }} granted projects have no Ray cluster that is ready.",
        "kubectl get grants shows the reason of each.",
    ),
    Alert(
        "KoinonOperatorDown", "critical",
        'up{job="koinon-site", endpoint="health"} == 0 or absent(up{job="koinon-site", endpoint="health"})', "10m",
        "The operator does not answer Prometheus.",
        "What runs goes on. But no grant starts, and no revocation or expiry ends anything, until it is back.",
    ),
    Alert(
        "KoinonOperatorStalled", "critical",
        f"time() - max {_BY}) (koinon_operator_last_resync_timestamp_seconds) > 900", "5m",
        "The operator has not looked at everything for {{ $value | humanizeDuration }}.",
        "It may miss revocations. Kubernetes restarts it; the API server may be away.",
    ),
    Alert(
        "KoinonReconcileFails", "warning",
        f"sum {_BY}, what) (increase(koinon_operator_reconcile_errors_total[15m])) > 3", "15m",
        "Reconciles of a {{ $labels.what }} fail again and again.",
        "They are tried again with growing pauses. The operator's log and the events of the Grant say why.",
    ),
    Alert(
        "KoinonReconcileSlow", "warning",
        f"histogram_quantile(0.99, sum {_BY}, le) (rate(koinon_operator_reconcile_seconds_bucket[10m])))"
        f" > 1 or max {_BY}) (koinon_operator_queue_depth) > 100", "15m",
        "The operator is behind ({{ $value | humanize }}).",
        "Either reconciles take above 1 s (99th percentile) or more than 100 wait. Usually the API server is slow.",
    ),
    Alert(
        "KoinonRemovalSlow", "critical",
        f'sum {_BY}) (increase(koinon_operator_removal_seconds_count[1h]))'
        f' - sum {_BY}) (increase(koinon_operator_removal_seconds_bucket{{le="60.0"}}[1h])) > 0.5', "0m",
        "It took longer than a minute until nothing was left of a revoked or expired project.",
        "A hospital's revocation must end what runs, at once. Look what held the pods.",
    ),
    Alert(
        "KoinonContested", "warning", f"sum {_BY}, kind) (increase(koinon_operator_contested_total[30m])) > 0", "0m",
        "Somebody keeps changing a {{ $labels.kind }} that the operator owns.",
        "The operator has put off its repair so as not to fight for ever. Another tool manages the same object.",
    ),
    Alert(
        "KoinonDriftRepaired", "info",
        f"sum {_BY}, kind) (increase(koinon_operator_drift_repaired_total[1h])) > 0", "0m",
        '{{ $value | printf "%.0f" }} edits or deletions of a {{ $labels.kind }} by hand were undone in the last hour.',
        "Who did it is in the API server's audit log; change the Site or the Grant instead.",
    ),
    Alert(
        "KoinonQuotaFull", "warning",
        f'sum {_HOME}, resource) (koinon_operator_quota{{kind="used"}})'
        f' / sum {_HOME}, resource) (koinon_operator_quota{{kind="hard"}}) > 0.95', "30m",
        "{{ $labels.hospital }} uses {{ $value | humanizePercentage }} of its quota of {{ $labels.resource }}.",
        "The next grant's pods will not start. Raise the Site's quota, or let a grant end.",
    ),
    Alert(
        "KoinonRayMemory", "warning",
        f"max {_BY}, koinon_dev_project, pod) (ray_node_mem_used / ray_node_mem_total) > 0.9", "10m",
        "The Ray pod {{ $labels.pod }} uses {{ $value | humanizePercentage }} of its memory.",
        "Above 95 % Ray kills workers, and the round is lost. The grant's memory bounds it.",
    ),
)  # fmt: skip
