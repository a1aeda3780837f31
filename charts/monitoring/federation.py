"""The federation, as the platform's operator sees it: the hub's own figures; of a hospital only whether it is there.

Its first row answers: which runs wait, for whom, since when?
"""

from grafana_foundation_sdk.builders import dashboard

from charts.monitoring.panels import (
    BLUE,
    GREEN,
    GREY,
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

UID = "koinon-federation"
F = 'cluster=~"$cluster", namespace=~"$namespace"'
_WAIT = "max by (site, cause, run, project)"
_SINCE, _UNTIL = f"koinon_wait_since_timestamp_seconds{{{F}}}", f"koinon_wait_until_timestamp_seconds{{{F}}}"
_CAUSES = {
    "hub": ("the hub: a step failed and is tried again", RED),
    "not_granted": ("has not granted the project", ORANGE),
    "revoked": ("has revoked its grant", ORANGE),
    "not_in_force": ("granted, but not for now", ORANGE),
    "not_connected": ("is not connected", RED),
    "weights": ("builds the first weights", BLUE),
    "train": ("trains", BLUE),
    "evaluate": ("scores the final model", BLUE),
    "shares": ("sends its shares", BLUE),
    "masked": ("uploads its masked update", BLUE),
    "survivors": ("signs the survivors", BLUE),
    "unmask": ("releases its shares", BLUE),
}
_LONG_POLLS = 'route!~"/v1/sites/me/tasks|.*/events"'
_POLLS = {"1": ("yes", GREEN), "0": ("no", RED)}
_UP = {"1": ("answers", GREEN), "0": ("is away", RED)}


def build() -> dashboard.Dashboard:
    made = board(UID, "Koinon federation", "Runs, rounds, sites and the hub. No hospital's inside is shown.", "hub")
    made.with_variable(variable("cluster", "Cluster", "label_values(koinon_info, cluster)", every=True))
    made.with_variable(
        variable("namespace", "Namespace", 'label_values(koinon_info{cluster=~"$cluster"}, namespace)', every=True)
    )
    place(made, (_waits(), _rounds(), _outcomes(), _sites(), _hub()))
    return made


def _waits() -> Section:
    listed = rows(
        "Which runs wait, for whom, since when",
        "The 100 longest waits. `koinon run show RUN --timing` splits each round of a run by site and part; "
        "`koinon site show SITE` tells what a site does now.",
        [
            Cell("For whom", label="site", width=150),
            Cell("Why", label="cause", words=_CAUSES, width=290),
            Cell("Run", label="run", width=130),
            Cell("Project", label="project"),
            Cell("Waiting", expr=f"time() - {_WAIT} ({_SINCE})", unit="s", width=110,
                 steps=((None, GREY), (600, ORANGE), (3_600, RED))),
            Cell("Since", expr=f"1000 * {_WAIT} ({_SINCE})", unit="dateTimeAsLocal", width=170),
            Cell("Until", expr=f"1000 * {_WAIT} ({_UNTIL})", unit="dateTimeAsLocal", width=170),
        ],
        sort="Waiting",
        none="No run waits.",
    )  # fmt: skip
    longest = number(
        "Longest wait", "Of any run, for anybody.", [Query(f"max(time() - {_SINCE})")], unit="s", none="none",
        steps=((None, GREEN), (600, ORANGE), (3_600, RED)),
    )  # fmt: skip
    runs = number("Runs", "That are not over.", [Query(f"sum by (state) (koinon_runs{{{F}}})", "{{state}}")])
    sites = number(
        "Sites", "Enrolled sites, by whether they polled in the last 75 s.",
        [Query(f"sum by (state) (koinon_sites{{{F}}})", "{{state}}")],
    )  # fmt: skip
    history = lines(
        "Waits by reason", "How many pairs of run and site wait (of the 100 longest).",
        [Query(f"count by (cause) ({_SINCE})", "{{cause}}")], stacked=True, none="No run waited.",
    )  # fmt: skip
    by_site = lines(
        "Longest wait by site", "The ten sites that runs wait for longest; hub: the hub itself.",
        [Query(f"topk(10, max by (site) (time() - {_SINCE}))", "{{site}}")], unit="s", none="No run waited.",
    )  # fmt: skip
    top = (column(18, (10, listed)), column(6, (3, longest), (4, runs), (3, sites)))
    return Section("Waiting", (top, band(7, history, by_site)))


def _rounds() -> Section:
    per_minute = lines(
        "Rounds per minute", "That committed, by kind; a void round changes no model, and counts against the limits.",
        [
            Query(f'60 * sum by (kind) (rate(koinon_rounds_total{{{F}, state="committed"}}[5m]))', "{{kind}}"),
            Query(f'60 * sum(rate(koinon_rounds_total{{{F}, state="void"}}[5m]))', "void"),
        ],
        colors={"void": RED},
    )  # fmt: skip
    spent = f"sum by (part) (rate(koinon_round_part_seconds_sum{{{F}}}[5m]))"
    count = f"sum by (part) (rate(koinon_round_part_seconds_count{{{F}}}[5m]))"
    split = lines(
        "Where a round's time goes", "Mean seconds of each part of the rounds that committed in the last 5 minutes.",
        [Query(f"{spent} / ({count} > 0)", "{{part}}")], unit="s", stacked=True,
    )  # fmt: skip
    buckets = f"sum by (part, le) (rate(koinon_round_part_seconds_bucket{{{F}}}[5m]))"
    tail = lines(
        "Parts, 95th percentile", "Of the rounds that committed in the last 5 minutes: 19 of 20 took no longer.",
        [Query(f"histogram_quantile(0.95, {buckets})", "{{part}}")], unit="s",
    )  # fmt: skip
    return Section("Rounds", (band(8, per_minute, split, tail),))


def _outcomes() -> Section:
    ended = lines(
        "Runs that ended", "In the hour before.",
        [Query(f"sum by (state) (increase(koinon_runs_ended_total{{{F}}}[1h]))", "{{state}}")], stacked=True,
        colors={"completed": GREEN, "failed": RED, "cancelled": GREY},
    )  # fmt: skip
    again = lines(
        "Attempts made again", "In the hour before, by the phase in which too few sites were left.",
        [Query(f"sum by (phase) (increase(koinon_attempts_failed_total{{{F}}}[1h]))", "{{phase}}")], stacked=True,
    )  # fmt: skip
    refusals = lines(
        "Sites' refusals and troubles",
        "In the hour before, the six most frequent, of all sites together. A hospital's own log has more.",
        [Query(f"topk(6, sum by (kind, code) (increase(koinon_site_troubles_total{{{F}}}[1h])))", "{{kind}} {{code}}")],
        stacked=True,
    )  # fmt: skip
    errors = lines(
        "Errors by code, per minute", "Told to researchers and sites; the six most frequent.",
        [Query(f"60 * topk(6, sum by (code) (rate(koinon_problems_total{{{F}}}[5m])))", "{{code}}")], stacked=True,
    )  # fmt: skip
    return Section("Outcomes", (band(7, ended, again, refusals, errors),))


def _sites() -> Section:
    each = "max by (site)"
    listed = rows(
        "Each site", "As the hub sees it; what goes on inside a hospital is the hospital's to see.",
        [
            Cell("Site", label="site"),
            Cell("Polling", expr=f"{each} (koinon_site_connected{{{F}}})", words=_POLLS),
            Cell("Last contact", expr=f"1000 * {each} (koinon_site_last_contact_timestamp_seconds{{{F}}})",
                 unit="dateTimeFromNow"),
            Cell("Clock ahead", expr=f"{each} (koinon_site_clock_offset_seconds{{{F}}})", unit="s",
                 steps=((None, RED), (-30, GREY), (30, RED))),
            Cell("Certificate ends", expr=f"1000 * {each} (koinon_site_certificate_expiry_timestamp_seconds{{{F}}})",
                 unit="dateTimeFromNow"),
        ],
        sort="Last contact", rising=True,
    )  # fmt: skip
    over_time = lines(
        "Sites connected", "Sites that polled lately, and those that did not.",
        [Query(f"sum by (state) (koinon_sites{{{F}}})", "{{state}}")], stacked=True,
        colors={"connected": GREEN, "away": RED},
    )  # fmt: skip
    clocks = lines(
        "Clocks", "The five sites whose clocks differ most from the hub's. Requests are refused beyond 300 s.",
        [Query(f"topk(5, abs({each} (koinon_site_clock_offset_seconds{{{F}}})))", "{{site}}")], unit="s",
        steps=((None, GREEN), (30, ORANGE), (300, RED)),
    )  # fmt: skip
    return Section("Sites", ((column(14, (14, listed)), column(10, (7, over_time), (7, clocks))),))


def _hub() -> Section:
    parts = states(
        "Database, artifact store, disk", "Whether each answers the hub.",
        [Query(f"min by (part) (koinon_part_up{{{F}}})", "{{part}}")], _UP,
    )  # fmt: skip
    checks = lines(
        "Seconds to answer the hub's check", "Of the database, the artifact store and the disk.",
        [Query(f"max by (part) (koinon_part_check_seconds{{{F}}})", "{{part}}")], unit="s",
    )  # fmt: skip
    used = f"1 - koinon_disk_free_bytes{{{F}}} / koinon_disk_size_bytes{{{F}}}"
    disk = lines(
        "Disk of the hub in use", "It holds the hub's keys, packages, and what sites are uploading.",
        [Query(f"max({used})", "used")], unit="percentunit", most=1, steps=((None, GREEN), (0.9, RED)),
    )  # fmt: skip
    scheduler = lines(
        "Steps of runs that are tried again", "Something was away; nothing is lost meanwhile.",
        [
            Query(f"sum(koinon_scheduler_retrying{{{F}}})", "runs that wait for a retry"),
            Query(f"60 * sum(rate(koinon_scheduler_failures_total{{{F}}}[5m]))", "failures per minute"),
        ],
    )  # fmt: skip
    requests = lines(
        "Requests per second", "By status.",
        [Query(f"sum by (status) (rate(koinon_http_requests_total{{{F}}}[5m]))", "{{status}}")], unit="reqps",
        stacked=True,
    )  # fmt: skip
    slow = f"sum by (route, le) (rate(koinon_http_request_seconds_bucket{{{F}, {_LONG_POLLS}}}[5m]))"
    latency = lines(
        "Slowest routes, 95th percentile", "Without the two that wait on purpose.",
        [Query(f"topk(8, histogram_quantile(0.95, {slow}))", "{{route}}")], unit="s",
    )  # fmt: skip
    traffic = lines(
        "Bytes per second", "Of all requests' and answers' bodies; verified: masked updates that count.",
        [
            Query(f"sum by (direction) (rate(koinon_http_bytes_total{{{F}}}[5m]))", "{{direction}}"),
            Query(f"sum(rate(koinon_upload_bytes_total{{{F}}}[5m]))", "verified uploads"),
        ],
        unit="Bps",
    )  # fmt: skip
    version = number(
        "Version", "Of the hub.", [Query(f"max by (version) (koinon_info{{{F}}})", "{{version}}")],
        words={"1": ("runs", GREEN)}, none="The hub is down.",
    )  # fmt: skip
    health = (column(8, (7, parts)), column(8, (7, checks)), column(8, (7, disk)))
    load = (column(6, (7, version)), column(6, (7, scheduler)), column(12, (7, traffic)))
    return Section("Hub", (health, load, band(8, requests, latency)))
