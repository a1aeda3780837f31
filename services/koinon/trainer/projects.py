"""Projects that the agent has prepared: checked data per cohort, and the actor that trains on them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field

from koinon.trainer import data, features
from koinon.trainer.actor import Spec
from koinon.trainer.errors import TrainerError
from koinon.trainer.group import Group

METRICS = {"classification": {"accuracy", "auc", "loss", "mse", "mae"}, "regression": {"loss", "mse", "mae"}}


class Prepare(BaseModel):
    """What the agent sends once per project, and again after the trainer was restarted."""

    model_config = ConfigDict(extra="forbid")

    project: str = Field(description="The manifest's hash.")
    model: dict[str, Any] = Field(description="The manifest's model: template, and if it has one, its layout.")
    package: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the package, sent before.")
    contract: dict[str, Any] = Field(description="The manifest's data contract.")
    cohorts: dict[str, list[dict[str, Any]]] = Field({"all": []}, description="Named conjunctions of conditions.")
    dataset: Path = Field(description="A CSV file on this machine.")
    metrics: list[str] = Field([], description="What the manifest asks for.")
    parts: int = Field(1, ge=1, le=64, description="Parts of a batch: the most workers that the grant allows.")


class Project:
    """One prepared project. Raises TrainerError if its data break the contract or its package does not load."""

    def __init__(self, request: Prepare, scratch: Path) -> None:
        self.key = fingerprint(request)
        self._contract = data.contract(request.contract)
        for metric in request.metrics:
            if metric not in METRICS[self._contract.task]:
                raise TrainerError("metric", f"{metric} is none of {self._contract.task}", names=(metric,))
        conditions = frozenset(str(term["column"]) for terms in request.cohorts.values() for term in terms)
        table = data.read(request.dataset, self._contract, conditions)
        self.columns = table.columns
        self._rows: dict[str, Any] = {}
        self.counts: dict[str, dict[str, Any]] = {}
        for name, terms in request.cohorts.items():
            self._add_cohort(name, table, terms)
        failed = [trouble for trouble in self._rows.values() if isinstance(trouble, TrainerError)]
        if len(failed) == len(self._rows) and failed:
            raise failed[0]
        if (request.model.get("template") == "package") != (request.package is not None):
            raise TrainerError("bad_request", "a package comes with its hash, a template without")
        layout = request.model.get("layout") or ()
        sizes = frozenset(int(size) for tensor in layout for size in tensor["shape"])
        inputs = len(self._contract.feature_names)
        package = _package(scratch, request.package)
        self.group = Group(Spec(package, scratch, inputs, self._contract.task, sizes, parts=request.parts))
        self.group.start()

    def _add_cohort(self, name: str, table: data.Table, terms: list[dict[str, Any]]) -> None:
        """A cohort that too few patients meet at this site fails its own runs, not the project."""
        try:
            rows = features.rows(table, self._contract, terms)
        except (KeyError, ValueError) as error:
            raise TrainerError("bad_request", f"cohort {name}: {error!r}") from None
        except TrainerError as trouble:
            self._rows[name] = trouble
            self.counts[name] = {"trouble": trouble.crossing()}
            return
        self._rows[name] = ray.put(rows)
        self.counts[name] = {"train": len(rows.train_y), "test": len(rows.test_y)}

    def rows(self, cohort: str) -> Any:
        """A reference to features.Rows in Ray's store."""
        found = self._rows.get(cohort)
        if found is None:
            raise TrainerError("bad_request", f"no cohort {cohort!r}")
        if isinstance(found, TrainerError):
            raise found
        return found

    def summary(self) -> dict[str, Any]:
        """Rows of the first cohort that can train ("all" if it can), of every cohort, cells per column."""
        usable = [name for name in ("all", *self.counts) if "train" in self.counts.get(name, {})]
        return {**self.counts[usable[0]], "cohorts": self.counts, "columns": self.columns}


def package_file(scratch: Path, sha256: str) -> Path:
    """Where the server keeps a package that was sent."""
    return scratch / f"{sha256}.zip"


def _package(scratch: Path, sha256: str | None) -> bytes | None:
    """The package's bytes: an actor may be on another machine. Raises TrainerError not_prepared if it was not sent."""
    try:
        package = None if sha256 is None else package_file(scratch, sha256).read_bytes()
    except FileNotFoundError:
        raise TrainerError("not_prepared", f"the package {sha256} was not sent") from None
    if package is not None and hashlib.sha256(package).hexdigest() != sha256:  # research code can write there
        raise TrainerError("not_prepared", f"the package {sha256} was changed")
    return package


def fingerprint(request: Prepare) -> str:
    """Changes with the request and with the file of data it names, so that preparing twice reads it once."""
    text = json.dumps([request.model_dump(mode="json"), _stamp(request.dataset)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def cohort_of(parameters: Mapping[str, int | str]) -> str:
    return str(parameters.get("cohort", "all"))
