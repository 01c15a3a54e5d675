"""Questions by hand: this region removed, or everything else, and the probabilities of all classes before and after.

Questions that come within a few milliseconds are answered together: those about one scan in one call of its probe, on
windows where that is faster, and those about several scans in one forward pass. They are worked on between the steps of
whatever else the device does, so they wait for one step at most.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
import numpy as np
import torch
from fastapi import APIRouter, Response
from numpy.typing import NDArray
from torch import Tensor

from lucency.classifier import Placement, Question
from lucency.engine import Probe
from lucency.errors import LucencyError, ParameterError
from lucency.removal import Blur, Healthy, Removal
from lucency.scan import Scan
from lucency.serve.benches import Bench, Benches
from lucency.serve.common import BINARY, Shop, User
from lucency.serve.errors import BusyError
from lucency.serve.schemas import Answer, Ask, Box, Region, ScoresWanted
from lucency.serve.turns import Turns
from lucency.serve.workshop import place_of
from lucency.viewer import pack

router = APIRouter(tags=["ask"])

PROBES = 12
"""Scans that stand ready to be asked about."""
MOST = 64
"""Questions that may wait."""
WARM = 4
"""Masks that make a probe find its fastest way."""


@dataclass(eq=False)
class _Asked:
    ask: Ask
    scan: Scan
    mask: Tensor
    came: float
    future: Future[Answer] = field(default_factory=Future)


@dataclass(eq=False)
class _Ready:
    """A probe, and what it read on the clean scan."""

    probe: Probe
    removal: Removal
    clean: dict[str, float]


class ByHand:
    """Answers small questions between the steps of whatever else the device does.

    Args:
        told: called with how many questions were answered together, and the seconds of work.
    """

    def __init__(self, benches: Benches, turns: Turns, told: Callable[[int, float], None]) -> None:
        self._benches, self._turns, self._told = benches, turns, told
        self._lock = threading.Lock()
        self._asked: list[_Asked] = []
        self._ready: OrderedDict[tuple[str, str, str], _Ready] = OrderedDict()
        turns.between.append(self._answer)

    def ask(self, ask: Ask, scan: Scan) -> Future[Answer]:
        if (ask.remove is None) == (ask.keep is None):
            raise ParameterError("Say what to remove or what to keep, one of the two.")
        bench = self._benches[ask.model]
        if ask.removal is not None:
            Removal.of(ask.removal)
        if len(scan.shape) != 2:
            raise ParameterError("Regions are removed from flat scans only; open one slice of the volume by itself.")
        region = self._mask(ask.remove or ask.keep, scan, bench, ask)
        if not region.any():
            raise ParameterError("The region holds no pixel of the scan; draw it on the film.")
        removed = region if ask.remove is not None else ~region
        left = torch.from_numpy((~removed).astype(np.float32))
        kept = bench.classifier.placement(scan).to_grid(left[None])[0].clamp(0, 1)
        asked = _Asked(ask, scan, kept, time.perf_counter())
        with self._lock:
            if len(self._asked) >= MOST:
                raise BusyError("Too many questions wait; try again in 1 s.", 1)
            self._asked.append(asked)
        self._turns.wake()
        return asked.future

    def warm(self, model: str, scan: Scan, user: str) -> None:
        self._probe((scan.sha256, model, "auto"), scan)

    def forget(self, scan: str) -> None:
        for key in [key for key in list(self._ready) if key[0] == scan]:
            self._ready.pop(key, None)

    def _mask(self, region: Region | None, scan: Scan, bench: Bench, ask: Ask) -> NDArray[np.bool_]:
        """Bool ``[H, W]`` on the scan."""
        assert region is not None
        given = [name for name, value in region if value is not None]
        if len(given) != 1:
            raise ParameterError("A region is one of rectangle, ellipse, mask and superpixel.")
        height, width = scan.shape
        if region.mask is not None:
            if (region.mask.height, region.mask.width) != (height, width):
                raise ParameterError(
                    f"The mask has {region.mask.width} x {region.mask.height} pixels and the scan {width} x {height}."
                )
            return region.mask.array()
        if region.superpixel is not None:
            labels = self._benches.labels(ask.model, scan)
            if region.superpixel > int(labels.max()):
                raise ParameterError(f"There are superpixels 0 to {int(labels.max())}, and no {region.superpixel}.")
            frame = bench.classifier.placement(scan)
            return np.asarray(_on_scan(labels, frame) == region.superpixel)
        box = region.rectangle or region.ellipse
        assert box is not None
        return _drawn(box, height, width, round=region.ellipse is not None)

    # On the device's thread ------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        if not self._asked:
            return
        time.sleep(self._benches.settings.window)
        with self._lock:
            asked, self._asked = self._asked, []
        by_model: dict[str, list[_Asked]] = {}
        for one in asked:
            if one.future.set_running_or_notify_cancel():
                by_model.setdefault(one.ask.model, []).append(one)
        for model, group in by_model.items():
            try:
                self._together(self._benches[model], group)
            except BaseException as error:
                # Whoever waits is told, and the thread lives on.
                for one in group:
                    if not one.future.done():
                        one.future.set_exception(error)

    def _together(self, bench: Bench, group: list[_Asked]) -> None:
        began = time.perf_counter()
        ready: list[tuple[_Asked, _Ready]] = []
        for one in group:
            try:
                key = (one.ask.scan, one.ask.model, one.ask.removal or "auto")
                ready.append((one, self._probe(key, one.scan)))
            except LucencyError as error:
                one.future.set_exception(error)
        started = time.perf_counter()
        if not ready:
            return
        scans = torch.cat([r.probe.removed(one.mask[None]) for one, r in ready])
        by_probe: dict[int, list[int]] = {}
        for i, (_, r) in enumerate(ready):
            by_probe.setdefault(id(r.probe), []).append(i)
        found = torch.empty(len(ready), len(bench.classifier.classes))
        windows = [which for which in by_probe.values() if self._small(bench, [ready[i][0].mask for i in which])]
        for which in windows:
            probe = ready[which[0]][1].probe
            masks = torch.stack([ready[i][0].mask for i in which])
            found[which] = probe.scores(masks, _boxes(masks)).cpu()
        if whole := [i for i in range(len(ready)) if not any(i in which for which in windows)]:
            found[whole] = ready[whole[0]][1].probe.scores_of(scans[whole]).cpu()
        p = None if bench.known is None else bench.known.p_values(scans)
        seconds = time.perf_counter() - started
        self._told(len(ready), seconds)
        for i, (one, r) in enumerate(ready):
            one.future.set_result(
                Answer(
                    clean=r.clean,
                    perturbed=dict(zip(r.clean, found[i].tolist(), strict=True)),
                    milliseconds=1000 * seconds,
                    waited=1000 * (began - one.came),
                    out_of_distribution=None if p is None else float(p[i]),
                    removal=r.removal.name,
                    area=1 - float(one.mask.mean()),
                    engine=str(r.probe.facts["engine"]),
                )
            )

    @staticmethod
    def _small(bench: Bench, masks: list[Tensor]) -> bool:
        """Whether what is removed lies in boxes that windows are worth it for."""
        if not bench.engine.windows:
            return False
        boxes = _boxes(torch.stack(masks))
        return bool((boxes[:, :, 1] - boxes[:, :, 0]).float().prod(1).max() < 0.25 * masks[0].numel())

    def _probe(self, key: tuple[str, str, str], scan: Scan) -> _Ready:
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        bench = self._benches[key[1]]
        classifier = bench.classifier
        chest = bench.known is not None and classifier.reference is None and len(scan.pixels) == 1
        removal = Removal.of(key[2]) if key[2] != "auto" else Healthy() if chest else Blur()
        watch = "number" if classifier.measures else "probability"
        first, *rest = [Question(i, name, watch) for i, name in enumerate(classifier.classes)]
        probe = bench.engine.open(scan, first, removal, rest)
        # It finds its fastest way before anybody waits for it.
        masks = torch.ones(WARM, *probe.grid)
        rows, columns = (n // 8 for n in probe.grid)
        masks[:, rows : 2 * rows, columns : 2 * columns] = 0
        if bench.engine.windows:
            probe.scores(masks, _boxes(masks))
        else:
            probe.scores(masks)
        if bench.known is not None:
            bench.known.p_values(probe.pixels[None])
        clean = dict(zip(classifier.classes, probe.clean.tolist(), strict=True))
        self._ready[key] = _Ready(probe, removal, clean)
        while len(self._ready) > PROBES:
            self._ready.popitem(last=False)
        return self._ready[key]


def _boxes(masks: Tensor) -> Tensor:
    """Where masks ``[B, H, W]`` leave something out: int64 ``[B, 2, 2]``, start and stop along each axis."""
    boxes = []
    for mask in masks:
        gone = (mask < 1).nonzero()
        low, high = (gone.amin(0), gone.amax(0) + 1) if len(gone) else (torch.zeros(2).long(), torch.ones(2).long())
        boxes.append(torch.stack([low, high], 1))
    return torch.stack(boxes)


def _on_scan(labels: Tensor, placement: Placement) -> NDArray[np.int64]:
    """Pieces on the model's grid, at each pixel of the scan; -1 where the model does not look."""
    axes = []
    for n, g, (before, after) in zip(placement.scan_shape, placement.grid, placement.margins, strict=True):
        place = ((np.arange(n) + before + 0.5) * g / (n + before + after)).astype(int)
        axes.append(np.where((place >= 0) & (place < g), place, -1))
    found: NDArray[np.int64] = labels.numpy()[np.ix_(*axes)].copy()
    found[axes[0] < 0] = -1
    found[:, axes[1] < 0] = -1
    return found


