"""The one error a user sees: what was found, what was expected, what to do next."""

import re

_TOLD = re.compile(r"SegbenchError: (.*?)\n  expected: (.*?)\n  to do:    (.*)", re.DOTALL)


class SegbenchError(ValueError):
    """Bad input, told in three parts.

    The command line prints it without a traceback; a library user catches it as a `ValueError`.

    Args:
        found: what is there, naming the file or the config key.
        expected: what should be there.
        action: what the user does next, as a command or an override where there is one.
    """

    def __init__(self, found: str, expected: str = "", action: str = "") -> None:
        # torch raises a loading process's error anew from its class and the text of its traceback alone.
        if not expected and (told := _TOLD.search(found)):
            found, expected, action = (part.strip() for part in told.groups())
        self.found, self.expected, self.action = found, expected, action
        super().__init__(f"{found}\n  expected: {expected}\n  to do:    {action}")

    def __reduce__(self) -> tuple[type["SegbenchError"], tuple[str, str, str]]:
        """Pickle by the three parts, so that it survives the way between processes."""
        return type(self), (self.found, self.expected, self.action)
