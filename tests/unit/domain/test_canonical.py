import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon.domain import canonical
from koinon.domain.errors import Invalid

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(documents)
def test_a_document_keeps_its_hash_through_any_json_reader(document: object) -> None:
    text = canonical.encode(document)
    assert canonical.encode(json.loads(text)) == text


@given(st.dictionaries(st.text(max_size=8), st.integers(), max_size=6))
def test_the_order_of_keys_does_not_matter(document: dict[str, int]) -> None:
    assert canonical.digest(document) == canonical.digest(dict(reversed(document.items())))


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.001, "0.001"), (1e-8, "0.00000001"), (-0.0, "0"), ("1.500", "1.5"), (100, "100"), ("1e3", "1000")],
)
def test_decimals_have_one_form(number: float | str, text: str) -> None:
    assert canonical.decimal_text(number) == text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), "-inf"])
def test_what_is_not_finite_has_no_form(number: float | str) -> None:
    with pytest.raises(Invalid, match="finite"):
        canonical.decimal_text(number)


@pytest.mark.parametrize("number", ["1e2000000000", "1e-2000000000", "0e2000000000", "9" * 401, "0." + "9" * 401])
def test_a_number_that_would_fill_memory_has_no_form(number: str) -> None:
    with pytest.raises(Invalid, match="400 digits"):
        canonical.decimal_text(number)


@pytest.mark.parametrize("number", ["", "x", "\ud800", pytest.param(10**5_000, id="5001 digits")])
def test_what_is_no_number_has_no_form(number: str | int) -> None:
    with pytest.raises(Invalid, match="not a finite number"):
        canonical.decimal_text(number)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_has_a_form_that_gives_it_back(number: float) -> None:
    assert float(canonical.decimal_text(number)) == number


def test_integers_beyond_2_53_become_text() -> None:
    assert canonical.encode([2**53 - 1, 2**53]) == b'[9007199254740991,"9007199254740992"]'


def test_a_repeated_key_is_an_error_and_not_the_last_one() -> None:
    with pytest.raises(Invalid, match='"a" appears twice'):
        canonical.decode('{"a": 1, "b": {"a": 2}, "a": 3}')


def test_what_is_not_json_names_line_and_column() -> None:
    with pytest.raises(Invalid, match="line 2 column 3"):
        canonical.decode("{\n  a: 1}")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "1" * 5_000, b"\xff", '{"a": "\\ud800"}', '{"\\ud800": 1}', '{"a": NaN}']
)
def test_hostile_json_is_invalid_and_nothing_else(text: bytes | str) -> None:
    with pytest.raises(Invalid):
        canonical.encode(canonical.decode(text))


@pytest.mark.parametrize(
    "text", ['["\\ud800"]', '{"\\udfff": 1}', '"\ud800"', b'"\xed\xa0\x80"', '{"\\ud800": 1, "\\ud800": 2}']
)
def test_half_a_surrogate_pair_is_refused_in_words_that_can_be_shown(text: bytes | str) -> None:
    with pytest.raises(Invalid) as caught:
        canonical.decode(text)
    assert str(caught.value).encode()
    assert canonical.decode('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
