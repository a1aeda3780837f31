"""What a run may vary: closed enumerations and bounded numbers, never predicates (DESIGN.md).

Values are integers, strings, or decimal strings where the schema says `real`, so that they hash alike
everywhere.
"""

import difflib
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from koinon.domain import canonical
from koinon.domain.errors import Invalid
from koinon.domain.keys import Wire

Value = int | str
Parameters = dict[str, Value]


def _decimal(text: str) -> str:
    """Kept as it is written, since manifests are hashed; raises ValueError, so that pydantic names the field."""
    try:
        canonical.finite(text)
    except Invalid as error:
        raise ValueError(error.what) from None
    return text


Limit = Annotated[str, AfterValidator(_decimal)]


class Enumeration(Wire):
    kind: Literal["enum"] = "enum"
    values: tuple[str, ...] = Field(min_length=1)
    default: str

    @model_validator(mode="after")
    def _default_is_a_value(self) -> "Enumeration":
        if self.default not in self.values:
            raise ValueError(f"the default {self.default!r} is not among the values")
        return self

    def coerce(self, given: Any) -> Value:
        if str(given) not in self.values:
            raise Invalid(f"{given!r} is not one of {', '.join(self.values)}.")
        return str(given)


class Bounded(Wire):
    """A number within [minimum, maximum]; `real` ones are decimal strings."""

    kind: Literal["integer", "real"]
    minimum: Limit
    maximum: Limit
    default: Limit

    @model_validator(mode="after")
    def _default_is_within(self) -> "Bounded":
        if not Decimal(self.minimum) <= Decimal(self.default) <= Decimal(self.maximum):
            raise ValueError(f"the default {self.default} is outside {self.minimum} to {self.maximum}")
        return self

    def coerce(self, given: Any) -> Value:
        wrong = Invalid(f"{given!r} is not {'an integer' if self.kind == 'integer' else 'a number'}.")
        try:
            number = canonical.finite(given)
        except Invalid:
            raise wrong from None
        if isinstance(given, bool) or (self.kind == "integer" and number != int(number)):
            raise wrong
        if not Decimal(self.minimum) <= number <= Decimal(self.maximum):
            raise Invalid(f"{given} is outside {self.minimum} to {self.maximum}.")
        return int(number) if self.kind == "integer" else canonical.decimal_text(number)


Choice = Annotated[Enumeration | Bounded, Field(discriminator="kind")]
Schema = dict[str, Choice]


def integer(minimum: int, maximum: int, default: int) -> Bounded:
    return Bounded(kind="integer", minimum=str(minimum), maximum=str(maximum), default=str(default))


def real(minimum: str, maximum: str, default: str) -> Bounded:
    return Bounded(kind="real", minimum=minimum, maximum=maximum, default=default)


def complete(schema: Schema, given: Mapping[str, Any]) -> Parameters:
    """`given` checked against `schema`, with defaults for the rest. Raises Invalid naming the parameter."""
    for name in given:
        if name not in schema:
            near = difflib.get_close_matches(name, schema, 1)
            raise Invalid(
                f'There is no parameter "{name}".',
                where=f"parameters.{name}",
                todo=f'Did you mean "{near[0]}"?' if near else f"The manifest allows {', '.join(sorted(schema))}.",
            )
    result: Parameters = {}
    for name, choice in schema.items():
        try:
            result[name] = choice.coerce(given.get(name, choice.default))
        except Invalid as error:
            raise Invalid(error.what, where=f"parameters.{name}", todo="The manifest sets these limits.") from None
    return result
