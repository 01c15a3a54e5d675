"""Teaching a decoder what a slow method would say, from a few dozen looks at each scan.

Three parts of the patients never meet: those of the first train, those of the second calibrate the band and the
distance, those of the third measure whether these hold. Looks are drawn once for a scan and kept: a pass of the decoder
costs so much less than a pass of the classifier that throwing looks away after one epoch would be a waste.

Everything lies in a folder beside the output until the output is written, so that a training that was stopped goes on
where it was.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lucency.asking import undisturbed
from lucency.engine import Engine
from lucency.errors import LucencyError, OutputError, ParameterError, ScanError
from lucency.explainers.decoder import Decoder, Grid
from lucency.explainers.learnt import (
    COVERAGE,
    FAR,
    Learnt,
    Trust,
    conformal,
    context,
    distances,
    fitted_maps,
    pooled,
    pooled_conformal,
    usual_of,
)
from lucency.explainers.taps import Tap, find_taps
from lucency.explainers.teachers import Looks, Teacher
from lucency.scan import Scan
from lucency.writing import alone, reason, whole

PARTS = ("train", "calibrate", "measure")
SHARES = (0.8, 0.1, 0.1)
FEWEST = (8, 20, 0)
"""Scans of each part without which there is nothing to learn, or no band."""
SAVE_AFTER = 30.0
"""Seconds of work that a kill may cost."""
FLOOR = 0.1
"""Scans on which next to nothing happens count as if this share of what usually happens did."""
BATCH = 16
RATE = 2e-3

OnProgress = Callable[[float, str], None]


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        looks: evaluations of the classifier for each scan that trains.
        checks: for each scan that calibrates or measures.
        epochs: passes over the scans.
        seed: where every random number comes from.
    """

    looks: int = 96
    checks: int = 96
    epochs: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.looks, self.checks) < 4 or self.epochs < 1:
            raise ParameterError(
                f"Training needs at least 4 looks and checks a scan and 1 epoch, not {self.looks}, {self.checks} and "
                f"{self.epochs}."
            )


@dataclass(frozen=True)
class Item:
    """A scan of the collection: a name that tells it from the others, whose it is, and how it is read."""

    name: str
    patient: str
    read: Callable[[], Scan]


def part_of(patient: str) -> str:
    """Which part a patient is in; a hash decides, so a scan that is added later never moves another."""
    at = int(hashlib.sha256(f"lucency-explainer-1/{patient}".encode()).hexdigest()[:12], 16) / 16**12
    return PARTS[0] if at < SHARES[0] else PARTS[1] if at < SHARES[0] + SHARES[1] else PARTS[2]


@undisturbed()
def train(
    engine: Engine,
    target: str | int,
    teacher: Teacher,
    items: Sequence[Item],
    out: str | Path,
    plan: Plan | None = None,
    on_progress: OnProgress = lambda share, doing: None,
) -> tuple[Learnt, dict[str, str]]:
    """Trains an explainer, calibrates it, and writes it to ``out``.

    Args:
        engine: runs the classifier.
        target: the class, by name or index.
        teacher: the slow method.
        items: the scans; all of one size on the model's grid.
        out: the file; beside it lies ``out.training`` until it is written.
        plan: how much is done.
        on_progress: called with the share done and a few words, the time that is left among them.

    Returns:
        The explainer, and why each scan was left out that was.

    Raises:
        QuestionError: when the classifier has no feature maps to read, or no such class.
        ScanError: when there are too few scans.
        ParameterError: when the folder holds another training.
        OutputError: when it cannot be written.
    """
    out = Path(out)
    work = out.with_name(out.name + ".training")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            held.enter_context(alone(work / "lock"))
            run = _Training(engine, target, teacher, items, work, plan or Plan(), on_progress)
            learnt = run.learnt()
    except Timeout as error:
        raise OutputError(f"Another training writes to {out}; wait for it, or choose another --out.") from error
    except OSError as error:
        raise OutputError(f"{work} cannot be written ({reason(error)}); free space or choose another place.") from error
    learnt.save(out)
    shutil.rmtree(work, ignore_errors=True)
    return learnt, run.left_out


