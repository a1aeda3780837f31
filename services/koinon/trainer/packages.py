"""A researcher's package: a folder or zip with `model.py`, which defines one subclass of koinon.Model.

Loaded in the training actor only, from the bytes whose hash the agent has verified.
"""

import importlib.util
import inspect
import io
import shutil
import stat
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from koinon.learner import Model
from koinon.trainer import errors
from koinon.trainer.errors import TrainerError
from koinon.trainer.templates import tabular

MAX_FILES = 10_000
MAX_BYTES = 2**30  # unpacked
MODULE = "model"


@dataclass(frozen=True)
class Loaded:
    """A learner's class, and the files in which an error may be placed."""

    learner: type[Model]
    root: Path
    files: frozenset[str]


def template() -> Loaded:
    root = Path(tabular.__file__).parents[1].resolve()
    return Loaded(tabular.Tabular, root, frozenset({"templates/tabular.py"}))


def load(package: Path | bytes, scratch: Path) -> Loaded:
    """The package in a folder, a zip or the bytes of one; a zip is unpacked below `scratch`, which must be empty.

    Raises TrainerError package_invalid, or learner_error if importing it raises.
    """
    packed = isinstance(package, bytes) or package.is_file()
    root = (_unpack(package, scratch) if packed else Path(str(package))).resolve()
    source = root / f"{MODULE}.py"
    if not source.is_file():
        raise TrainerError("package_invalid", f"the package has no {MODULE}.py at its top")
    files = frozenset(f.relative_to(root).as_posix() for f in root.rglob("*.py") if f.is_file())
    sys.dont_write_bytecode = True  # what runs stays what was hashed
    sys.path.insert(0, str(root))
    specification = importlib.util.spec_from_file_location(MODULE, source)
    if specification is None or specification.loader is None:
        raise TrainerError("package_invalid", f"{source} is no module")
    module = importlib.util.module_from_spec(specification)
    sys.modules[MODULE] = module
    try:
        specification.loader.exec_module(module)
    except BaseException as error:
        raise errors.of_learner(error, root, files, ()) from error
    return Loaded(_only_learner(vars(module)), root, files)


def _only_learner(names: dict[str, object]) -> type[Model]:
    """A base class of another learner, and one imported from koinon itself, do not count."""
    found = {thing for thing in names.values() if inspect.isclass(thing) and issubclass(thing, Model)}
    own = {kind for kind in found if not kind.__module__.startswith("koinon.")}
    leaves = [kind for kind in own if not any(kind in other.__mro__[1:] for other in own)]
    if len(leaves) != 1:
        raise TrainerError("package_invalid", f"{MODULE}.py defines {len(leaves)} subclasses of koinon.Model, not one")
    return leaves[0]


def _unpack(package: Path | bytes, scratch: Path) -> Path:
    """`scratch` with the files of a zip: no path leaves it, no link, bounded in number and bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(package) if isinstance(package, bytes) else package) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > MAX_FILES or sum(member.file_size for member in members) > MAX_BYTES:
                raise TrainerError("package_invalid", f"more than {MAX_FILES} files or {MAX_BYTES} bytes")
            for member in members:
                name = PurePosixPath(member.filename)
                if name.is_absolute() or ".." in name.parts or stat.S_ISLNK(member.external_attr >> 16):
                    raise TrainerError("package_invalid", f"{member.filename!r} is no plain file below the top")
                target = scratch.joinpath(*name.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                # zipfile stops a member at its declared size, which the sum above has bounded.
                with archive.open(member) as packed, target.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise TrainerError("package_invalid", f"the package is neither a folder nor a zip: {error}") from None
    return scratch
