"""Alerts of the platform's operator: the hub, and the federation as the hub sees it."""

from charts.monitoring.alerts import Alert

_BY = "by (cluster, namespace"
_SINCE = "koinon_wait_since_timestamp_seconds"
_SLOW = 'koinon_http_request_seconds_bucket{route!~"/v1/sites/me/tasks|.*/(events|uploads/.*|artifacts/.*)"}'

ALERTS = (
    Alert(
        "KoinonHubDown", "critical",
        'up{job="koinon-hub"} == 0 or absent(up{job="koinon-hub"})', "5m",
        "The hub does not answer Prometheus.",
        "No run goes on and no site can reach the hub. Rounds are taken up where they were once it is back.",
    ),
    Alert(
        "KoinonHubPartAway", "critical", f"min {_BY}, part) (koinon_part_up) == 0", "2m",
        "The hub's {{ $labels.part }} does not answer.",
        "Steps that need it are tried again until it is back; nothing is lost meanwhile, and nothing goes on.",
    ),
    Alert(
        "KoinonHubDiskFull", "warning", "koinon_disk_free_bytes / koinon_disk_size_bytes < 0.1", "10m",
        "Only {{ $value | humanizePercentage }} of the hub's disk is free.",
        "Uploads of sites need two models per site and round. When the disk is full, rounds wait.",
    ),
    Alert(
        "KoinonRunStepFailing", "warning", f"sum {_BY}) (koinon_scheduler_retrying) > 0", "10m",
        "{{ $value }} runs wait for a step of the hub that fails again and again.",
        "GET /readyz names them and the reason.",
    ),
    Alert(
        "KoinonHubErrors", "warning",
        f'sum {_BY}) (rate(koinon_problems_total{{code=~"unavailable|internal"}}[5m]))'
        f" / sum {_BY}) (rate(koinon_http_requests_total[5m])) > 0.05", "10m",
        "{{ $value | humanizePercentage }} of the hub's answers are errors of its own.",
        "The hub's log has them, by incident.",
    ),
    Alert(
        "KoinonHubSlow", "warning",
        f"histogram_quantile(0.95, sum {_BY}, le) (rate({_SLOW}[10m]))) > 5", "15m",
        "The hub takes {{ $value | humanizeDuration }} to answer (95th percentile).",
        "Long-polls, uploads and downloads are not counted: those may take long.",
    ),
    Alert(
        "KoinonRunWaits", "warning",
        f'max {_BY}, site, cause) (time() - {_SINCE}{{cause!~"hub|not_granted|revoked|not_in_force"}}) > 3600', "5m",
        "Runs have waited for {{ $labels.site }} for {{ $value | humanizeDuration }} ({{ $labels.cause }}).",
        "At its deadline the round goes on without the site, if enough others are left.",
    ),
    Alert(
        "KoinonGrantMissing", "info",
        f'max {_BY}, site, cause) (time() - {_SINCE}{{cause=~"not_granted|revoked|not_in_force"}}) > 172800', "1h",
        "Runs have waited for a grant of {{ $labels.site }} for {{ $value | humanizeDuration }} ({{ $labels.cause }}).",
        "Only the hospital can grant; remind it. A run that gets too few grants fails after seven days.",
    ),
    Alert(
        "KoinonSiteAway", "warning",
        f"time() - max {_BY}, site) (koinon_site_last_contact_timestamp_seconds) > 3600", "5m",
        "{{ $labels.site }} has not polled for {{ $value | humanizeDuration }}.",
        "Rounds go on without it, if their projects have enough other sites.",
    ),
    Alert(
        "KoinonManySitesAway", "critical",
        f'sum {_BY}) (koinon_sites{{state="away"}}) / sum {_BY}) (koinon_sites) > 0.5'
        f" and sum {_BY}) (koinon_sites) >= 3", "10m",
        "{{ $value | humanizePercentage }} of the sites are away.",
        "So many at once point to the hub's own address, certificate or network, not to the hospitals.",
    ),
    Alert(
        "KoinonSiteClockOff", "warning", f"abs(max {_BY}, site) (koinon_site_clock_offset_seconds)) > 60", "15m",
        "The clock of {{ $labels.site }} is {{ $value | humanizeDuration }} off the hub's.",
        "Beyond 300 s the hub refuses its requests, and the site refuses rounds.",
    ),
    Alert(
        "KoinonHubCertificateEnds", "warning",
        f"min {_BY}) (koinon_certificate_expiry_timestamp_seconds) - time() < 14 * 86400", "1h",
        "The hub's certificate ends in {{ $value | humanizeDuration }}.",
        "After that no hospital and no researcher trusts the hub. A new pair in its Secret is taken up by itself.",
    ),
    Alert(
        "KoinonSiteCertificateEnds", "warning",
        f"min {_BY}, site) (koinon_site_certificate_expiry_timestamp_seconds) - time() < 14 * 86400", "1h",
        "The certificate of {{ $labels.site }} ends in {{ $value | humanizeDuration }}.",
        "After that the hub refuses its requests. The hospital renews it.",
    ),
    Alert(
        "KoinonRunFailed", "warning", f'sum {_BY}) (increase(koinon_runs_ended_total{{state="failed"}}[1h])) > 0', "0m",
        '{{ $value | printf "%.0f" }} runs failed in the last hour.',
        "The reason of each, with the sites it names: koinon run list; koinon run show RUN.",
    ),
    Alert(
        "KoinonRoundsVoid", "warning", f'sum {_BY}) (increase(koinon_rounds_total{{state="void"}}[1h])) > 1', "0m",
        '{{ $value | printf "%.0f" }} rounds became void in the last hour.',
        "Sites vanished after the first of them had released shares. Such rounds count against the project's limits.",
    ),
    Alert(
        "KoinonAttemptsFail", "warning",
        f"sum {_BY}, phase) (increase(koinon_attempts_failed_total[1h])) > 5", "0m",
        '{{ $value | printf "%.0f" }} attempts lost too many sites in phase {{ $labels.phase }} in the last hour.',
        "Nothing is trained twice, but each costs time. Mostly connections break, or deadlines are too short.",
    ),
    Alert(
        "KoinonSitesRefuse", "info",
        f'sum {_BY}, code) (increase(koinon_site_troubles_total{{kind="refusal"}}[1h])) > 0', "0m",
        "Sites refused rounds in the last hour: {{ $labels.code }}.",
        "A refusal is a hospital's right; the code says why. koinon run show RUN names the sites.",
    ),
)  # fmt: skip
