"""What a trainer learns of the machine or the pod that it runs in."""

from pathlib import Path

import pytest

from koinon.trainer import cluster


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n", 3),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", 0),  # kernels before 4.13
        ("memory.events", "garbage", 0),
        ("elsewhere", "", 0),
    ],
)
def test_kills_for_memory_are_counted_in_either_form(tmp_path: Path, name: str, text: str, number: int) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert cluster.oom_kills(tmp_path) == number


def test_this_kernel_says_how_many() -> None:
    assert cluster.oom_kills() >= 0


@pytest.mark.parametrize("given", [{}, {"RAY_AUTH_MODE": "token"}, {"RAY_AUTH_TOKEN": "t"}])
def test_no_trainer_is_on_the_network_without_a_token(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="RAY_AUTH_TOKEN"):
        cluster.join()
