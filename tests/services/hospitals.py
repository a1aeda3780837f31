"""Hospitals without agent and trainer: the real machines of `protection.site` behind real signed requests.

What they train is a formula of site, round and model, so that a run's bytes can be told beforehand.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import blake3
import httpx
import numpy as np

from koinon.artifacts import keyfiles, sealing
from koinon.domain import canonical, httpsig, metrics, tensors, wire
from koinon.domain.errors import KoinonError
from koinon.domain.grant import Grant
from koinon.domain.keys import Certificate, Signed, SigningKey
from koinon.domain.manifest import Manifest
from koinon.domain.run import Kind, Phase
from koinon.protection import ballots, masking, ring
from koinon.protection import site as machine

LATER = 4_000_000_000


class Hospital:
    """One site. `before(task)` may return False to leave a task alone, or raise to break."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self.url = name, url
        seed = hashlib.sha256(name.encode()).digest()
        self.root, self.signer = SigningKey(seed), SigningKey(hashlib.sha256(seed).digest())
        self.identity = keyfiles.new_identity()
        self.certificate = self.certify(1)
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self.before: Callable[[wire.Task], bool] = lambda task: True
        self.took = ""
        self.clock: Callable[[], float] = time.time
        self.states: dict[str, machine.SiteAttempt] = {}
        self.sent: dict[tuple[Any, ...], bytes] = {}
        self.manifests: dict[str, Manifest] = {}
        self.updates: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        self.failures: list[Exception] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def certify(self, epoch: int) -> Certificate:
        return Certificate(
            site=self.name, epoch=epoch, signing=self.signer.public, recipient=self.identity.recipient,
            not_before=0, not_after=LATER,
        ).signed(self.root)  # fmt: skip

    # -- signed requests

    def call(self, method: str, path: str, body: bytes = b"", **params: Any) -> httpx.Response:
        request = self.http.build_request(method, path, params=params or None, content=body)
        request.headers["Koinon-Protocol"] = "1"
        request.headers.update(
            httpsig.sign(method, str(request.url), self.name, self.signer, created=self.clock(), body=body)
        )
        return self.http.send(request)

    def enrol(self, token: str) -> httpx.Response:
        body = {
            "token": token,
            "site": self.name,
            "root": self.root.public,
            "certificate": self.certificate.model_dump(),
        }
        return self.http.post("/v1/sites/enrol", content=canonical.encode(body))

    def grant(self, manifest: Manifest) -> None:
        vouched = {member.site: member.root for member in manifest.members if member.site != self.name}
        grant = Grant(
            manifest=manifest.digest(), site=self.name, not_before=int(time.time()) - 60, expires=LATER,
            dataset="heart", vouched=vouched,
        ).signed(self.root)  # fmt: skip
        answer = self.call("PUT", "/v1/sites/me/grants", grant.encode())
        assert answer.status_code == 204, answer.text

    def status(self) -> bytes:
        return wire.SiteStatus(version="test", doing="idle", disk_free=1, clock=time.time()).encode()

    def poll(self, after: int, wait: float = 2.0) -> dict[str, Any]:
        answer = self.call("POST", "/v1/sites/me/tasks", self.status(), after=after, wait=wait)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    # -- the loop

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Call `end` for all hospitals first, so that their long-polls end together."""
        self.end()
        if self._thread is not None:
            self._thread.join(30)

    def end(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        cursor = 0
        while not self._stop.is_set():
            try:
                polled = self.poll(cursor)
                for task in polled["tasks"]:
                    parsed = wire.Task.of(task)
                    if self.before(parsed):
                        self.act(parsed)
                cursor = polled["cursor"]
            except (httpx.TransportError, httpx.HTTPStatusError):
                self._stop.wait(0.05)
                cursor = 0
            except Exception as error:  # shown by the test that stops this hospital
                self.failures.append(error)
                return

    def act(self, task: wire.Task) -> None:
        """What the agent does with a task; every message is made once and sent again as it was."""
        opening = task.opening
        key = (opening.run, opening.round, opening.attempt, task.phase)
        if task.upload:
            roots = {member.site: member.root for member in self.manifest(opening.manifest).members}
            given: dict[str, Any] = {"site": self.name, "roots": roots, "min_sites": 3, "now": time.time()}
            ballots.require(task.ballots, opening, self.weights(opening)[1], **given)
            self.upload(opening, self.sealed_weights(opening))
            return
        if key not in self.sent:
            try:
                self.sent[key] = self._message(task)
            except KoinonError as error:  # as the agent: what this site cannot do, it says
                self.report(opening, error.slug())
                return
        if task.phase is Phase.MASKED:
            self.upload(opening, self.sent[(*key, "bytes")])
        answer = self.send(task.phase, opening, self.sent[key])
        assert answer.status_code == 200, answer.text

    def send(self, phase: Phase, opening: wire.Opening, body: bytes) -> httpx.Response:
        params = {"run": opening.run, "round": opening.round, "attempt": opening.attempt, "seconds": self.took}
        answer = self.call("POST", f"/v1/sites/me/bundles/{phase}", body, **params)
        if answer.status_code >= 500:
            answer.raise_for_status()
        return answer

    def report(self, opening: wire.Opening, code: str, place: str = "") -> None:
        trouble = wire.Trouble(code=code, error="ValueError", place=place, incident="0123456789ab")
        report = wire.SiteReport(opening=opening.digest(), site=self.name, trouble=trouble)
        params = {"run": opening.run, "round": opening.round, "attempt": opening.attempt}
        self.call("POST", "/v1/sites/me/trouble", report.encode(), **params).raise_for_status()

    def upload(self, opening: wire.Opening, content: bytes) -> None:
        base = f"/v1/sites/me/uploads/{opening.run}/{opening.round}/{opening.attempt}"
        here = self.call("GET", base)
        if here.status_code == 409:
            return
        here.raise_for_status()
        for index in range(-(-len(content) // wire.PART_BYTES)):
            if index not in here.json()["parts"]:
                part = content[index * wire.PART_BYTES : (index + 1) * wire.PART_BYTES]
                self.call("PUT", f"{base}/{index}", part).raise_for_status()

    def manifest(self, name: str) -> Manifest:
        if name not in self.manifests:
            answer = self.call("GET", f"/v1/projects/{name}")
            answer.raise_for_status()
            self.manifests[name] = Manifest.of(answer.json()["manifest"])
            assert self.manifests[name].digest() == name
        return self.manifests[name]

    # -- the work

    def _message(self, task: wire.Task) -> bytes:
        opening, phase = task.opening, task.phase
        manifest = self.manifest(opening.manifest)
        if phase is Phase.INIT:
            vote = wire.InitVote(opening=opening.digest(), site=self.name, sha256=self.weights(opening)[1])
            return vote.signed(self.signer).encode()
        state = self.states.get(opening.run)
        if phase is Phase.KEYS:
            if (opening.run, opening.round) not in self.updates:
                self.updates[opening.run, opening.round] = self.train(manifest, task)
            state = machine.join(state, opening, self.certificate, os.urandom(32))
            message: Signed = state.keys_message(self.signer)
        else:
            assert state is not None
            assert state.opening == opening
            if phase is Phase.SHARES:
                assert task.roster is not None
                roots = {member.site: member.root for member in manifest.members}
                state = state.accept_roster(task.roster, roots=roots, now=time.time())
                message = state.shares_message(self.signer)
            elif phase is Phase.MASKED:
                assert task.inbox is not None
                values = self.updates[opening.run, opening.round]
                state = state.accept_inbox(task.inbox).bind(digest_of(values))
                words = self.masked(manifest, state, values)
                self.sent[(opening.run, opening.round, opening.attempt, phase, "bytes")] = words
                state = state.record_upload(len(words), blake3.blake3(words).hexdigest())
                message = state.masked_message(self.signer)
            elif phase is Phase.SURVIVORS:
                state = self._accept(state, task, manifest)
                message = state.vote_message(self.signer)
            else:
                state = self._accept(state, task, manifest).accept_votes(task.votes)
                message = state.release_message(self.signer)
        self.states[opening.run] = state
        return message.encode()

    def _accept(self, state: machine.SiteAttempt, task: wire.Task, manifest: Manifest) -> machine.SiteAttempt:
        assert task.survivors is not None
        others = {member.site for member in manifest.members} - {self.name}
        return state.accept_survivors(task.survivors, vouched=others, min_sites=3, min_others=2)

    def masked(self, manifest: Manifest, state: machine.SiteAttempt, values: dict[str, np.ndarray]) -> bytes:
        opening = state.opening
        assert state.roster is not None
        codec = ring.Codec(manifest.segments(opening.kind, opening.parameters), state.roster.n)
        seed = ring.rounding_seed(int(opening.parameters["seed"]), opening.round, self.name)
        weighed = {"update", "control"} & values.keys()
        factors = dict.fromkeys(weighed, float(values["weight"][0])) if weighed else {}
        words = codec.encode(values, seed, factors=factors)
        masking.apply(words, state.masks())
        return bytes(words.astype("<u4").tobytes())

    def weights(self, opening: wire.Opening) -> tuple[bytes, str]:
        """The first weights as a file: the same at every hospital."""
        shapes = self.manifest(opening.manifest).layout(opening.parameters)
        size = sum(tensor.size() for tensor in shapes)
        values = np.linspace(-1, 1, size, dtype=np.float32) * int(opening.parameters["seed"])
        text = tensors.header(tensors.named(shapes, "model")) + values.astype("<f4").tobytes()
        return text, hashlib.sha256(text).hexdigest()

    def sealed_weights(self, opening: wire.Opening) -> bytes:
        text, sha256 = self.weights(opening)
        key = ("sealed", opening.run)
        if key not in self.sent:
            prepared = sealing.prepare(
                manifest=opening.manifest, run=opening.run, round=0, kind="init", parent=None, plaintext=sha256,
                length=len(text), recipients=[self.manifest(opening.manifest).hub.recipient],
                content_key=sealing.new_content_key(), signer=self.signer,
            )  # fmt: skip
            self.sent[key] = seal_bytes(text, prepared, self.signer.public)
        return self.sent[key]

    def train(self, manifest: Manifest, task: wire.Task) -> dict[str, np.ndarray]:
        """A step towards this hospital's own target, with metrics that are a formula too."""
        model = self.fetch(manifest, task)
        rows = 10 + len(self.name)
        loss = float(np.abs(model).mean())
        evaluation: dict[str, object] = {"rows": rows, "accuracy": 0.5, "correct": rows // 2, "loss": loss}
        evaluation |= {"negatives": [1] * metrics.BINS, "positives": [1] * metrics.BINS}
        words = {k: np.array(v, np.float64) for k, v in metrics.words(manifest.metrics, evaluation).items()}
        if task.opening.kind is Kind.EVALUATE:
            return words
        size = sum(tensor.size() for tensor in manifest.layout(task.opening.parameters))
        target = np.full(size, len(self.name), np.float32)
        found = {"update": (0.5 * (target - model[:size])).astype(np.float32), "weight": np.array([float(rows)])}
        if task.opening.parameters["strategy"] == "scaffold":
            found["control"] = np.full(size, 0.25, np.float32)
        return found | words

    def fetch(self, manifest: Manifest, task: wire.Task) -> np.ndarray:
        """The global model, opened with this hospital's key: all float32 after the header."""
        assert task.model is not None
        opening = task.opening
        answer = self.call("GET", f"/v1/sites/me/artifacts/{task.model.name}")
        answer.raise_for_status()
        assert hashlib.sha256(answer.content).hexdigest() == task.model.name
        expected = sealing.Expected(
            opening.manifest, opening.run, opening.base or 0, "model", sealing.UNKNOWN, opening.model or "",
            sealing.UNKNOWN,
        )  # fmt: skip
        plain = sealing.open_bytes(answer.content, self.identity, signer=manifest.hub.signing, expected=expected)
        return np.frombuffer(plain[8 + tensors.header_length(bytes(plain[:8])) :], "<f4")


def digest_of(values: dict[str, np.ndarray]) -> str:
    return hashlib.sha256(b"".join(values[name].tobytes() for name in sorted(values))).hexdigest()


def seal_bytes(text: bytes, prepared: sealing.Prepared, public: str) -> bytes:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sealed")
        sealing.seal(text, prepared, path, signer=public)
        return path.read_bytes()
