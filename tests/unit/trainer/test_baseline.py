"""The comparison figures of a demonstration."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koinon.domain.contract import Contract
from koinon.trainer import baseline


def test_adam_is_algorithm_one_of_its_paper() -> None:
    """Kingma and Ba 2015, with bias-corrected moments, in numpy."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimiser = baseline.Adam([parameter], 0.01)
    theta, m, v = np.array([1.0, -2.0, 3.0]), np.zeros(3), np.zeros(3)
    for t in range(1, 21):
        parameter.grad = (2 * parameter).detach()
        optimiser.step()
        g = 2 * theta
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert parameter.detach().numpy() == pytest.approx(theta, abs=1e-5)


def run(request: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
    with pytest.raises(SystemExit) as ended:
        baseline.main()
    answer = json.loads(capsys.readouterr().out)
    assert bool(ended.value.code) == ("trouble" in answer)
    return answer


def test_the_command_reads_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [{"name": "a", "type": "real", "prepare": "standardise"}, {"name": "y", "type": "real", "role": "target"}]
    contract = Contract.of({"columns": columns, "target": {"task": "regression"}}).model_dump(mode="json")
    for site, slope in (("lyon", 1), ("nice", 3)):
        (tmp_path / site).write_text("a,y\n" + "".join(f"{n},{slope * n / 20}\n" for n in range(40)))
    datasets = {site: str(tmp_path / site) for site in ("lyon", "nice")}
    answer = run({"contract": contract, "datasets": datasets, "epochs": 2}, monkeypatch, capsys)
    assert answer["metric"] == "mse"
    assert set(answer["alone"]) == {"lyon", "nice"}
    assert answer["pooled"] == pytest.approx(answer["pooled_one_scale"], rel=0.01)  # both sites have the same a
    datasets["nice"] = str(tmp_path / "absent")
    answer = run({"contract": contract, "datasets": datasets}, monkeypatch, capsys)
    assert answer["trouble"]["code"] == "data_unreadable"
