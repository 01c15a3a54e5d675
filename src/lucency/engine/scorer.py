"""A probe's scores through the traced network: folded and channels-last, and on windows where that is faster."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from lucency.classifier import Classifier
from lucency.engine.chunks import Chunks
from lucency.engine.incremental import Incremental, Plan
from lucency.engine.windows import Pair
from lucency.errors import ran_out_of_memory
from lucency.work import count

Raw = tuple[Tensor, dict[str, Tensor]]
"""Outputs ``[B, K]``, and the outputs of the watched layers."""

WHOLE_FROM = (0.3, 0.6, 0.95, 0.0)
"""Shares of a map from which on it is computed whole; 0 computes the scan whole from the start."""
RECEPTIVE_FIELDS = (0.7, 0.5, 0.4, 0.3, 0.25, 0.2)
SMALL = 0.1
SAMPLE = 16
BATCH = 32


class Scorer:
    """Scores of one probe.

    All ways of computing give the same numbers, so finding the quickest costs little: the likely ones, by the number
    of multiplications, go through a few evaluations each, and the rest through the one that was quickest.

    Args:
        state: the traced network, which knows the clean scan.
        classifier: takes scans in and reads the outputs out.
        grid: size of the clean scan along each axis.
        read: what the questions read ``[B, Q]`` from outputs and the watched layers.
        removed: the perturbed scans of masks ``[B, H, W]``: whole without corners, else what stands in the boxes of one
            size whose ``corners`` ``[B, 2]`` are given.
        chunks: how many windows go through at once.
        seconds: what plans took so far; shared by the scorers of an engine.
        layers: the watched ones.
        tolerance: the error of a score that is allowed for speed.

    Attributes:
        facts: how much the receptive field was cut and what error that makes, when a tolerance allows it.
    """

    def __init__(
        self,
        state: Incremental,
        classifier: Classifier,
        grid: tuple[int, ...],
        *,
        read: Callable[[Tensor, dict[str, Tensor]], Tensor],
        removed: Callable[[Tensor, Tensor | None, Pair], Tensor],
        chunks: Chunks,
        seconds: dict[tuple[object, ...], list[float]],
        layers: tuple[str, ...] = (),
        tolerance: float | None = None,
    ) -> None:
        self._state = state
        self._classifier = classifier
        self._grid = grid
        self._read = read
        self._removed = removed
        self._chunks = chunks
        self._seconds = seconds
        self._layers = layers
        self._tolerance = tolerance
        self._receptive_field: dict[Pair, float] = {}
        self.facts: dict[str, float] = {}
        self._last: Plan | None = None

    def whole(self, x: Tensor) -> Tensor:
        """What the questions read, ``[B, Q]``, on scans ``[B, C, H, W]``."""
        return self._read(*self.raw(x))

    def raw(self, x: Tensor) -> Raw:
        """The outputs ``[B, K]`` on scans ``[B, C, H, W]``, and the outputs of the watched layers."""
        return self._run_on(x, torch.zeros(len(x), 2, dtype=torch.long), self._state.plan((1, 1), 0.0))

    def _run_on(self, x: Tensor, corners: Tensor, plan: Plan) -> Raw:
        """The same for what stands in boxes, or for whole scans, in display values."""
        count(len(corners))
        returned, features = self._state.run(self._classifier.enter(x), corners, plan)
        return self._classifier.read_out(returned, x), features

    def windows_agree(self, pixels: Tensor, same: Callable[[Raw, Raw], bool]) -> bool:
        """Whether ``pixels`` ``[C, H, W]`` with another middle get the same scores on windows and whole."""
        corner = [n // 3 for n in self._grid]
        size = (max(1, corner[0] // 2), max(1, corner[1] // 2))
        rows, columns = (slice(c, c + n) for c, n in zip(corner, size, strict=True))
        x = pixels.repeat(min(2, self._chunks.size), *[1] * pixels.ndim)
        x[0, ..., rows, columns] = 1 - x[0, ..., rows, columns]
        x[1:, ..., rows, columns] *= 0.5
        part = x[..., rows, columns]
        return same(self._run_on(part, torch.tensor([corner] * len(x)), self._state.plan(size, 1.0)), self.raw(x))

    def scores(self, masks: Tensor, boxes: Tensor) -> Tensor:
        """What the questions read, ``[B, Q]``, where masks ``[B, H, W]`` leave out something inside their boxes."""
        found: Tensor | None = None
        edges = boxes[:, :, 1] - boxes[:, :, 0]
        size = (int(edges[:, 0].max()), int(edges[:, 1].max()))
        # A box cut off at the border gets a window of full size moved inwards: it holds some clean pixels besides.
        corners = torch.minimum(boxes[:, :, 0], torch.tensor(self._grid) - torch.tensor(size))
        receptive_field = self._receptive_field_for(masks, corners, size)
        left = torch.arange(len(masks))
        while len(left):
            plan, measuring = self._plan(size, receptive_field)
            classes = corners[left] % torch.tensor(plan.stride)
            alike = left[(classes == classes[0]).all(1)][
                : min(8, self._chunks.size) if measuring else self._chunks.size
            ]
            began = time.process_time()
            try:
                scores = self._read(*self._outputs(masks[alike], corners[alike], plan))
            except RuntimeError as error:
                if not ran_out_of_memory(error):
                    raise
                self._chunks.halve(len(alike))
                continue
            found = scores.new_empty(len(masks), scores.shape[1]) if found is None else found
            found[alike] = scores
            if measuring and len(alike) == 8:
                self._measured(plan, receptive_field, (time.process_time() - began) / 8)
            elif measuring:
                # Too few of a kind to measure anything; the count of multiplications decides.
                self._measured(plan, receptive_field, plan.work * 1e-9)
            left = left[~torch.isin(left, alike)]
        self._last = plan
        assert found is not None
        return found

    @property
    def way(self) -> str:
        """How the last scores were computed, in words."""
        if self._last is None or not self._last.windows:
            return "whole scans, folded network"
        on_windows, layers = self._state.layers_on_windows(self._last)
        return f"windows, {on_windows} of {layers} layers"

    def stride(self, size: Pair) -> Pair:
        """Boxes of this size are best asked about together when their corners are equal modulo this."""
        return self._plan(size, self._receptive_field.get(size, 1.0))[0].stride

    def _plans(self, size: Pair, receptive_field: float) -> list[Plan]:
        plans = [self._state.plan(size, share, receptive_field) for share in WHOLE_FROM]
        least = min(p.work for p in plans)
        distinct = {p.windows: p for p in plans if p.work <= 1.35 * least}
        return list(distinct.values())

    def _plan(self, size: Pair, receptive_field: float) -> tuple[Plan, bool]:
        """The quickest plan so far, or one that is still to be measured."""
        plans, seconds = self._plans(size, receptive_field), self._seconds
        if len(plans) == 1:
            return plans[0], False
        times = {i: seconds.get(self._key(p, receptive_field), []) for i, p in enumerate(plans)}
        for i, have in times.items():
            if len(have) < 2:
                return plans[i], True
        return plans[min(times, key=lambda i: min(times[i]))], False

    def _measured(self, plan: Plan, receptive_field: float, seconds: float) -> None:
        self._seconds.setdefault(self._key(plan, receptive_field), []).append(seconds)

    def _key(self, plan: Plan, receptive_field: float) -> tuple[object, ...]:
        return (plan.size, receptive_field, len(plan.windows), self._grid, self._layers)

    def _outputs(self, masks: Tensor, corners: Tensor, plan: Plan) -> Raw:
        return self._run_on(self._removed(masks, corners if plan.windows else None, plan.size), corners, plan)

    def _receptive_field_for(self, masks: Tensor, corners: Tensor, size: Pair) -> float:
        """How far the windows may be cut within the tolerance, judged on a sample that is computed both ways."""
        if self._tolerance is None:
            return 1.0
        if size not in self._receptive_field:
            # Of one alignment, so that they go through in one batch.
            stride = torch.tensor(self._state.plan(size, 2.0).stride)
            classes, counts = torch.unique(corners % stride, dim=0, return_counts=True)
            (alike,) = (corners % stride == classes[counts.argmax()]).all(1).nonzero(as_tuple=True)
            if len(alike) < 4:
                return 1.0
            which = alike[torch.linspace(0, len(alike) - 1, min(SAMPLE, len(alike))).long()]

            def through(receptive_field: float) -> tuple[Tensor, Tensor]:
                plan = min((self._state.plan(size, s, receptive_field) for s in WHOLE_FROM), key=lambda p: p.work)
                parts = which.split(self._chunks.size)
                raws = [self._outputs(masks[part], corners[part], plan) for part in parts]
                return torch.cat([self._read(*raw)[:, 0] for raw in raws]), torch.cat([raw[0] for raw in raws])

            exact, whole = through(1.0)
            if not bool((whole.std(0) > 0).any()):
                # Patches that change nothing, as in a black margin, say nothing about how far changes reach.
                return 1.0
            self._receptive_field[size] = 1.0
            self.facts = {"receptive field": 1.0, "estimated error": 0.0, "error of the sample (rms)": 0.0}
            for receptive_field in RECEPTIVE_FIELDS:
                scores, outputs = through(receptive_field)
                error = scores - exact
                worst, typical = float(error.abs().max()), float(error.square().mean().sqrt())
                # An error well below the differences between the patches leaves their ranking as it is. The outputs
                # are compared too, because a saturated score hides every error.
                ranked = typical <= SMALL * float(exact.std())
                ranked = ranked and bool(((outputs - whole).square().mean(0).sqrt() <= SMALL * whole.std(0)).all())
                if worst > self._tolerance or not ranked:
                    break
                self._receptive_field[size] = receptive_field
                self.facts = {
                    "receptive field": receptive_field,
                    "estimated error": worst,
                    "error of the sample (rms)": typical,
                }
        return self._receptive_field[size]
