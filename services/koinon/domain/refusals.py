"""Why a site refuses: the codes that cross to the hub with a trouble of class Refusal.

docs/runbooks/KoinonSitesRefuse.md says what to do about each.
"""

CODES = frozenset({
    "bad_grant", "bad_manifest", "bad_opening", "bad_revocation", "changed_attempt", "changed_run", "clock_off",
    "disk_full", "grant_expired", "grant_not_yet", "hub_behind", "no_dataset", "no_grant", "no_manifest",
    "not_a_member", "not_invited", "old_epoch", "outside_limits", "package_invalid", "protocol", "refused",
    "releases_spent", "revoked", "round_too_large", "rounds_spent", "run_too_long", "scored_before",
    "too_few_sites", "too_many_projects", "wrong_manifest",
})  # fmt: skip