class _Clock:
    """How long the rest will take, from how long the work so far took."""

    def __init__(self, on_progress: OnProgress, doing: str, start: float, stop: float, total: int) -> None:
        self._say, self._doing, self._start, self._stop, self._total = on_progress, doing, start, stop, total
        self._began, self._first = time.monotonic(), 0

    def begun_at(self, done: int) -> None:
        """What an earlier run has done says nothing about how long the rest takes."""
        self._first = done

    def __call__(self, done: int) -> None:
        each = (time.monotonic() - self._began) / max(1, done - self._first)
        left = each * (self._total - done)
        words = f"{self._doing}, {done} of {self._total}, {_minutes(left)} left"
        self._say(self._start + (self._stop - self._start) * done / max(1, self._total), words)


def _minutes(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class _Training:
    def __init__(
        self,
        engine: Engine,
        target: str | int,
        teacher: Teacher,
        items: Sequence[Item],
        work: Path,
        plan: Plan,
        on_progress: OnProgress,
    ) -> None:
        self.engine, self.teacher, self.work, self.plan, self.say = engine, teacher, work, plan, on_progress
        classifier = engine.classifier
        classifier.network()
        self.target = classifier.index(target)
        self.left_out: dict[str, str] = {}
        self.items = {part: [i for i in items if part_of(i.patient) == part] for part in PARTS}
        self.taps: tuple[Tap, ...] = ()
        self.grid: Grid = ()
        self._same_as_before()

    def _same_as_before(self) -> None:
        """A folder goes on with what was begun in it, and with nothing else."""
        names = hashlib.sha256("\n".join(f"{p}/{i.name}" for p in PARTS for i in self.items[p]).encode()).hexdigest()
        asked = {
            "model": self.engine.classifier.fingerprint,
            "target": self.target,
            "teacher": repr(self.teacher),
            "plan": asdict(self.plan),
            "scans": names,
        }
        file = self.work / "plan.json"
        if file.exists():
            begun = json.loads(file.read_text())
            if begun != asked:
                other = ", ".join(k for k in asked if begun.get(k) != asked[k])
                raise ParameterError(
                    f"{self.work} holds a training with another {other}; remove it, or choose another --out."
                )
        else:
            with whole(file) as part:
                part.write_text(json.dumps(asked))

    def learnt(self) -> Learnt:
        """All of it."""
        train = self._looked_at("train", 0.0, 0.6)
        calibrate = self._looked_at("calibrate", 0.6, 0.66)
        measure = self._looked_at("measure", 0.66, 0.7)
        for part, few, found in zip(PARTS, FEWEST, (train, calibrate, measure), strict=True):
            if len(found.clean) < few:
                raise ScanError(
                    f"Only {len(found.clean)} scans came into the part that is to {part} (8 in 10 patients train, 1 "
                    f"calibrates, 1 measures), and {few} are needed; give more scans."
                )
        decoder = self._fitted(train)
        learnt = Learnt(
            self.teacher,
            self.target,
            self.engine.classifier.classes[self.target],
            (self.engine.classifier.name, self.engine.classifier.fingerprint),
            self.taps,
            decoder,
            usual_of(self._pooled(decoder, train)),
            Trust(),
            self._history(train, calibrate, measure),
        )
        return replace(learnt, trust=self._trust(learnt, calibrate, measure))

    def _history(self, *parts: _Part) -> dict[str, Any]:
        about: dict[str, Any] = {"plan": asdict(self.plan), "split": "by patient, 8 : 1 : 1"}
        for part, found in zip(PARTS, parts, strict=True):
            kept = [i for i in self.items[part] if i.name not in self.left_out]
            about[part] = {
                "scans": len(kept),
                "patients": len({i.patient for i in kept}),
                "sha256": hashlib.sha256("\n".join(sorted(i.name for i in kept)).encode()).hexdigest(),
                "looks or places": int(found.scores.shape[1]) * len(kept) if len(kept) else 0,
            }
        return about

    def _looked_at(self, part: str, start: float, stop: float) -> _Part:
        """Feature maps, clean scores and looks of the scans of one part; drawn where an earlier run did not."""
        store = _Store(self.work, part)
        items = self.items[part]
        clock = _Clock(self.say, f"looking at the scans to {part}", start, stop, len(items))
        clock.begun_at(store.done)
        try:
            saved = time.monotonic()
            for number in range(store.done, len(items)):
                item = items[number]
                try:
                    store.add(*self._look(item, part))
                except LucencyError as error:
                    store.skip(item.name, str(error))
                clock(number + 1)
                if time.monotonic() - saved > SAVE_AFTER:
                    store.save()
                    saved = time.monotonic()
        finally:
            # After Ctrl-C too.
            store.save()
            store.close()
        self.left_out |= store.skipped
        if not self.taps and store.count:
            # Everything lies there already: the taps are found on a scan again.
            first = next(i for i in items if i.name not in store.skipped)
            self._met(self.engine.classifier.prepare(first.read())[None])
        return store.part()

    def _met(self, x: Tensor) -> None:
        if not self.taps:
            self.taps = find_taps(self.engine.classifier, x.to(self.engine.device))
            self.grid = tuple(x.shape[2:])
        elif tuple(x.shape[2:]) != self.grid:
            raise ScanError(f"It is of another size than the first scan, {self.grid}; cut them alike.")

    def _look(self, item: Item, part: str) -> tuple[list[Tensor], float, Tensor, Tensor]:
        scan, engine = item.read(), self.engine.remembering()
        self._met(engine.classifier.prepare(scan)[None])
        pixels, (_, heard) = engine.clean(scan, [tap.name for tap in self.taps])
        generator = torch.Generator().manual_seed(_seed(self.plan.seed, item.name))
        probe = engine.open(scan, engine.question(scan, self.target), self.teacher.removal_for(pixels))
        maps = fitted_maps([tap.maps(heard[tap.name]) for tap in self.taps], self.teacher.lattice(self.grid))
        small = [m[0].to("cpu", torch.float16) for m in maps]
        if part == "train":
            looks = self.teacher.looks(probe, self.plan.looks, generator)
            return small, float(probe.clean[0]), looks.pieces, looks.scores
        places, values = self.teacher.checked(probe, self.plan.checks, generator)
        return small, float(probe.clean[0]), places.to(torch.int32), values

    def _fitted(self, part: _Part) -> Decoder:
        """The decoder after all epochs, its weights as half precision will keep them."""
        generator = torch.Generator().manual_seed(self.plan.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.plan.seed)
            decoder = Decoder([tap.channels for tap in self.taps], len(self.grid))
        some = torch.randperm(len(part.clean), generator=generator)[:64]
        usual = self._usual_signal(part)
        decoder.prepare(part.maps(some), math.sqrt(usual))
        if len(self.grid) == 2:
            _laid_out(decoder, torch.channels_last)
        average = copy.deepcopy(decoder)
        half = self._half_is_quicker(decoder, part, some[:BATCH], usual)
        adam = torch.optim.AdamW(decoder.parameters(), lr=RATE, weight_decay=1e-2)
        steps = self.plan.epochs * math.ceil(len(part.clean) / BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, steps + 1, pct_start=0.1)
        began = self._restored(decoder, average, adam, schedule, generator)
        clock = _Clock(self.say, "epochs", 0.7, 1.0, self.plan.epochs)
        clock.begun_at(began)
        saved = time.monotonic()
        for epoch in range(began, self.plan.epochs):
            for which in torch.split(torch.randperm(len(part.clean), generator=generator), BATCH):
                loss = self._loss(decoder, part, which, usual, half)
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
                adam.step()
                schedule.step()
                with torch.no_grad():
                    keep = max(0.01, 1 / (1 + schedule.last_epoch))
                    for ours, theirs in zip(average.parameters(), decoder.parameters(), strict=True):
                        ours.lerp_(theirs, keep)
            clock(epoch + 1)
            if time.monotonic() - saved > SAVE_AFTER or epoch + 1 == self.plan.epochs:
                self._kept(decoder, average, adam, schedule, generator, epoch + 1)
                saved = time.monotonic()
        with torch.no_grad():
            for parameter in average.parameters():
                parameter.copy_(parameter.half().float())
        _laid_out(average, torch.contiguous_format)
        return average.eval().requires_grad_(False)

    def _half_is_quicker(self, decoder: Decoder, part: _Part, which: Tensor, usual: float) -> bool:
        """Whether a step takes less time in bfloat16, which some processors have instructions for."""

        def seconds(half: bool) -> float:
            # The first of them sets things up.
            times = []
            for _ in range(3):
                began = time.process_time()
                self._loss(decoder, part, which, usual, half).backward()  # type: ignore[no-untyped-call]
                times.append(time.process_time() - began)
            return min(times)

        return seconds(True) < 0.8 * seconds(False)

    def _loss(self, decoder: Decoder, part: _Part, which: Tensor, usual: float, half: bool) -> Tensor:
        clean = part.clean[which]
        maps = part.maps(which)
        if len(self.grid) == 2:
            maps = [one.contiguous(memory_format=torch.channels_last) for one in maps]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            raw = decoder(maps, context(clean), self.teacher.lattice(self.grid)).float()
        looks = Looks(part.pieces[which], part.scores[which])
        wrong, expected, signal = self.teacher.compared(self.teacher.said(raw, clean), looks, clean)
        scale = signal + (FLOOR**2) * usual + 1e-12
        value = (wrong.square().mean(1) / scale).mean()
        if (inner := self.teacher.inwardly(raw, looks, clean)) is not None:
            value = value + (inner[0].square().mean(1) / (inner[1] + FLOOR**2)).mean()
        # Laplace's likelihood of the errors; the value learns nothing from it.
        expected = expected + 1e-3 * scale.sqrt()[:, None]
        error = (wrong.detach().abs() / expected + expected.log() - 0.5 * scale.log()[:, None]).mean()
        return value + 0.05 * error

    def _usual_signal(self, part: _Part) -> float:
        """The mean square of what there is to say, over the scans."""
        lattice = self.teacher.lattice(self.grid)
        signals = []
        for which in torch.split(torch.arange(len(part.clean)), 64):
            clean = part.clean[which]
            nothing = self.teacher.said(torch.zeros(len(which), 2, *lattice), clean)
            signals.append(self.teacher.compared(nothing, Looks(part.pieces[which], part.scores[which]), clean)[2])
        return float(torch.cat(signals).mean())

    def _pooled(self, decoder: Decoder, part: _Part) -> Tensor:
        with torch.inference_mode():
            found = [pooled(decoder, part.maps(w)) for w in torch.split(torch.arange(len(part.clean)), 64)]
        return torch.cat(found).clone()

    def _trust(self, learnt: Learnt, calibrate: _Part, measure: _Part) -> Trust:
        factor = pooled_conformal(self._errors(learnt, calibrate), COVERAGE)
        threshold = conformal(distances(learnt.usual, self._pooled(learnt.decoder, calibrate)), 1 - FAR)
        if not math.isfinite(threshold):
            # Too few scans for one in a hundred: the farthest of them.
            threshold = float(distances(learnt.usual, self._pooled(learnt.decoder, calibrate)).max())
        covered, far = math.nan, math.nan
        if len(measure.clean):
            covered = float(torch.stack([(e <= factor).float().mean() for e in self._errors(learnt, measure)]).mean())
            far = float((distances(learnt.usual, self._pooled(learnt.decoder, measure)) > threshold).float().mean())
        return Trust(factor, covered, threshold, far, (len(calibrate.clean), len(measure.clean)))

    def _errors(self, learnt: Learnt, part: _Part) -> list[Tensor]:
        """At the places of each scan where the map is known, how many expected errors the value is off."""
        plain, found = replace(learnt, trust=Trust(factor=1.0)), []
        for i in range(len(part.clean)):
            prediction = plain.predicted(part.maps(torch.tensor([i])), float(part.clean[i]), self.grid)
            places = part.pieces[i].long()
            off = (prediction.heatmap.flatten()[places] - part.scores[i]).abs()
            found.append(off / prediction.band.flatten()[places].clamp_min(1e-12))
        return found

    def _kept(self, decoder: Any, average: Any, adam: Any, schedule: Any, generator: Any, epoch: int) -> None:
        state = {
            "decoder": decoder.state_dict(),
            "average": average.state_dict(),
            "adam": adam.state_dict(),
            "schedule": schedule.state_dict(),
            "generator": generator.get_state(),
            "epoch": epoch,
        }
        with whole(self.work / "epochs.pt") as place:
            torch.save(state, place)

    def _restored(self, decoder: Any, average: Any, adam: Any, schedule: Any, generator: Any) -> int:
        file = self.work / "epochs.pt"
        if not file.exists():
            return 0
        state = torch.load(file, weights_only=True)
        for name, thing in (("decoder", decoder), ("average", average), ("adam", adam), ("schedule", schedule)):
            thing.load_state_dict(state[name])
        generator.set_state(state["generator"])
        return int(state["epoch"])


def _laid_out(decoder: Decoder, layout: torch.memory_format) -> None:
    """Lays the weights out anew; values stay."""
    for parameter in decoder.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _seed(seed: int, name: str) -> int:
    return int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:12], 16)


