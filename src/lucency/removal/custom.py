"""Any function as a removal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lucency.errors import ParameterError
from lucency.removal.base import Fill, Removal


@dataclass(frozen=True)
class Custom(Removal):
    """What your own function says.

    Attributes:
        function: from the scan ``[C, *spatial]`` (float32, display values) and masks ``[B, *spatial]`` (0..1, 1 =
            kept) to pixels that can be broadcast to ``[B, C, *spatial]``; what is kept is taken from the scan. The
            same masks must get the same pixels, or the pictures are not of what was scored.

    Example:
        >>> import torch
        >>> from lucency.removal import Custom, remove
        >>> darker = Custom(lambda pixels, masks: 0.5 * pixels)
        >>> pixels, masks = torch.ones(1, 2, 2), torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
        >>> remove(pixels, masks, darker.bind(pixels, torch.Generator())(masks))
        tensor([[[[1.0000, 0.5000],
                  [1.0000, 1.0000]]]])
    """

    name: ClassVar[str] = "custom"
    deterministic: ClassVar[bool] = True
    cost: ClassVar[str] = "your function's"
    function: Callable[[Tensor, Tensor], Tensor]

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        def fill(masks: Tensor) -> Tensor:
            found = self.function(pixels, masks)
            wanted = (len(masks), *pixels.shape)
            try:
                return found.to(pixels).expand(wanted)
            except (AttributeError, RuntimeError) as error:
                got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ParameterError(f"A removal must return a tensor that fits {list(wanted)}, not {got}.") from error

        return fill
