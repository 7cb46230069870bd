"""Text that somebody else wrote, as it may be shown."""


def printable(text: str) -> str:
    """The text in one line, with `?` for what a terminal would act on or no file could hold: control characters,
    changes of the writing direction, half of a surrogate pair.
    """
    return "".join(character if character.isprintable() else "?" for character in text)
