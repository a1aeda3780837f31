"""`koinon init` writes what runs as it is; `koinon check` says what is wrong with what does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from koinon.cli import scaffold, trial
from koinon.cli.main import app
from koinon.data import heart
from koinon.domain import contract, errors

_HEAD = "import torch, koinon\nclass M(koinon.Model):\n    def build(self, inputs):\n"
_LOSS = "    def loss(self, model, x, y):\n        return torch.nn.functional.mse_loss(model(x), y)\n"


def _model(folder: Path, build: str, loss: str = _LOSS) -> Path:
    folder.mkdir()
    (folder / "model.py").write_text(f"{_HEAD}        {build}\n{loss}")
    (folder / "contract.yaml").write_text(heart.CONTRACT.read_text())
    return folder


def _check(folder: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", str(folder), *words])
    return result.exit_code, result.output


def test_its_own_test_runs_as_it_is(tmp_path: Path) -> None:
    written = scaffold.write(tmp_path / "risk")
    assert [path.name for path in written] == ["model.py", "contract.yaml", "test_model.py"]
    model = (tmp_path / "risk" / "model.py").read_text()
    assert len(model.splitlines()) <= 22
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "risk")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_nothing_is_written_over(tmp_path: Path) -> None:
    scaffold.write(tmp_path / "risk")
    with pytest.raises(errors.Conflict):
        scaffold.write(tmp_path / "risk")


@pytest.mark.parametrize(
    ("name", "found"), [("risk", "Risk"), ("risk-of-stroke", "RiskOfStroke"), ("model", "MyModel")]
)
def test_class_names(name: str, found: str) -> None:
    assert scaffold.class_name(name) == found


def test_check_of_a_folder_as_json(tmp_path: Path) -> None:
    scaffold.write(tmp_path / "risk")
    result = CliRunner().invoke(app, ["check", str(tmp_path / "risk"), "--json"])
    report = json.loads(result.stdout)
    assert report["layout"] == [["weight", [1, 13]], ["bias", [1]]]
    assert report["upload_bytes"] > 0


def test_check_on_real_data(tmp_path: Path) -> None:
    folder = _model(tmp_path / "m", "return torch.nn.Linear(inputs, 1)")
    code, output = _check(folder, "--data", str(heart.HOSPITALS["cleveland"]))
    assert code == 0
    assert "199 training and 104 test rows, 13 inputs" in output


def test_wrong_shape_names_the_line_and_shows_the_traceback(tmp_path: Path) -> None:
    folder = _model(tmp_path / "m", "return torch.nn.Linear(inputs + 1, 1)")
    code, output = _check(folder)
    assert code == 1
    assert "model.py:6" in output.splitlines()[-1]
    assert "mat1 and mat2" in output.splitlines()[-1]
    assert output.startswith("Traceback:")


def test_nan_loss(tmp_path: Path) -> None:
    loss = "    def loss(self, model, x, y):\n        return torch.log(model(x) * 0 - 1).mean()\n"
    code, output = _check(_model(tmp_path / "m", "return torch.nn.Linear(inputs, 1)", loss))
    assert code == 2
    assert "not a finite number" in output
    assert "learning_rate" in output


def test_weights_that_differ_between_hospitals(tmp_path: Path) -> None:
    build = "m = torch.nn.Linear(inputs, 1); m.bias.data.fill_(__import__('time').perf_counter_ns() % 10**6); return m"
    code, output = _check(_model(tmp_path / "m", build))
    assert code == 2
    assert "agree on the first weights" in output


def test_unknown_column(tmp_path: Path) -> None:
    folder = _model(tmp_path / "m", "return torch.nn.Linear(inputs, 1)")
    (tmp_path / "d.csv").write_text("age,num\n50,1\n60,0\n")
    code, output = _check(folder, "--data", str(tmp_path / "d.csv"))
    assert code == 2
    assert "column" in output
    assert "sex" in output


def test_no_model(tmp_path: Path) -> None:
    (tmp_path / "contract.yaml").write_text(heart.CONTRACT.read_text())
    code, output = _check(tmp_path)
    assert code == 2
    assert "model.py" in output


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_made_up_rows_fit_any_contract(tmp_path: Path, task: str) -> None:
    body = contract.from_yaml(heart.CONTRACT.read_text()).model_dump()
    if task == "regression":
        body["target"] = {"task": "regression"}
        body["columns"] = [{**c, "maximum": "100"} if c["role"] == "target" else c for c in body["columns"]]
    agreed = contract.Contract.of(body)
    path = trial.made_up(agreed, tmp_path / "t.csv")
    lines = path.read_text().splitlines()
    assert len(lines) == trial.ROWS + 1
    assert lines[0].split(",")[-1] == "num"
    outcomes = {line.rsplit(",", 1)[1] for line in lines[1:]}
    assert len(outcomes) >= 2
