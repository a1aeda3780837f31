"""Only what the hub knows anyway crosses about an error, whatever research code puts into it."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.agent import troubles
from koinon.agent.answers import NotFinite
from koinon.agent.policy import Refusal
from koinon.agent.troubles import UNKNOWN_SIZE, TrainerTrouble
from koinon.domain.errors import Untrusted
from tests.unit.agent.openings import opening
from tests.unit.domain import manifests

MANIFEST = manifests.build()
WORDS = troubles.vocabulary(MANIFEST, dict(opening(MANIFEST).parameters), {"model.py": 12, "risk/net.py": 3})
INCIDENT = "0123456789ab"


def test_what_the_contract_holds_crosses() -> None:
    said = {
        "code": "shape", "error": "RuntimeError", "place": "model.py:9", "names": ["age", "cp=2"],
        "shapes": [[4, 1], [1, 3]], "incident": "ba9876543210",
    }  # fmt: skip
    trouble = troubles.describe(TrainerTrouble(said), WORDS, INCIDENT)
    assert trouble.model_dump() == {
        "code": "shape", "error": "RuntimeError", "place": "model.py:9", "names": ("age", "cp=2"),
        "shapes": ((4, 1), (1, UNKNOWN_SIZE)), "incident": INCIDENT,
    }  # fmt: skip


def test_names_of_a_patient_do_not_cross() -> None:
    said = {
        "code": "anna_karenina", "error": "AnnaKarenina", "place": "anna.py:1", "names": ["Anna", "age"],
        "shapes": [[19_280_101]], "incident": "a11a00000000", "text": "Anna Karenina",
    }  # fmt: skip
    trouble = troubles.describe(TrainerTrouble(said), WORDS, INCIDENT)
    assert trouble.code == "trainer"
    assert trouble.error == "Error"
    assert trouble.place == ""
    assert trouble.names == ("age",)
    assert trouble.shapes == ((UNKNOWN_SIZE,),)
    assert trouble.incident == INCIDENT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ("code", "error", "place", "names", "shapes", "incident")


@given(said=JSON | st.fixed_dictionaries(dict.fromkeys(FIELDS, JSON)))
@settings(max_examples=300)
def test_any_answer_becomes_a_trouble_within_the_vocabulary(said: Any) -> None:
    trouble = troubles.describe(TrainerTrouble(said), WORDS, INCIDENT)
    assert trouble.code in troubles.CODES | {"trainer"}
    assert set(trouble.names) <= WORDS.names
    assert {n for shape in trouble.shapes for n in shape} <= WORDS.sizes | {UNKNOWN_SIZE}
    assert trouble.place.partition(":")[0] in {*WORDS.files, ""}


def test_the_agents_own_errors_cross_as_codes() -> None:
    cases: list[tuple[BaseException, str, tuple[str, ...]]] = [
        (Refusal("outside_limits", "rounds", names=("rounds", "Anna")), "outside_limits", ("rounds",)),
        (NotFinite("update/weight", "trainer"), "nan_update", ("weight",)),
        (Untrusted("no"), "untrusted", ()),
        (OSError(28, "No space left on device"), "disk_full", ()),
        (ValueError("Anna"), "internal", ()),
    ]
    for error, code, names in cases:
        trouble = troubles.describe(error, WORDS, INCIDENT)
        assert (trouble.code, trouble.names) == (code, names)
        assert "Anna" not in trouble.model_dump_json()


def test_a_place_is_a_line_that_the_file_has_in_one_form() -> None:
    shown = {
        "model.py:12": "model.py:12", "model.py:13": "model.py", "model.py:0": "model.py",
        "model.py:0009": "model.py:9", "risk/net.py:9": "risk/net.py", "other.py:1": "",
    }  # fmt: skip
    for said, place in shown.items():
        assert troubles.describe(TrainerTrouble({"code": "shape", "place": said}), WORDS, INCIDENT).place == place


def test_what_research_code_may_choose_is_small() -> None:
    said = {"code": "shape", "names": ["num", "cp=2", "age", "cp=3"], "shapes": [[4, 4, 4, 4, 4], [42], [4]]}
    trouble = troubles.describe(TrainerTrouble(said), WORDS, INCIDENT)
    assert trouble.names == ("age", "cp=2", "cp=3")
    # 42 is the seed, no size of anything
    assert trouble.shapes == ((4, 4, 4, 4), (UNKNOWN_SIZE,))
    backwards = said | {"names": list(reversed(["num", "cp=2", "age", "cp=3", "age"]))}
    assert troubles.describe(TrainerTrouble(backwards), WORDS, INCIDENT).names == trouble.names


def test_a_bare_trouble_is_a_code() -> None:
    said = {"code": "shape", "error": "KeyError", "place": "model.py:1", "names": ["age"], "shapes": [[4]]}
    found = troubles.bare(troubles.describe(TrainerTrouble(said), WORDS, INCIDENT))
    assert found.model_dump(exclude_defaults=True) == {"code": "shape", "incident": INCIDENT}
    assert troubles.of_research_code(TrainerTrouble(said))
    assert troubles.of_research_code(NotFinite("update/weight", "trainer"))
    assert not troubles.of_research_code(Refusal("revoked", "no"))
