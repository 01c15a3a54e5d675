"""The one family of errors that Lucency raises for things a user can mend.

Every message is one sentence that says what is wrong and what to do about it.
"""


class LucencyError(Exception):
    """Base class: catch this to catch everything that Lucency says on purpose."""


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