@dataclass(frozen=True, eq=False)
class _Part:
    """What is known of the scans of one part.

    Attributes:
        features: of each tap float16 ``[N, K, *spatial]``, on the disk.
        clean: float32 ``[N]``.
        pieces, scores: of the looks ``[N, n, ...]`` and ``[N, n]``; where a part does not train, places and the map
            there.
    """

    features: Sequence[Any]
    clean: Tensor
    pieces: Tensor
    scores: Tensor

    def maps(self, which: Tensor) -> list[Tensor]:
        """The feature maps of some scans, float32."""
        return [torch.from_numpy(np.ascontiguousarray(f[which.numpy()])).float() for f in self.features]


class _Store:
    """What was found out about the scans of one part, on the disk: maps in plain files that grow, the rest in one."""

    def __init__(self, work: Path, part: str) -> None:
        self._work, self._part = work, part
        self.skipped: dict[str, str] = {}
        self._clean: list[float] = []
        self._pieces: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._shapes: list[list[int]] = []
        file = self._rest
        if file.exists():
            try:
                kept = load_file(file)
            except SafetensorError as error:
                raise OutputError(f"{file} is damaged; remove the folder {work} to begin anew.") from error
            about = json.loads(self._about.read_text())
            self.skipped, self._shapes = about["skipped"], about["shapes"]
            self._clean = kept["clean"].tolist()
            self._pieces, self._scores = list(kept["pieces"]), list(kept["scores"])
        self._files: list[Any] = []

    @property
    def _rest(self) -> Path:
        return self._work / f"{self._part}.safetensors"

    @property
    def _about(self) -> Path:
        return self._work / f"{self._part}.json"

    def _maps(self, i: int) -> Path:
        return self._work / f"{self._part}-{i}.maps"

    @property
    def count(self) -> int:
        return len(self._clean)

    @property
    def done(self) -> int:
        return self.count + len(self.skipped)

    def add(self, maps: list[Tensor], clean: float, pieces: Tensor, scores: Tensor) -> None:
        if not self._shapes:
            self._shapes = [list(m.shape) for m in maps]
        if not self._files:
            for i, shape in enumerate(self._shapes):
                # Whatever was written after the last save is written again.
                size = 2 * math.prod(shape) * self.count
                self._maps(i).touch()
                file = self._maps(i).open("r+b")
                file.truncate(size)
                file.seek(size)
                self._files.append(file)
        for file, one in zip(self._files, maps, strict=True):
            file.write(one.contiguous().numpy().tobytes())
        self._clean.append(clean)
        self._pieces.append(pieces)
        self._scores.append(scores)

    def skip(self, name: str, why: str) -> None:
        self.skipped[name] = why

    def save(self) -> None:
        for file in self._files:
            file.flush()
        if self.count:
            n = min(len(s) for s in self._scores)
            kept = {
                "clean": torch.tensor(self._clean),
                # As many of each: a scan at whose places a few patches fewer lie has a few places more.
                "pieces": torch.stack([p[:n] for p in self._pieces]),
                "scores": torch.stack([s[:n] for s in self._scores]),
            }
            with whole(self._about) as place:
                place.write_text(json.dumps({"skipped": self.skipped, "shapes": self._shapes}))
            with whole(self._rest) as place:
                save_file(kept, place)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def part(self) -> _Part:
        if not self.count:
            return _Part([], torch.zeros(0), torch.zeros(0, 0), torch.zeros(0, 0))
        features = [
            np.memmap(self._maps(i), np.float16, "r", shape=(self.count, *shape))
            for i, shape in enumerate(self._shapes)
        ]
        n = min(len(s) for s in self._scores)
        pieces = torch.stack([p[:n] for p in self._pieces])
        return _Part(features, torch.tensor(self._clean), pieces, torch.stack([s[:n] for s in self._scores]))
