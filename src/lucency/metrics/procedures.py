"""Ways to take a scan apart along a map, one small class each: what goes, in which order, and what sums the curve up.

A frozen dataclass below :class:`Procedure` in a file of this folder is found by its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lucency.errors import ParameterError
from lucency.parameters import Found, declared, kinds, lookup
from lucency.removal import Blur, Mean, NoisyLinear, Removal, Uniform


@dataclass(frozen=True)
class Procedure(ABC):
    """A way to take a scan apart, and the number that sums the curve up.

    Attributes:
        name: what it is called.
        title: above a panel.
        good: what a good map does to the curve.
        measure: the number that sums the curve up.
        better: which values of it speak for the map.
        ordered: a map gives the order; otherwise it is random, and one curve is enough for all maps.
        inserts: pieces are shown on a scan that is all removed, and not taken away.
        removal: what stands where pixels are gone.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    good: ClassVar[str]
    measure: ClassVar[Literal["AOPC", "AUC"]]
    better: ClassVar[Literal["higher", "lower", "neither"]]
    ordered: ClassVar[bool] = True
    inserts: ClassVar[bool] = False

    removal: Removal

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared(cls, Procedure)

    def __post_init__(self) -> None:
        for parameter in fields(self):
            value = getattr(self, parameter.name)
            if isinstance(value, int) and value < 1:
                raise ParameterError(f"{parameter.name} of the curve {self.name} must be at least 1, not {value}.")

    @staticmethod
    def of(what: str | Procedure, **parameters: int) -> Procedure:
        """A procedure from its name, in any case, with those of the ``parameters`` that it has; or itself.

        Raises:
            ParameterError: naming those there are.
        """
        if isinstance(what, Procedure):
            return what
        cls = lookup(what, CURVES, "curve")
        known = {parameter.name for parameter in fields(cls)}
        return cls(**{name: value for name, value in parameters.items() if name in known})  # type: ignore[arg-type]

    def pieces(self, grid: Sequence[int]) -> Tensor:
        """The piece that each pixel belongs to, int64 ``[*grid]``."""
        return tiles(grid, 1)

    def worth(self, sums: Tensor) -> Tensor:
        """What comes first: the highest, for the sum of the map over each piece, float64 ``[P]``."""
        return sums

    @abstractmethod
    def counts(self, pieces: int) -> Tensor:
        """How many of so many pieces are gone (shown) at each point of the curve, int64 ``[K]``, from 0 on."""

    @abstractmethod
    def words(self, pieces: int, steps: int) -> str:
        """What is done, in one sentence."""

    def definition(self, pieces: int, steps: int) -> str:
        """What is done and what the number is, in words."""
        sums_up = {
            "AOPC": "AOPC is the mean fall of the score over all points, the untouched scan among them",
            "AUC": "AUC is the area under the score over the share of pixels, trapezoid rule",
        }[self.measure]
        verdict = "" if self.better == "neither" else f"; {self.better} is better"
        return f"{self.words(pieces, steps)} {sums_up}{verdict}. Equal values are ordered at random."


@dataclass(frozen=True)
class Regions(Procedure, ABC):
    """Regions are removed one after another.

    Attributes:
        region: pixels of the model's grid along each side of a region; 1 = single pixels.
        regions: how many are removed, L; all of them where there are fewer.
    """

    order: ClassVar[str]
    measure = "AOPC"

    removal: Removal = field(default_factory=Uniform)
    region: int = 9
    regions: int = 100

    def pieces(self, grid: Sequence[int]) -> Tensor:
        return tiles(grid, self.region)

    def counts(self, pieces: int) -> Tensor:
        return torch.arange(min(self.regions, pieces) + 1)

    def words(self, pieces: int, steps: int) -> str:
        return (
            f"{steps} of {pieces} regions of {self.region} pixels a side are removed one after another, {self.order} "
            "(Samek et al. 2017)."
        )


@dataclass(frozen=True)
class MoRF(Regions):
    """Most relevant first."""

    name = "MoRF"
    title = "Most relevant first"
    good = "a good map falls fast"
    better = "higher"
    order = "most relevant first by the sum of the map over the region"


@dataclass(frozen=True)
class LeRF(Regions):
    """Least relevant first."""

    name = "LeRF"
    title = "Least relevant first"
    good = "a good map stays up"
    better = "lower"
    order = "least relevant first by the sum of the map over the region"

    def worth(self, sums: Tensor) -> Tensor:
        return -sums


@dataclass(frozen=True)
class RandomOrder(Regions):
    """In random order: the line to beat."""

    name = "random"
    title = "Random order"
    good = "the line to beat"
    better = "neither"
    ordered = False
    order = "in random order"

    def worth(self, sums: Tensor) -> Tensor:
        return torch.zeros_like(sums)


@dataclass(frozen=True)
class Parts(Procedure, ABC):
    """All pixels go (or come) in equal parts, highest value of the map first.

    Attributes:
        points: in how many parts.
    """

    order: ClassVar[str]
    measure = "AUC"

    removal: Removal = field(default_factory=Mean)
    points: int = 224

    def counts(self, pieces: int) -> Tensor:
        return torch.linspace(0, pieces, min(self.points, pieces) + 1, dtype=torch.float64).round().long()

    def words(self, pieces: int, steps: int) -> str:
        return f"{self.order}, in {steps} equal parts (Petsiuk et al. 2018)."


@dataclass(frozen=True)
class Deletion(Parts):
    """Pixels are removed."""

    name = "deletion"
    title = "Deletion"
    good = "a good map falls fast"
    better = "lower"
    order = "Pixels are removed, those with the highest value of the map first"

    removal: Removal = field(default_factory=Mean)


@dataclass(frozen=True)
class Insertion(Parts):
    """Pixels are shown on a scan that is all removed."""

    name = "insertion"
    title = "Insertion"
    good = "a good map rises fast"
    better = "higher"
    inserts = True
    order = "Pixels are shown on a scan that is all removed, highest value of the map first"

    removal: Removal = field(default_factory=lambda: Blur(5.0))


@dataclass(frozen=True)
class Road(Procedure):
    """Shares of the pixels are removed and imputed from the rest; slow.

    Attributes:
        shares: which, rising from 0.
    """

    name = "ROAD"
    title = "ROAD"
    good = "a good map falls fast"
    measure = "AOPC"
    better = "higher"

    removal: Removal = field(default_factory=NoisyLinear)
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    def counts(self, pieces: int) -> Tensor:
        return (torch.tensor(self.shares, dtype=torch.float64) * pieces).round().long()

    def words(self, pieces: int, steps: int) -> str:
        what = "Pixels are removed and imputed from what is left, highest value of the map first"
        return f"{what}, {self.shares[1]:.0%} to {self.shares[-1]:.0%} of them (Rong et al. 2022)."


def tiles(grid: Sequence[int], side: int) -> Tensor:
    """The tile that each pixel belongs to: int64 ``[*grid]``, tiles of ``side`` pixels from the first corner on."""
    found = torch.zeros(tuple(grid), dtype=torch.int64)
    for axis, n in enumerate(grid):
        tile = torch.arange(n) // side
        found = found * (int(tile[-1]) + 1) + tile.view([-1 if a == axis else 1 for a in range(len(grid))])
    return found


CURVES: Mapping[str, type[Procedure]] = Found(lambda: kinds(Procedure, "lucency.curves"))
"""Every procedure by its name."""
USUAL = ("MoRF", "LeRF", "random", "deletion", "insertion")
