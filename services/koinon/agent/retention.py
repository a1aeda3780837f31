"""What stays on the disk and for how long: nothing that the journal does not name, nothing once the consent ended."""

from collections.abc import Container

from koinon.agent import round as rounds
from koinon.agent import training
from koinon.agent.policy import Refusal
from koinon.agent.site import Site, remove_run

ENDED = frozenset({"revoked", "grant_expired"})


def forget_ended(site: Site, busy: Container[str]) -> None:
    """Erases plain updates, masked files and secrets of all runs whose project's grant ended, but for `busy` ones."""
    for run in site.journal.unerased():
        project = site.journal.project(run)
        if run in busy or project is None:
            continue
        try:
            site.book.project(project, site.clock())
        except Refusal as refusal:
            if refusal.code in ENDED:
                rounds.finish(site, run)
                site.log.event("run-erased", run=run, code=refusal.code)


def sweep(site: Site) -> None:
    """At start: removes what a crash left in the folder of work, all but the files that the journal names."""
    known = set(site.journal.unerased())
    for folder in site.folder.work.iterdir():
        if not folder.is_dir():
            folder.unlink(missing_ok=True)
        elif folder.name not in known:
            remove_run(site.folder, folder.name)
        else:
            named = _named(site, folder.name)
            for path in folder.iterdir():
                if path.name not in named:
                    path.unlink(missing_ok=True)


def _named(site: Site, run: str) -> set[str]:
    """The files of a run that may be asked for again."""
    control, state = site.journal.control(run), training.last_attempt(site, run)
    named = {name for name in (control.file, control.pending_file) if name is not None} | site.journal.files(run)
    if state is None:  # round 0
        return named | {"init.safetensors", "init.sealed"}
    return named | {rounds.masked_file(state.opening)}
