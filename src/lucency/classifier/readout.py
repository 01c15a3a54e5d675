"""From whatever a model returns to one tensor of scores, ``[B, K]``, or a map for each class, ``[B, K, *space]``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lucency.errors import ModelError

Output = str | int | Callable[[Any], Any]
"""Which part of what a model returns holds its scores: a name (dotted where it lies deeper), a place, or a function."""
Path = tuple[str | int, ...]

SCORES = ("logits", "probabilities", "scores", "out")
"""Names under which models return their scores beside other things, the first of them that is there."""


@dataclass(frozen=True)
class Readout:
    """Finds the scores in what a model returns.

    Attributes:
        output: where they are; ``None`` takes what is obvious: the only tensor, one called ``logits`` (or
            ``probabilities``, ``scores``, ``out``), the only one of shape ``[B, K]``, or a head of ``[B]`` or
            ``[B, 1]`` for each class.
        dense: whether the model gives a map for each class.
        paths: where they were found when the model was loaded; several where each class has a head of its own.
    """

    output: Output | None = None
    dense: bool = False
    paths: tuple[Path, ...] = ()

    def found(self, returned: Any, batch: int, space: int, classes: int | None, name: str) -> Readout:
        """This readout, looking from now on where the scores are in ``returned``.

        Raises:
            ModelError: when that is not obvious.
        """
        if callable(self.output):
            return self
        if self.output is not None:
            start = _path(returned, self.output, name)
            rest = _obvious(_at(returned, start, name), batch, space, classes, self.dense, name)
            return dataclasses.replace(self, paths=tuple((*start, *path) for path in rest))
        return dataclasses.replace(self, paths=_obvious(returned, batch, space, classes, self.dense, name))

    @property
    def words(self) -> str | None:
        """Where the scores are found, in words; ``None`` where the model returns nothing else."""
        if not self.paths or self.paths == ((),):
            return None
        return ", ".join(repr(".".join(map(str, path))) for path in self.paths)

    def __call__(self, returned: Any, batch: int, space: int, classes: int | None, name: str) -> Tensor:
        """The scores, float32 ``[B, K]`` or ``[B, K, *space]``, in what came back for ``batch`` scans.

        ``space`` is the number of their spatial axes, and ``classes`` that of the class names.

        Raises:
            ModelError: when they are not there, or have another shape.
        """
        if callable(self.output):
            try:
                returned = self.output(returned)
            except Exception as error:
                raise ModelError(
                    f"The function given as output= raised {type(error).__name__} "
                    f"({(str(error).strip() or 'no message').splitlines()[0]}) on what {name} returns, "
                    f"{described(returned)}."
                ) from error
            paths = _obvious(returned, batch, space, classes, self.dense, name)
        else:
            paths = self.paths or self.found(returned, batch, space, classes, name).paths
        parts = []
        for path in paths:
            tensor = _tensor(_at(returned, path, name), batch, known=True)
            if tensor is None:
                raise ModelError(
                    f"{name} returns {described(returned)}, which holds no scores; say where with output=."
                )
            parts.append(_shaped(tensor, batch, space, self.dense, name))
        scores = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return scores.float()


def _shaped(tensor: Tensor, batch: int, space: int, dense: bool, name: str) -> Tensor:
    """Scores as ``[B, K]`` or ``[B, K, *space]``."""
    shape = list(tensor.shape)
    if tensor.is_complex():
        raise ModelError(f"{name} gives complex numbers; wrap it in a function that gives real scores.")
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if not tensor.is_floating_point() and tensor.numel() and (int(tensor.min()) < 0 or int(tensor.max()) > 1):
        raise ModelError(
            f"{name} gives whole numbers, as labels are, and no scores; give the scores that they are made from, or "
            "floating-point numbers if they measure something."
        )
    if tensor.ndim == 0 and batch == 1:
        tensor = tensor.reshape(1, 1)
    elif tensor.ndim == 1:
        tensor = tensor[:, None] if len(tensor) == batch else tensor[None] if batch == 1 else tensor
    elif dense and tensor.ndim == space + 1:
        tensor = tensor[:, None]
    if tensor.ndim > 2 and all(n == 1 for n in tensor.shape[2:]):
        tensor = tensor.flatten(1)
    if tensor.ndim > 2 and not dense and tensor.shape[0] == batch:
        raise ModelError(
            f"{name} gives maps of shape {shape} and no score for each class; say how a map becomes a number, "
            "reduce='mean', 'max', 'sum' or a region, or use output= with a function."
        )
    if (
        tensor.ndim < 2
        or tensor.shape[0] != batch
        or 0 in tensor.shape
        or (dense and tensor.ndim not in (2, space + 2))
    ):
        wanted = "[B, K] or [B, K, *space]" if dense else "[B, K]"
        raise ModelError(
            f"{name} must give outputs of shape {wanted} and gave {shape} for {batch} scan(s); "
            "wrap it in a function that does, or say where the scores are with output=."
        )
    return tensor


def _obvious(returned: Any, batch: int, space: int, classes: int | None, dense: bool, name: str) -> tuple[Path, ...]:
    """Where the scores are, when only one answer makes sense."""
    found = dict(_leaves(returned, batch))
    real = {path: t for path, t in found.items() if t.is_floating_point() or t.is_quantized}
    found = real or found
    if not found:
        raise ModelError(
            f"{name} returns {described(returned)}, in which there are no outputs of shape [B, K]; "
            "wrap it in a function that gives scores."
        )
    if len(found) == 1:
        return (next(iter(found)),)
    for word in SCORES:
        called = [path for path in found if path and path[-1] == word]
        if len(called) == 1:
            return (called[0],)
    sizes = {path: _scores_each(t, batch, space, dense) for path, t in found.items()}
    fit = [path for path, n in sizes.items() if n is not None and (classes is None or n == classes)]
    if not fit and classes == 2:
        # One number may stand for both.
        fit = [path for path, n in sizes.items() if n == 1]
    if len(fit) == 1:
        return (fit[0],)
    if all(n == 1 for n in sizes.values()) and classes in (None, len(sizes)):
        return tuple(sizes)
    parts = ", ".join(f"{'.'.join(map(str, path))} {list(t.shape)}" for path, t in found.items())
    raise ModelError(
        f"{name} returns several tensors ({parts}) and nothing tells which holds the scores [B, K]; "
        f"say it with output=, such as output={_word(next(iter(found)))!r}."
    )


def _word(path: Path) -> str | int:
    return path[0] if len(path) == 1 else ".".join(map(str, path))


def _scores_each(tensor: Tensor, batch: int, space: int, dense: bool) -> int | None:
    """How many classes a tensor could have scores of; ``None`` where it has another shape."""
    if tensor.ndim == 0 or tensor.shape[0] != batch:
        return None
    if dense:
        return int(tensor.shape[1]) if tensor.ndim == space + 2 else 1 if tensor.ndim == space + 1 else None
    if tensor.ndim == 1:
        return 1
    return int(tensor.shape[1]) if all(n == 1 for n in tensor.shape[2:]) else None


def _leaves(value: Any, batch: int, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    tensor = _tensor(value, batch)
    if tensor is not None:
        yield path, tensor
        return
    for key, part in _parts(value).items():
        yield from _leaves(part, batch, (*path, key))


def _parts(value: Any) -> dict[str | int, Any]:
    """What a container holds, by name or place."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return dict(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if isinstance(value, Tensor | np.ndarray | str) or value is None:
        return {}
    return {word: getattr(value, word) for word in SCORES if hasattr(value, word)}