def _drawn(box: Box, height: int, width: int, round: bool) -> NDArray[np.bool_]:
    """Bool ``[H, W]``: the pixels whose centres lie inside."""
    (top, bottom), (left, right) = box.rows, box.columns
    if not (np.isfinite([top, bottom, left, right]).all() and top < bottom and left < right):
        raise ParameterError("A box is rows [from, to) and columns [from, to), each beginning before it ends.")
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    if round:
        across = ((y - (top + bottom) / 2) / ((bottom - top) / 2)) ** 2
        return np.asarray(across + ((x - (left + right) / 2) / ((right - left) / 2)) ** 2 <= 1)
    return np.asarray((y > top) & (y < bottom) & (x > left) & (x < right))


@router.post("/ask")
async def ask(wanted: Ask, shop: Shop, user: User) -> Answer:
    """Removes a region, or keeps only it, and says what the classifier makes of that."""
    future = await anyio.to_thread.run_sync(shop.ask, wanted)
    return await asyncio.wrap_future(future)


@router.post("/superpixels", response_class=Response, responses={200: {"content": {BINARY: {}}}})
def superpixels(wanted: ScoresWanted, shop: Shop) -> Response:
    """The superpixels that can be asked about, packed: ``labels`` uint16 on the model's grid, and where it lies."""
    classifier, scan = shop.benches[wanted.model].classifier, shop.scan(wanted.scan)
    if len(scan.shape) != 2:
        raise ParameterError("Superpixels are cut on flat scans only; open one slice of the volume by itself.")
    labels = shop.benches.labels(wanted.model, scan)
    header: dict[str, Any] = {
        "count": int(labels.max()) + 1,
        "place": place_of(classifier.placement(scan).margins, scan.shape),
    }
    return Response(pack(header, {"labels": labels.numpy().astype(np.uint16)}), media_type=BINARY)
