"""Trained weights in a safetensors file, for a network that is built by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lucency.errors import ModelError

State = dict[str, Tensor]


def read_weights(path: str | Path, skeleton: nn.Module) -> State:
    """The tensors of a safetensors file, floating point ones as float32, under the names that ``skeleton`` has.

    Weights that were saved from a wrapper (DataParallel, Lightning) carry its name in front, which is left away.

    Raises:
        ModelError: when there is no such file, or it is something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{path} holds no weights that Lucency reads ({why}); save them with safetensors.torch.save_file."
        ) from error
    wrappers = {name.partition(".")[0] for name in state}
    if len(wrappers) == 1 and wrappers.isdisjoint(name.partition(".")[0] for name in skeleton.state_dict()):
        state = {name.partition(".")[2]: value for name, value in state.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def sizes_in(state: State, skeleton: nn.Module, *, classes: int, channels: int) -> tuple[int, int]:
    """How many classes and channels the weights are for, given the network as it is built for ``classes`` and
    ``channels``; what does not differ stays."""
    for name, own in skeleton.state_dict().items():
        value = state.get(name)
        if value is None or value.shape == own.shape or value.ndim != own.ndim:
            continue
        if own.shape[0] == classes and own.shape[1:] == value.shape[1:]:
            classes = value.shape[0]
        elif own.ndim > 3 and own.shape[1] == channels and own.shape[0] == value.shape[0]:
            channels = value.shape[1]
    return classes, channels


def put_into(network: nn.Module, state: State, what: str) -> nn.Module:
    """The network with these weights, every one of them.

    Raises:
        ModelError: naming what is missing or of another shape.
    """
    own = network.state_dict()
    wrong = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    wrong += [name for name in state if name not in own]
    wrong += [name for name in own if name in state and state[name].shape != own[name].shape]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelError(
            f"The weights do not fit {what}: {', '.join(wrong[:3])}{more} missing, unknown or of another shape; name "
            "the network that they were trained with."
        )
    network.load_state_dict(state, strict=False)
    return network


def on_meta(build: object) -> nn.Module:
    """What ``build()`` builds, without memory for its weights."""
    with torch.device("meta"):
        return build()  # type: ignore[operator,no-any-return]


def unique(names: Sequence[object]) -> list[str]:
    """The names as strings without blanks around them; of equal ones each gets its number behind it."""
    plain = [str(name).strip() or f"output {i}" for i, name in enumerate(names)]
    count = Counter(name.casefold() for name in plain)
    return [f"{name} ({i})" if count[name.casefold()] > 1 else name for i, name in enumerate(plain)]
