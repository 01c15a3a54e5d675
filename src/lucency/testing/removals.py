"""What every meaning of "removed" must do."""

from __future__ import annotations

import torch
from torch import Tensor

from lucency.removal import Removal, remove

SHAPES = ((1, 12, 10), (3, 9, 11), (1, 5, 6, 7))


def generator(seed: int = 0) -> torch.Generator:
    """Random numbers that are the same at every call."""
    return torch.Generator().manual_seed(seed)


def pixels_of(shape: tuple[int, ...]) -> Tensor:
    """A picture ``[C, *spatial]``."""
    return torch.rand(shape, generator=generator(1))


def holes(count: int, grid: tuple[int, ...]) -> Tensor:
    """Masks ``[count, *grid]`` that leave out two fifths of the pixels."""
    return (torch.rand((count, *grid), generator=generator(2)) > 0.4).float()


def check_kept(removal: Removal, shape: tuple[int, ...]) -> None:
    """What is kept is the scan, bit for bit, and something else stands where it is not."""
    pixels, masks = pixels_of(shape), holes(3, shape[1:])
    scans = remove(pixels, masks, removal.bind(pixels, generator())(masks))
    assert scans.shape == (3, *shape), f"the perturbed scans have the shape {tuple(scans.shape)}"
    assert bool(torch.isfinite(scans).all()), "a perturbed scan is not finite"
    kept = masks[:, None].expand_as(scans) == 1
    assert torch.equal(scans[kept], pixels.expand_as(scans)[kept]), "what is kept is changed"
    assert not torch.equal(scans, pixels.expand_as(scans)), "nothing is removed"


def check_repeatable(removal: Removal) -> None:
    """The same masks get the same pixels, in whatever company and order."""
    pixels, masks = pixels_of((1, 12, 10)), holes(4, (12, 10))
    fill = removal.bind(pixels, generator(3))
    first = remove(pixels, masks, fill(masks))
    for i in (2, 0, 3, 1):
        torch.testing.assert_close(remove(pixels, masks[i : i + 1], fill(masks[i : i + 1]))[0], first[i])
    again = removal.bind(pixels, generator(3))(masks)
    torch.testing.assert_close(remove(pixels, masks, again), first, rtol=0, atol=0)


def check_seed(removal: Removal) -> None:
    """Only what draws random numbers depends on the seed, and says that it does."""
    pixels, masks = pixels_of((1, 12, 10)), holes(2, (12, 10))
    one, other = (remove(pixels, masks, removal.bind(pixels, generator(s))(masks)) for s in (0, 1))
    assert torch.equal(one, other) is removal.deterministic, "deterministic says the opposite of what happens"


def check_everything(removal: Removal, shape: tuple[int, ...]) -> None:
    """Everything can be removed at once."""
    pixels, nothing = pixels_of(shape), torch.zeros(1, *shape[1:])
    fill = removal.bind(pixels, generator())(nothing)
    assert bool(torch.isfinite(fill).all()), "with everything removed a pixel is not finite"


def check_removal(removal: Removal | type[Removal], *, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> None:
    """Everything above, for one removal, in 2-D and 3-D.

    Args:
        removal: a class, tried with its defaults, or an instance.
        shapes: ``[C, *spatial]`` of the scans, for a removal that is made for some only.

    Raises:
        AssertionError: saying which promise is not kept.
    """
    what = removal() if isinstance(removal, type) else removal
    assert isinstance(getattr(what, "name", None), str), f"{type(what).__name__} has no name"
    assert isinstance(getattr(what, "deterministic", None), bool), f"{what.name} does not say whether it is random"
    for shape in shapes:
        check_kept(what, shape)
        check_everything(what, shape)
    if any(len(shape) == 3 for shape in shapes):
        check_repeatable(what)
        check_seed(what)
