"""The actors of a group: started where Ray has nodes for them, kept over the rounds, connected to each other.

A node that came is used from the next round on; its actor is waited for once, and a slow one joins when it is
ready. One that went is left out. Both cost a meeting of the ranks and change no byte of what they compute.
"""

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from koinon.trainer import errors, places
from koinon.trainer.actor import LOST, Actor, Spec
from koinon.trainer.errors import TrainerError
from koinon.trainer.places import Place

log = logging.getLogger("koinon.trainer")

START_SECONDS = 120.0  # a fresh worker on a busy machine imports torch for half a minute
JOIN_SECONDS = 30.0  # for others, once one can train
MEET_SECONDS = 60.0
GRACE_SECONDS = 5.0  # a rank whose peer is gone says so before Ray says why


class Crew:
    """Warm actors by their place. Any trouble between them ends in `kill`, and the next `assemble` starts anew."""

    def __init__(self, spec: Spec) -> None:
        self._spec = replace(spec, package=None)
        self._package = ray.put(spec.package)  # once, for all actors that will ever load it
        self._warm: dict[Place, Any] = {}
        self._starting: dict[Place, tuple[Any, Any]] = {}  # the actor, and a reference to its first answer
        self._late: set[Place] = set()
        self._met: list[Place] = []

    def assemble(self) -> list[Any]:
        """The actors of the round that begins, in the order of their ranks.

        Raises TrainerError of the package, timeout, unavailable, peer_lost; RayError if no actor starts.
        """
        wanted = self._wanted()
        for place in [place for place in self._starting if place not in wanted]:
            ray.kill(self._starting.pop(place)[0], no_restart=True)
        for place in wanted:
            if place not in self._warm and place not in self._starting:
                self._starting[place] = self._start(place)
        failure = self._wait()
        if not self._warm:
            if not wanted:
                raise TrainerError("unavailable", "none of Ray's nodes answers")
            if failure is not None and set(wanted) - set(self._wanted()):
                return self.assemble()  # it went while its actor started
            raise failure or TrainerError("timeout", f"no actor started within {START_SECONDS:.0f} s")
        # Until the first of the wanted is warm, the old ones go on.
        ranks = [place for place in wanted if place in self._warm] or list(self._warm)
        for place in [place for place in self._warm if place not in ranks]:
            ray.kill(self._warm.pop(place), no_restart=True)
        self._meet(ranks)
        return [self._warm[place] for place in ranks]

    def _wanted(self) -> list[Place]:
        nodes = places.answering(ray.nodes())  # type: ignore[no-untyped-call]
        return places.choose(nodes, self._spec.parts, {place.node for place in self._warm})

    def kill(self) -> None:
        for actor in (*self._warm.values(), *(actor for actor, _ in self._starting.values())):
            ray.kill(actor, no_restart=True)
        self._warm.clear()
        self._starting.clear()
        self._late.clear()
        self._met.clear()

    def _start(self, place: Place) -> tuple[Any, Any]:
        options = {
            "num_cpus": 0,
            "num_gpus": int(place.gpu),
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node, soft=False),
        }
        actor: Any = ray.remote(Actor).options(**options).remote(replace(self._spec, gpu=place.gpu))
        return actor, actor.call.remote("load", self._package)

    def _wait(self) -> exceptions.RayError | None:
        """Until those that start are warm, as long as each may take. Answers why the last one failed that did."""
        failure: exceptions.RayError | None = None
        patient, begun = bool(self._starting.keys() - self._late), time.monotonic()
        while self._starting:
            seconds = START_SECONDS if not self._warm else JOIN_SECONDS if patient else 0.0
            by_reference = {reference: place for place, (_, reference) in self._starting.items()}
            done, _ = ray.wait(list(by_reference), timeout=max(0.0, begun + seconds - time.monotonic()))
            if not done:
                break
            place = by_reference[done[0]]
            actor, reference = self._starting.pop(place)
            try:
                _answer(ray.get(reference))
                self._warm[place] = actor
            except exceptions.RayError as error:
                failure = error
                log.warning("No actor started on %s: %s", place.address, type(error).__name__)
            except TrainerError:
                ray.kill(actor, no_restart=True)  # an actor without its package must not answer
                raise
        self._late = set(self._starting)
        return failure

    def _meet(self, ranks: list[Place]) -> None:
        """Connects the actors, unless they are as they were in the last round."""
        if ranks == self._met:
            return
        actors = [self._warm[place] for place in ranks]
        try:
            if len(self._met) > 1:
                gather([actor.call.remote("leave") for actor in actors], MEET_SECONDS)
            if len(ranks) > 1:
                calls = [actor.call.remote("listen", place.address) for actor, place in zip(actors, ranks, strict=True)]
                ports = gather(calls, MEET_SECONDS)
                addresses = [(place.address, port) for place, port in zip(ranks, ports, strict=True)]
                secret = secrets.token_bytes(32)
                gather([a.call.remote("join", rank, addresses, secret) for rank, a in enumerate(actors)], MEET_SECONDS)
        except exceptions.GetTimeoutError:
            raise TrainerError(LOST, f"{len(ranks)} ranks did not meet within {MEET_SECONDS:.0f} s") from None
        if len(ranks) > 1 or self._met:
            where = ", ".join(place.address for place in ranks)
            log.info("Training on %d of Ray's nodes from now on: %s", len(ranks), where)
        self._met = ranks


def gather(references: Sequence[Any], seconds: float) -> list[Any]:
    """What actors answer, in the order of the references; the first failure ends the wait.

    Raises TrainerError as an actor reports it, RayError, and of those GetTimeoutError after `seconds`.
    """
    end, waiting = time.monotonic() + seconds, list(references)
    answers: dict[Any, Any] = {}
    lost: TrainerError | None = None
    while waiting:
        done, waiting = ray.wait(waiting, timeout=max(0.0, end - time.monotonic()))
        if not done:
            raise lost or exceptions.GetTimeoutError(f"no answer within {seconds:.0f} s")
        try:
            answers[done[0]] = _answer(ray.get(done[0]))
        except TrainerError as error:
            if error.code != LOST:
                raise
            lost, end = error, min(end, time.monotonic() + GRACE_SECONDS)
    if lost is not None:
        raise lost
    return [answers[reference] for reference in references]


def _answer(reply: Mapping[str, Any]) -> Any:
    if "trouble" in reply:
        raise errors.from_wire(dict(reply["trouble"]))
    return reply["answer"]
