"""What may cross to the hub about an error: reduced here to what is known anyway, whatever the trainer says.

An exception's text, a class name, a file name or a dimension made up by research code would be a way out for a record.
Across go a code, a class of Python's own, a place in the package, names of the contract, and sizes of the layout.
"""

import builtins
import errno
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from koinon.agent import answers, policy
from koinon.domain import errors, wire
from koinon.domain.manifest import Manifest

UNKNOWN_SIZE = -1
PER_RUN = 3  # of so many troubles of research code in a run more than the code crosses
_NAMES, _SHAPES, _DIMENSIONS = 3, 2, 4
_PLACE = re.compile(r"([A-Za-z0-9_./-]{1,100}\.py):([0-9]{1,6})")


class TrainerTrouble(Exception):
    """What the trainer answered instead of a result: the JSON of its error, unchecked."""

    def __init__(self, said: Any) -> None:
        super().__init__("the trainer reported an error")
        self.said = said if isinstance(said, dict) else {}

    @property
    def code(self) -> str:
        return str(self.said.get("code", ""))


@dataclass(frozen=True)
class Vocabulary:
    """What a trouble of a run may name: contract and layout names, the layout's sizes, the package's files and how
    many lines each has."""

    names: frozenset[str]
    files: Mapping[str, int]
    sizes: frozenset[int]


# All codes a trainer may report (trainer/errors.py lists them); another one crosses as `trainer`.
CODES = frozenset({
    "bad_request", "not_prepared", "too_large", "unavailable", "timeout", "worker_died", "out_of_memory", "internal",
    "data_unreadable", "data_column", "data_type", "data_level", "data_range", "data_missing", "too_few_records",
    "one_class", "metric", "package_invalid", "learner_invalid", "learner_error", "layout", "shape", "nan_loss",
    "nan_update", "nan_prediction", "prediction_range", "strategy", "out_of_disk",
})  # fmt: skip


def vocabulary(manifest: Manifest, parameters: dict[str, Any], files: Mapping[str, int]) -> Vocabulary:
    """`files` are the paths in the project's package, with the number of lines."""
    layout = manifest.layout(parameters)
    columns = [column.name for column in manifest.contract.columns]
    names = [*columns, *manifest.contract.feature_names(), *(t.name for t in layout), *manifest.parameters]
    sizes = {1, manifest.contract.inputs(), *(n for tensor in layout for n in tensor.shape)}
    sizes |= {n for name in ("batch_size", "hidden") if isinstance(n := parameters.get(name), int)}
    return Vocabulary(frozenset([*names, *manifest.metrics]), files, frozenset(sizes))


def of_research_code(error: BaseException) -> bool:
    """Could research code have chosen to fail like this?"""
    return isinstance(error, TrainerTrouble | errors.Invalid | errors.TooLarge)


def bare(trouble: wire.Trouble) -> wire.Trouble:
    """Nothing but the code, and the incident that the agent drew."""
    return wire.Trouble(code=trouble.code, incident=trouble.incident)


def describe(error: BaseException, words: Vocabulary | None, incident: str) -> wire.Trouble:
    """The trouble that stands for `error`. Without a vocabulary nothing but the code and class crosses."""
    if isinstance(error, TrainerTrouble):
        return _of_trainer(error.said, words, incident)
    names: tuple[str, ...] = ()
    if isinstance(error, policy.Refusal):
        code, names = error.code, error.names
    elif isinstance(error, answers.NotFinite):
        code, names = "nan_update", error.names
    elif isinstance(error, errors.KoinonError):
        code = error.slug()
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        code = "disk_full"
    else:
        code = "internal"
    known = words.names if words else frozenset()
    kind = _builtin(type(error).__name__) if not isinstance(error, errors.KoinonError) else type(error).__name__
    return wire.Trouble(code=code, error=kind, names=_named(names, known), incident=incident)


def _of_trainer(said: dict[str, Any], words: Vocabulary | None, incident: str) -> wire.Trouble:
    given = str(said.get("code", ""))
    known = words or Vocabulary(frozenset(), {}, frozenset())
    return wire.Trouble(
        code=given if given in CODES else "trainer",
        error=_builtin(said.get("error")),
        place=_place(str(said.get("place", "")), known.files),
        names=_named(_list(said.get("names")), known.names),
        shapes=tuple(_shape(shape, known.sizes) for shape in _list(said.get("shapes"))[:_SHAPES]),
        incident=incident,
    )


def incident_of(error: TrainerTrouble) -> str | None:
    """The id under which the trainer logged it, if it has the form of one."""
    said = str(error.said.get("incident", ""))
    return said if re.fullmatch(r"[0-9a-f]{12}", said) else None


def _builtin(name: Any) -> str:
    found = getattr(builtins, name, None) if isinstance(name, str) else None
    return str(name) if isinstance(found, type) and issubclass(found, BaseException) else "Error"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _place(said: str, files: Mapping[str, int]) -> str:
    """A file of the package and, if it has that line, the line; without leading zeros, which could say something."""
    found = _PLACE.fullmatch(said)
    if found is None or found[1] not in files:
        return ""
    line = int(found[2])
    return f"{found[1]}:{line}" if 1 <= line <= files[found[1]] else found[1]


def _named(names: Sequence[Any], known: frozenset[str]) -> tuple[str, ...]:
    """Sorted, since an order could say something."""
    return tuple(sorted({n for n in names if isinstance(n, str) and n in known})[:_NAMES])


def _shape(shape: Any, sizes: frozenset[int]) -> tuple[int, ...]:
    return tuple(n if type(n) is int and n in sizes else UNKNOWN_SIZE for n in _list(shape)[:_DIMENSIONS])
