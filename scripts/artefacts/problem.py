"""Errors that a person reads, with the exit code that a script sees."""

EX_USAGE = 64
EX_DATA = 65
EX_UNAVAILABLE = 69
EX_CONFIG = 78


class Problem(Exception):
    """What is wrong, where, and what to do."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


def wrong(where: str, what: str, *, expected: object = None, found: object = None, do: str = "") -> Problem:
    """An artefact is not what it should be. Nothing of it is kept."""
    parts = [what]
    if expected is not None:
        parts.append(f"expected {printable(expected)}")
    if found is not None:
        parts.append(f"found {printable(found)}")
    if do:
        parts.append(do)
    return Problem(EX_DATA, f"{where}: " + "; ".join(parts))


def printable(value: object) -> str:
    """Text from outside, fit for a terminal: short and without control characters."""
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= 200 else text[:200] + "…"
