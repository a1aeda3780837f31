"""What may cross the wall about an error, and what stays in the hospital's log.

Across go: a code, an error class that Python itself defines, file and line in the researcher's package,
names that the contract holds, shapes. The text of an exception is the obvious way out for a record
(`raise ValueError(row)`), and so are a made-up class name, file name or dimension: none of them crosses.
"""

import builtins
import logging
import re
import secrets
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger("koinon.trainer")

T = TypeVar("T")

MAX_TEXT = 65_536
UNKNOWN_SIZE = -1
_PLACE = re.compile(r"[A-Za-z0-9_./-]{1,100}")
_PAIR = re.compile(r"\((\d+(?:x\d+)*) and (\d+(?:x\d+)*)\)")
_SIZE = re.compile(r"torch\.Size\(\[([\d, ]*)\]\)")
_AXIS = re.compile(r"tensor [ab] \((\d+)\)")

STATUS = {
    "bad_request": 400,
    "not_prepared": 409,
    "too_large": 413,
    "internal": 500,
    "worker_died": 500,
    "unavailable": 503,
    "timeout": 504,
}


class TrainerError(Exception):
    """An error of the trainer. `text` is for the log alone; all the rest may cross.

    Codes: bad_request, not_prepared, too_large, unavailable, timeout, worker_died, out_of_memory, internal;
    data_unreadable, data_column, data_type, data_level, data_range, data_missing, too_few_records, one_class,
    metric; package_invalid, learner_invalid, learner_error, layout, shape, nan_loss, nan_update,
    nan_prediction, prediction_range, strategy.
    """

    def __init__(
        self,
        code: str,
        text: str = "",
        *,
        error: str = "Error",
        place: str = "",
        names: Sequence[str] = (),
        shapes: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__(code)
        self.code = code
        self.text = text
        self.error = error
        self.place = place
        self.names = tuple(names)[:20]
        self.shapes = tuple(tuple(shape) for shape in shapes)[:8]
        self.incident = secrets.token_hex(6)

    @property
    def status(self) -> int:
        return STATUS.get(self.code, 422)

    def crossing(self) -> dict[str, Any]:
        """The JSON body that the agent receives (domain.wire.Trouble)."""
        return {
            "code": self.code,
            "error": self.error,
            "place": self.place,
            "names": list(self.names),
            "shapes": [list(shape) for shape in self.shapes],
            "incident": self.incident,
        }

    def to_wire(self) -> dict[str, Any]:
        """For the way from a worker to its driver: with the text."""
        return {**self.crossing(), "text": self.text}


def from_wire(fields: dict[str, Any]) -> TrainerError:
    error = TrainerError(
        fields["code"],
        fields["text"],
        error=fields["error"],
        place=fields["place"],
        names=fields["names"],
        shapes=fields["shapes"],
    )
    error.incident = fields["incident"]
    return error


def record(error: TrainerError) -> None:
    """Writes the full text into the hospital's log, under the incident that crosses."""
    log.error("incident %s: %s %s\n%s", error.incident, error.code, error.place, error.text[-MAX_TEXT:])


def builtin_class(error: BaseException) -> str:
    """The name of the nearest class that Python itself defines."""
    for kind in type(error).__mro__:
        for name, known in vars(builtins).items():
            if known is kind:
                return name
    return "Error"


def place_in(error: BaseException, root: Path, files: Collection[str]) -> str:
    """`file:line` of the innermost frame in one of `files` (relative to `root`), "" if there is none.

    A code object can claim any file and line: only files that were there when the package was loaded
    count, and only lines they have.
    """
    found = ""
    for frame, line in _frames(error):
        try:
            name = Path(frame).resolve().relative_to(root).as_posix()
        except (ValueError, OSError):
            continue
        if name in files and _PLACE.fullmatch(name) and line <= _lines(root / name):
            found = f"{name}:{line}"
    return found


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    """File and line from the outermost frame inwards; a syntax error's own place comes last."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield frame.f_code.co_filename, line
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        yield error.filename, error.lineno


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n") + 1
    except OSError:
        return 0


def shapes_in(error: BaseException, known: Collection[int]) -> list[tuple[int, ...]]:
    """Shapes that torch names in its message; a size that is not `known` anyway shows as -1."""
    if not isinstance(error, RuntimeError | ValueError | IndexError | UserWarning):
        return []
    text = str(error)[:MAX_TEXT]
    pair, axes = _PAIR.search(text), _AXIS.findall(text)
    found = [size.replace(" ", "").strip(",").split(",") for size in _SIZE.findall(text)]
    if pair:
        found = [side.split("x") for side in pair.groups()]
    elif axes:
        found = [[axis] for axis in axes]
    return [masked([int(size[:9]) for size in shape if size], known) for shape in found[:4]]


def masked(shape: Sequence[int], known: Collection[int]) -> tuple[int, ...]:
    return tuple(n if n in known else UNKNOWN_SIZE for n in shape[:8])


def of_learner(
    error: BaseException, root: Path, files: Collection[str], known: Collection[int], *, code: str = "learner_error"
) -> TrainerError:
    """An exception out of research code, reduced to what may cross."""
    if isinstance(error, TrainerError):
        error.place = error.place or place_in(error, root, files)
        error.shapes = tuple(masked(shape, known) for shape in error.shapes)
        return error
    text = _safely(lambda: "".join(traceback.format_exception(error, limit=-40)), "an error that cannot be shown")
    nothing: list[tuple[int, ...]] = []
    shapes = _safely(lambda: shapes_in(error, known), nothing)
    if shapes and code == "learner_error":
        code = "shape"
    place = _safely(lambda: place_in(error, root, files), "")
    return TrainerError(code, text, error=builtin_class(error), place=place, shapes=shapes)


def _safely(look: Callable[[], T], otherwise: T) -> T:
    """To look at an exception of research code is to run research code: its __str__, its properties."""
    try:
        return look()
    except BaseException:
        return otherwise