def _tensor(value: Any, batch: int, known: bool = False) -> Tensor | None:
    """A tensor, an array, a number or lists of numbers as a tensor; ``None`` for anything else.

    A list of as many rows as each has numbers is one where that is ``known``; it could be one of columns.
    """
    if isinstance(value, Tensor):
        return value
    if _row_each(value, batch) and (known or len(value[0]) != batch):
        return torch.stack([torch.as_tensor(row) for row in value])
    if isinstance(value, float | int) or hasattr(value, "__array__") or _numbers(value):
        array = np.asarray(value)
        return torch.from_numpy(np.array(array)) if array.dtype.kind in "fiub" else None
    return None


def _numbers(value: Any) -> bool:
    """Whether these are lists of numbers, of one length each."""
    if not isinstance(value, list | tuple) or not len(value):
        return False
    if all(isinstance(v, float | int | np.number) for v in value):
        return True
    return all(_numbers(v) for v in value) and len({len(v) for v in value}) == 1


def _row_each(value: Any, batch: int) -> bool:
    """Whether this is a list of one row of scores for each scan, as a loop over the scans gives it."""
    return (
        isinstance(value, list)
        and len(value) == batch
        and all(isinstance(v, np.ndarray | Tensor) and v.ndim == 1 for v in value)
        and len({len(v) for v in value}) == 1
    )


def _path(returned: Any, output: str | int, name: str) -> Path:
    """Where the caller said that the scores are."""
    if isinstance(returned, Tensor | np.ndarray):
        raise ModelError(f"{name} returns one tensor, so output={output!r} picks nothing; leave it out.")
    if isinstance(output, str) and not (output in _parts(returned) or hasattr(returned, output)):
        return tuple(int(word) if word.isdigit() else word for word in output.split("."))
    return (output,)


def _at(returned: Any, path: Path, name: str) -> Any:
    value = returned
    for key in path:
        parts = _parts(value)
        if key in parts:
            value = parts[key]
        elif isinstance(key, int) and -len(parts) <= key < len(parts):
            value = list(parts.values())[key]
        elif isinstance(key, str) and not isinstance(value, Tensor) and hasattr(value, key):
            value = getattr(value, key)
        else:
            raise ModelError(f"{name} returns {described(returned)}, in which there is no output {key!r}.")
    return value


def described(returned: Any) -> str:
    """What a model returned, in a few words."""
    if isinstance(returned, Tensor | np.ndarray):
        return f"a tensor of shape {list(returned.shape)}"
    parts = _parts(returned)
    if not parts:
        return f"{type(returned).__name__}"
    shown = [
        f"{key} {list(part.shape)}" if isinstance(part, Tensor | np.ndarray) else f"{key} ({type(part).__name__})"
        for key, part in list(parts.items())[:6]
    ]
    return f"a {type(returned).__name__} of {', '.join(shown)}{', ...' if len(parts) > 6 else ''}"


def heads_named(readout: Readout) -> Sequence[str] | None:
    """The names of the heads, where each class has one and all are named."""
    last = [path[-1] for path in readout.paths if path]
    return [str(n) for n in last] if len(last) > 1 and all(isinstance(n, str) for n in last) else None
