"""A network of one's own: unwrapped, copied whatever hangs on it, and told from others by its weights."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lucency.errors import ModelError

Copied = TypeVar("Copied")
OWN = frozenset({"_parameters", "_buffers", "_modules"})


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside of what only runs it: data parallel, compiled."""
    while (inner := _inside(module)) is not None:
        module = inner
    return module


def _inside(module: nn.Module) -> nn.Module | None:
    inner = getattr(module, "_orig_mod", None)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = module.module
    return inner if isinstance(inner, nn.Module) else None


def copied(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy on the CPU, in evaluation mode, without gradients of its weights; and what had to be shared with it.

    Activations that a module keeps (and what an old ``weight_norm`` computes) belong to a graph and cannot be copied as
    such; their values are. Attributes that cannot be copied at all (a lock, an open file) are shared.

    Raises:
        ModelError: when the network itself cannot be copied.
    """
    memo: dict[int, Any] = {}
    for tensor in _kept(module):
        memo[id(tensor)] = tensor.detach().clone()
    for part in reversed(list(module.modules())):
        if (inner := _inside(part)) is not None:
            # The innermost come first.
            memo[id(part)] = memo.get(id(inner)) or copied(inner)[0]
    shared: list[str] = []
    try:
        own = _deeply(module, memo)
    except Exception:
        for name, part in module.named_modules():
            for attribute, value in vars(part).items():
                if attribute in OWN or _copies(value, memo):
                    continue
                memo[id(value)] = value
                shared.append(f"{name}.{attribute}".lstrip("."))
        try:
            own = _deeply(module, memo)
        except Exception as error:
            raise ModelError(
                f"{type(module).__name__} cannot be copied ({(str(error) or type(error).__name__).splitlines()[0]}); "
                "give a function that calls it instead."
            ) from error
    return still(own), shared


def still(module: nn.Module) -> nn.Module:
    """The same network on the CPU, in evaluation mode, without gradients of its weights."""
    if any(t.is_meta for t in (*module.parameters(), *module.buffers())):
        raise ModelError(f"{type(module).__name__} has no weights (they are on the meta device); load them first.")
    module = module.cpu()
    # Exported programs have no modes: what they do was settled when they were exported.
    with suppress(NotImplementedError):
        module.eval()
    for parameter in module.parameters():
        # Weights that are still to be made wait until they are.
        if not nn.parameter.is_lazy(parameter):
            parameter.requires_grad_(False)
    return module


def fingerprint(module: nn.Module) -> str:
    """A hash of a network's structure and of everything that it stores."""
    digest = hashlib.sha256(str(module).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        _add(digest, value)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.is_quantized:
            digest.update(str((value.dtype, value.qscheme(), value.shape)).encode())
            scales = (
                (value.q_per_channel_scales(), value.q_per_channel_zero_points())
                if value.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
                else (torch.tensor([value.q_scale(), value.q_zero_point()]),)
            )
            for part in (value.int_repr(), *scales):
                _add(digest, part)
        elif value.layout is not torch.strided:
            _add(digest, value.to_dense())
        else:
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, list | tuple):
        for part in value:
            _add(digest, part)
    else:
        digest.update(str(value).encode())


def _copies(value: Any, memo: dict[int, Any]) -> bool:
    try:
        _deeply(value, memo)
    except Exception:
        return False
    return True


def _deeply(value: Copied, memo: dict[int, Any]) -> Copied:
    # TorchScript would take the copying for a part of the computation, and PyTorch warns of its own future.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return copy.deepcopy(value, dict(memo))


def _kept(module: nn.Module) -> Iterator[Tensor]:
    """Tensors within a network that are the result of a computation."""
    seen: set[int] = set()
    waiting: list[Any] = [vars(part) for part in module.modules()]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if not value.is_leaf:
                yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            waiting.extend(value)
        elif not isinstance(value, nn.Module | type) and hasattr(value, "__dict__"):
            waiting.append(vars(value))
