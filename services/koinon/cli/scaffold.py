"""What `koinon init` writes: a model, a contract, a test. Kept short: a researcher reads all of it."""

import keyword
import re
from pathlib import Path

from koinon.data import heart
from koinon.domain import contract as contracts
from koinon.domain import errors, ids

_MODEL = '''"""The model {name}. Edit build and loss; `koinon check {folder}` tries it here before anything is sent."""

import torch

import koinon


class {name}(koinon.Model):
    """Logistic regression: one number a row, positive for the positive class."""

    def build(self, inputs):
        """The network. `inputs` is the number of features that the contract gives."""
        return torch.nn.Linear(inputs, 1)

    def loss(self, model, x, y):
        """The mean loss of a batch: x is (rows, inputs), y is (rows, 1) with 0 and 1."""
        return torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)
'''

_TEST = '''"""Runs as it is: python -m pytest {folder}"""

from pathlib import Path

import koinon

HERE = Path(__file__).parent


def test_it_trains():
    """One round on rows made up from the contract: the loss falls, and the protocol opens what was trained."""
    report = koinon.check(HERE, contract=HERE / "contract.yaml")
    assert report.after["loss"] < report.before["loss"]
    assert report.opened_error < 1e-3
'''

_CONTRACT = """# What {name} needs of a hospital's table: here the heart example's, so that it runs on `koinon up`.
# For your own data: koinon contract infer my.csv > contract.yaml
{columns}"""


def write(folder: Path, contract: Path | None = None) -> list[Path]:
    """Writes the three files into a new folder. Raises Conflict rather than write over anything."""
    ids.require_name(folder.name, where="name")
    if folder.exists() and any(folder.iterdir()):
        raise errors.Conflict("This folder is not empty.", where=str(folder), todo="Choose another name.")
    name = class_name(folder.name)
    text = contract.read_text() if contract else _CONTRACT.format(name=name, columns=_columns())
    contracts.from_yaml(text, where=contract.name if contract else "contract.yaml")
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "model.py": _MODEL.format(name=name, folder=folder.name),
        "contract.yaml": text,
        "test_model.py": _TEST.format(folder=folder.name),
    }
    for file, content in files.items():
        (folder / file).write_text(content)
    return [folder / file for file in files]


def _columns() -> str:
    """The heart example's contract without its heading."""
    text = heart.CONTRACT.read_text()
    return text[text.index("columns:") :]


def class_name(name: str) -> str:
    """risk-of-stroke → RiskOfStroke."""
    found = "".join(word.capitalize() for word in re.split(r"[^a-z0-9]+", name))
    if not found.isidentifier() or keyword.iskeyword(found) or found == "Model":
        return f"My{found}"
    return found
