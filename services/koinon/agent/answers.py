"""What the trainer answers, read within bounds fixed beforehand: research code may be hostile to the agent.

Whatever the bytes are, the agent holds at most one chunk and one header of them, writes at most the file it expects,
and stops at a deadline. A value reaches the rest of the agent only in the shape the manifest's layout declares.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from koinon.domain import layout, metrics, tensors
from koinon.domain.errors import Invalid, TooLarge
from koinon.domain.layout import Layout

MAX_JSON = 256 * 2**10
CHUNK = 2**20
_HEADER_SLACK = 4  # another writer's spaces and order of keys


class Evaluation(BaseModel):
    """Scores of a model on the site's test rows. What the manifest's metrics do not ask for stays None."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rows: int = Field(ge=0, le=2**53 - 1)
    accuracy: float | None = None
    correct: float | None = None
    loss: float | None = None
    mse: float | None = None
    mae: float | None = None
    negatives: list[float] | None = Field(default=None, max_length=metrics.BINS)
    positives: list[float] | None = Field(default=None, max_length=metrics.BINS)


class Report(BaseModel):
    """What a fit or an evaluation says beside its tensors."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rows: int = Field(default=0, ge=0, le=2**53 - 1)
    seconds: float = Field(default=0.0, ge=0)
    evaluation: Evaluation


class NotFinite(Invalid):
    """A NaN or an infinity where the model's values should be. `names` are the tensors'."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(f'The tensor "{name}" holds a value that is not finite.', where=where)
        self.names = (name.partition("/")[2] or name,)


@dataclass(frozen=True)
class Received:
    """A file of one flat little-endian float32 vector, its SHA-256, and the metadata that came with it."""

    path: Path
    sha256: str
    metadata: dict[str, str]


def receive_tensors(
    chunks: Iterable[bytes], expected: Layout, target: Path, *, check: Callable[[], None], whole: bool = False
) -> Received:
    """Streams tensors of exactly the layout `expected` into `target` (their values only; `whole`: with the header).

    `check` is called between chunks and raises when time is up. Raises Invalid, TooLarge, NotFinite; then no file is
    left. The hash is over what the file holds, which is durable on return.
    """
    header_limit = len(tensors.header(expected)) * _HEADER_SLACK + MAX_JSON
    try:
        with target.open("wb") as out:
            stream = _Stream(chunks, check)
            text = stream.take(tensors.header_length(first := stream.take(8)), limit=header_limit)
            metadata = tensors.check_header(text, expected)
            digest = hashlib.sha256()
            if whole:
                out.write(first + text)
                digest.update(first + text)
            for block in _finite(stream.rest(4 * layout.size(expected)), expected):
                out.write(block)
                digest.update(block)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return Received(target, digest.hexdigest(), metadata)


class _Stream:
    """The body of an answer, taken in exact pieces."""

    def __init__(self, chunks: Iterable[bytes], check: Callable[[], None]) -> None:
        self._chunks = iter(chunks)
        self._check = check
        self._held = b""

    def _next(self) -> bytes | None:
        self._check()
        return next(self._chunks, None)

    def take(self, size: int, *, limit: int = CHUNK) -> bytes:
        if size > limit:
            raise TooLarge(f"The header of the tensors has {size} bytes, at most {limit} are accepted.")
        pieces, have = [self._held], len(self._held)
        while have < size:
            piece = self._next()
            if piece is None:
                raise Invalid("The tensors end before their header.")
            pieces.append(piece)
            have += len(piece)
        text = b"".join(pieces)
        self._held = text[size:]
        return text[:size]

    def rest(self, size: int) -> Iterator[bytes]:
        """Exactly `size` bytes more, and then the end."""
        left = size
        piece: bytes | None = self._held
        self._held = b""
        while piece is not None:
            if len(piece) > left:
                raise TooLarge(f"The tensors have more than the {size} bytes of their layout.")
            left -= len(piece)
            if piece:
                yield piece
            piece = self._next()
        if left:
            raise Invalid(f"The tensors end {left} bytes early.")


def _finite(blocks: Iterable[bytes], expected: Layout) -> Iterator[bytes]:
    """The same blocks; raises NotFinite at the first NaN or infinity."""
    carry, words = b"", 0
    for block in blocks:
        text = carry + block
        count = len(text) // 4
        values = np.frombuffer(text, dtype="<f4", count=count)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise NotFinite(_tensor_at(expected, words + int(bad[0])), "trainer")
        carry, words = text[4 * count :], words + count
        yield block


def _tensor_at(expected: Layout, word: int) -> str:
    for tensor in expected:
        word -= tensor.size()
        if word < 0:
            return tensor.name
    return ""


def receive_json(chunks: Iterable[bytes], *, check: Callable[[], None]) -> Any:
    """A JSON body of at most 256 KiB. Raises Invalid, TooLarge."""
    pieces, size = [], 0
    for piece in chunks:
        check()
        size += len(piece)
        if size > MAX_JSON:
            raise TooLarge(f"The trainer answered more than {MAX_JSON} bytes of JSON.")
        pieces.append(piece)
    return parse_json(b"".join(pieces))


def parse_json(text: bytes | str) -> Any:
    if len(text) > MAX_JSON:
        raise TooLarge(f"The trainer answered more than {MAX_JSON} bytes of JSON.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("The trainer's answer is not JSON.") from None


def read_report(value: Any, names: tuple[str, ...]) -> tuple[Report, dict[str, list[float]]]:
    """The report and its words for the masked vector (see `metrics.words`).

    `names` are the manifest's metrics. Raises Invalid that names the metric that is missing or not finite.
    """
    try:
        report = Report.model_validate(value)
    except ValueError:
        raise Invalid("The trainer's report has a wrong form.", where="report") from None
    words = metrics.words(names, report.evaluation.model_dump())
    for name, values in words.items():
        if not all(math.isfinite(value) for value in values):
            raise Invalid("The evaluation is not finite.", where=f"metrics.{name.partition('.')[0]}")
    return report, words
