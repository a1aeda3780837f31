import pytest

from koinon.domain import contract
from koinon.domain.errors import Invalid
from tests.unit.domain.manifests import CONTRACT


def test_features_are_numbers_first_and_levels_after() -> None:
    read = contract.from_yaml(CONTRACT)
    assert read.feature_names() == ("age", "cp=2", "cp=3", "cp=4")
    assert read.inputs() == 4


def test_how_a_number_is_written_does_not_change_the_hash() -> None:
    other = CONTRACT.replace("maximum: 110", "maximum: 110.0").replace("[1, 2, 3, 4]", "[1.0, 2, 3, 4]")
    assert contract.from_yaml(other).digest() == contract.from_yaml(CONTRACT).digest()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name: cp", "name: age", "age is listed twice"),
        ("levels: [1, 2, 3, 4], ", "", "cp is a category and needs its levels"),
        ("minimum: 18", "minimum: 180", "minimum 180 is above maximum 110"),
        ("role: target", "role: feature", "exactly one column has the role target, not 0"),
        ("prepare: standardise", "prepare: pickle", "columns.0.prepare"),
        ("positive_above: 0", "", "positive_above"),
        ("target: {", "target: {task: regression, ", "appears twice"),
        ("[1, 2, 3, 4]", "[1, 2, 2, 4]", "level twice"),
        ("columns:", "columns: [", "not YAML"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, words: str) -> None:
    assert old in CONTRACT
    with pytest.raises(Invalid, match=words):
        contract.from_yaml(CONTRACT.replace(old, new))
