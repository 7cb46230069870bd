"""Where a value stands in a JSON document: the singular queries of RFC 9535, such as `$.battery['level'][0]`. Pure."""

import re
from dataclasses import dataclass

_STEP = re.compile(
    r"\.(?P<name>[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)|\['(?P<quoted>[^'\\]+)'\]|\[(?P<place>\d{1,9})\]"
)


class FieldMissingError(ValueError):
    """A document has nothing at a path; says from where on."""


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A parsed query; `steps` are names of members and places of items."""

    text: str
    steps: tuple[str | int, ...]

    def of(self, document: object) -> object:
        """The value at this place.

        Raises:
            FieldMissingError: there is none.
        """
        found = document
        for step in self.steps:
            match found, step:
                case dict(), str() if step in found:
                    found = found[step]
                case list(), int() if step < len(found):
                    found = found[step]
                case _:
                    raise FieldMissingError(f"{self.text} is missing: there is no {step!r}{_instead(found)}")
        return found


def parse_path(text: str) -> JsonPath:
    """Read `$`, `$.name`, `$['a name']`, `$[0]`, and any chain of these.

    Raises:
        ValueError: it is none; says what is taken.
    """
    steps: list[str | int] = []
    place = 1
    while text.startswith("$") and (step := _STEP.match(text, place)):
        steps.append(int(step["place"]) if step["place"] else step["name"] or step["quoted"])
        place = step.end()
    if not text.startswith("$") or place != len(text):
        raise ValueError(f"{text!r} is no path to one value; write it as $.name, $['a name'] or $.list[0]")
    return JsonPath(text, tuple(steps))


def _instead(found: object) -> str:
    if isinstance(found, dict):
        return f" among {', '.join(sorted(map(str, found))[:8]) or 'no members'}"
    return f" in a list of {len(found)}" if isinstance(found, list) else ", as the value around it has no parts"
