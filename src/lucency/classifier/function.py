"""A function of one's own as a classifier: it takes arrays or tensors, whichever it is seen to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lucency.errors import LucencyError, ModelError, ran_out_of_memory


class Function:
    """Asks a function about ``[B, C, *grid]``, as a float32 array, or as a tensor on the CPU if it refuses arrays.

    Args:
        function: from the batch, and what stands beside it by name, to scores.
        name: what to call it in errors.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function = function
        self.name = name
        self.arrays: bool | None = None

    def __call__(self, x: Tensor, **extras: Any) -> Any:
        """What the function returns.

        Raises:
            ModelError: when it takes neither.
        """
        if self.arrays is not None:
            return self._ask(self.arrays, x, extras)
        try:
            returned, self.arrays = self._ask(True, x, extras), True
        except Exception as error:
            if isinstance(error, LucencyError) or ran_out_of_memory(error):
                raise
            try:
                returned, self.arrays = self._ask(False, x, extras), False
            except Exception as other:
                if isinstance(other, LucencyError) or ran_out_of_memory(other):
                    raise
                raise ModelError(
                    f"{self.name} raised {_words(error)} on a NumPy array of shape {list(x.shape)}, and "
                    f"{_words(other)} on a tensor; check input_size and channels."
                ) from error
        return returned

    def _ask(self, arrays: bool, x: Tensor, extras: dict[str, Any]) -> Any:
        def own(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            value = value.detach().cpu().clone()
            return value.numpy() if arrays else value

        return self.function(own(x), **{name: own(value) for name, value in extras.items()})


def _words(error: Exception) -> str:
    return f"{type(error).__name__} ({(str(error).strip() or 'no message').splitlines()[0]})"
