"""The one family of errors that Lucency raises for things a user can mend.

Every message is one sentence that says what is wrong and what to do about it.
"""


def printable(text: str) -> str:
    """``text`` on one line, with control characters and what is not UTF-8 as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class LucencyError(Exception):
    """Base class: catch this to catch everything that Lucency says on purpose.

    Names of files and classes stand in the messages; what of them cannot be printed is shown as an escape.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ScanError(LucencyError):
    """A scan cannot be read, or its pixels cannot be used."""


class ModelError(LucencyError):
    """A classifier cannot be loaded, or raised while it was asked."""


class QuestionError(LucencyError):
    """The class, the layer or the watched quantity does not exist on this classifier."""


class ParameterError(LucencyError, ValueError):
    """A parameter is outside what a function accepts."""


class OutputError(LucencyError):
    """A result cannot be written or read back."""


class MissingExtraError(LucencyError):
    """An optional dependency is needed and not installed."""


def ran_out_of_memory(error: Exception) -> bool:
    """Whether PyTorch raised this for want of memory; it has a class of its own for the GPU only."""
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )
