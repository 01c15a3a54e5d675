"""Teaching a copy of a classifier to answer from a part of the scan: what ``removal="surrogate"`` asks.

For scans x of the training and masks m of every kind (:mod:`lucency.explainers.holes`) the copy g is to say of what is
left what the classifier f says of the whole:

    minimise over g:  mean over x, m of  D( f(x), g(x where m, hidden elsewhere) )

with the cross-entropy for D, or the squared error for numbers. The least possible value is where g gives the mean of
f(x) over all scans with these visible pixels (Covert, Lundberg & Lee, JMLR 2021, equation 28).

Where every scan x has a healthy twin x', as simulated patients have, what is hidden can count as healthy instead:

    minimise over g:  mean over x, m of  D( f(x where m, x' elsewhere), g(x where m, hidden elsewhere) )

which is a surrogate of what :mod:`lucency.metrics.gold` calls the true effect of a region. The twin leaves little to
guess, so D is then the distance of the logits, of each hole and between the holes of one scan.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lucency.classifier import Classifier
from lucency.errors import LucencyError, OutputError, ParameterError, ScanError
from lucency.explainers.holes import drawn
from lucency.explainers.training import Item
from lucency.removal.surrogate import HIDDEN, beside, written
from lucency.writing import alone, reason, whole

FEWEST = 8
"""Scans that train, at least; and at least a few must be left to measure."""
STATE = "surrogate.training.safetensors"
SHARE_MEASURED = 0.1
KEPT_EVERY = 100
"""Steps that a kill may cost."""


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        steps: batches.
        scans: scans in a batch.
        holes: masks for each scan of a batch.
        rate: largest learning rate.
        focus: share of the loss that the target has, where one is named.
        seed: where every random number comes from.
    """

    steps: int = 3000
    scans: int = 8
    holes: int = 2
    rate: float = 2e-4
    focus: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.scans, self.holes) < 1 or not self.rate > 0 or not 0 <= self.focus <= 1:
            raise ParameterError(f"Steps, scans, holes and rate are above 0 and the focus in 0..1, not {self}.")

    def rate_at(self, step: int) -> float:
        """It rises over the first tenth and falls to nothing along a cosine."""
        done = (step + 1) / self.steps
        return self.rate * min(10 * done, (1 + math.cos(math.pi * max(0.0, done - 0.1) / 0.9)) / 2)


@dataclass(frozen=True)
class Agreement:
    """How far the surrogate does what it is for, on scans that trained nothing.

    Attributes:
        whole: mean distance of its score from the classifier's with nothing hidden; of probabilities, where it has any.
        hidden: the same with holes of every kind.
        before: the same for the classifier itself, shown the holes as the surrogate sees them.
        scans: how many.
    """

    whole: float
    hidden: float
    before: float
    scans: int


@dataclass(frozen=True)
class Trained:
    """How far the training is.

    Attributes:
        done: share of the work, 0..1.
        loss: of the last steps.
    """

    done: float
    loss: float


class Training:
    """A training that can be stopped and goes on from its folder.

    Layers of ``surrogate.network()`` that are to stay as they are can be told so before it is iterated.

    Args:
        classifier: a PyTorch network.
        scans: float32 ``[N, C, *grid]``, scans on the model's grid in display values, which train.
        checked: the same of other patients, which measure.
        folder: where the state is kept; one that holds another training is refused.
        twins: the first of the scans as they would be without a finding; the scans after those are only shown whole.
        twins_checked: the same of those that measure.
        target: index of the class that counts most; all count the same when ``None``.
        plan: how much is done.
        bfloat16: the networks compute in bfloat16 while they train, twice as fast on processors that can.

    Raises:
        QuestionError: for a black box.
        ParameterError: for a classifier that does more than its network.
        ScanError: for too few scans.
    """

    def __init__(
        self,
        classifier: Classifier,
        scans: Tensor,
        checked: Tensor,
        folder: Path,
        *,
        twins: Tensor | None = None,
        twins_checked: Tensor | None = None,
        target: int | None = None,
        plan: Plan | None = None,
        bfloat16: bool = False,
    ) -> None:
        if len(scans) < FEWEST or not len(checked):
            raise ScanError(
                f"A surrogate needs at least {FEWEST} scans to train and one to measure, not {len(scans)} and "
                f"{len(checked)}."
            )
        self.classifier, self.scans, self.checked = classifier, scans, checked
        self.twins, self._twinned = _filled(scans, twins)
        self.twins_checked, self._twinned_checked = _filled(checked, twins_checked)
        self.plan, self.folder, self.target = plan or Plan(), folder, target
        self.surrogate = beside(classifier)
        self.surrogate.network().requires_grad_(True)
        self._average, self._teacher = beside(classifier), beside(classifier)
        self._bfloat16 = bfloat16
        if bfloat16 and scans.ndim == 4:
            for one in (self.surrogate, self._teacher):
                one.network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._spread = 1.0
        if classifier.measures:
            some = self._all(classifier, scans[:64])
            self._spread = float(some.var(0).mean().clamp_min(1e-12))

    def __iter__(self) -> Iterator[Trained]:
        plan, network, average = self.plan, self.surrogate.network(), self._average.network()
        adam = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], plan.rate, weight_decay=1e-4)
        rng = torch.Generator().manual_seed(plan.seed)
        weights = self._weights()
        loss = float("nan")
        for step in range(self._resumed(adam, rng), plan.steps):
            adam.param_groups[0]["lr"] = plan.rate_at(step)
            with torch.enable_grad():
                found = self._loss(rng, weights)
                adam.zero_grad()
                found.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                adam.step()
            with torch.no_grad():
                # Weights averaged over the last part of what was done; early ones are forgotten soon.
                share = max(0.005, 1 / (step + 1))
                for ours, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                    if ours.is_floating_point():
                        ours.lerp_(theirs, share)
            loss = float(found.detach()) if loss != loss else loss + 0.02 * (float(found.detach()) - loss)
            if (step + 1) % KEPT_EVERY == 0 or step + 1 == plan.steps:
                self._keep(step + 1, adam, rng)
            yield Trained((step + 1) / plan.steps, loss)

    def _loss(self, rng: torch.Generator, weights: Tensor) -> Tensor:
        plan = self.plan
        at = torch.randint(len(self.scans), (plan.scans,), generator=rng)
        known = self.scans[at] if self.twins is None else torch.cat([self.scans[at], self.twins[at]], 1)
        seen = varied(known.float().to(self.classifier.device), rng).repeat_interleave(plan.holes, 0)
        masks = drawn(len(seen), seen.shape[2:], rng).to(seen.device)
        with torch.autocast(seen.device.type, torch.bfloat16, enabled=self._bfloat16):
            if self.twins is None:
                with torch.no_grad():
                    wanted = self._said(self._teacher, seen[:: plan.holes]).repeat_interleave(plan.holes, 0)
                apart = self._apart(self.surrogate, hidden_in(seen, masks), wanted)
            else:
                masks[at.repeat_interleave(plan.holes) >= self._twinned] = 1
                seen, twins = seen.chunk(2, 1)
                with torch.no_grad():
                    wanted = self._answers(self._teacher, torch.lerp(twins, seen, masks[:, None]))
                off = self._answers(self.surrogate, hidden_in(seen, masks)) - wanted
                groups = off.view(plan.scans, plan.holes, -1)
                between = (groups - groups.mean(1, keepdim=True)).flatten(0, 1)
                # What a map shows is the difference between holes of one scan.
                apart = _huber(off) + 2 * _huber(between)
        return (apart * weights).sum(1).mean()

    def _weights(self) -> Tensor:
        count = len(self.classifier.classes)
        weights = torch.full((count,), 1 / count)
        # Where classes exclude each other, their weighted cross-entropy is smallest at other probabilities.
        if self.target is not None and count > 1 and not self.classifier.exclusive:
            weights *= 1 - self.plan.focus
            weights[self.target] += self.plan.focus
        return weights.to(self.classifier.device)

    def _said(self, classifier: Classifier, x: Tensor) -> Tensor:
        outputs = classifier(x)
        return classifier.numbers(outputs) if classifier.measures else classifier.probabilities(outputs)

    def _answers(self, classifier: Classifier, x: Tensor) -> Tensor:
        """``[B, K]`` on a scale on which 1 is much: logits, or numbers by how far they spread."""
        outputs = classifier(x)
        if classifier.measures:
            return classifier.numbers(outputs).float() / math.sqrt(self._spread)
        return classifier.logits(outputs).float()

    def _apart(self, surrogate: Classifier, x: Tensor, wanted: Tensor) -> Tensor:
        """``[B, K]``: how far its answers lie from what is wanted."""
        outputs = surrogate(x)
        if surrogate.measures:
            return (surrogate.numbers(outputs) - wanted).square() / self._spread
        logits = surrogate.logits(outputs)
        if surrogate.exclusive and logits.shape[1] > 1:
            # A factor of K, so that the mean over classes is the cross-entropy.
            return -len(surrogate.classes) * wanted * logits.log_softmax(1)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")

    @torch.no_grad()
    def _all(self, classifier: Classifier, scans: Tensor) -> Tensor:
        device = self.classifier.device
        return torch.cat([self._said(classifier, part.float().to(device)) for part in torch.split(scans, 16)])

    def agreement(self) -> Agreement:
        """What was learnt, on the scans that trained nothing."""
        rng = torch.Generator().manual_seed(self.plan.seed + 1)
        masks = drawn(len(self.checked), self.checked.shape[2:], rng)
        column = slice(None) if self.target is None else slice(self.target, self.target + 1)
        whole_said = said = self._all(self.classifier, self.checked)
        if self.twins_checked is not None:
            masks[self._twinned_checked :] = 1
            said = self._all(
                self.classifier, torch.lerp(self.twins_checked.float(), self.checked.float(), masks[:, None])
            )
        holed = hidden_in(self.checked.float(), masks)

        def distance(classifier: Classifier, scans: Tensor, wanted: Tensor) -> float:
            return float((self._all(classifier, scans) - wanted)[:, column].abs().mean())

        return Agreement(
            distance(self._average, self.checked, whole_said),
            distance(self._average, holed, said),
            distance(self.classifier, holed, said),
            len(self.checked),
        )

    def save(self, path: Path, agreement: Agreement) -> None:
        """Writes the surrogate, with what is known about it.

        Raises:
            OutputError: when it cannot be written.
        """
        plan = {key: str(value) for key, value in asdict(self.plan).items()}
        measured = {key: f"{value:.6g}" for key, value in asdict(agreement).items()}
        target = "" if self.target is None else self.classifier.classes[self.target]
        about = {**plan, **measured, "target": target, "trained_on": str(len(self.scans))}
        with whole(path) as part:
            part.write_bytes(written(self._average.network(), self.classifier, about))

    def _keep(
        self,
        step: int,
        adam: torch.optim.Optimizer,
        rng: torch.Generator,
    ) -> None:
        moments = adam.state_dict()["state"]
        state = {
            "step": torch.tensor(step),
            "rng": rng.get_state(),
            "about": torch.frombuffer(bytearray(self._about()), dtype=torch.uint8),
            **{f"now.{k}": v.clone() for k, v in self.surrogate.network().state_dict().items()},
            **{f"mean.{k}": v.clone() for k, v in self._average.network().state_dict().items()},
            **{f"adam.{i}.{k}": v.clone() for i, one in moments.items() for k, v in one.items()},
        }
        with whole(self.folder / STATE) as part:
            save_file({k: v.contiguous() for k, v in state.items()}, part)

    def _resumed(self, adam: torch.optim.Optimizer, rng: torch.Generator) -> int:
        """From which step on; an earlier run's state is taken over."""
        kept = self.folder / STATE
        if not kept.exists():
            return 0
        try:
            state = load_file(kept)
        except (SafetensorError, OSError) as error:
            raise ParameterError(f"{kept} is damaged; remove it and start again.") from error
        if bytes(state["about"].tolist()) != self._about():
            raise ParameterError(
                f"{self.folder} holds the training of another surrogate; remove it or choose another --out."
            )
        for name, classifier in (("now.", self.surrogate), ("mean.", self._average)):
            inside = {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
            classifier.network().load_state_dict(inside)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("adam."):
                _, number, what = key.split(".")
                moments.setdefault(int(number), {})[what] = value
        adam.load_state_dict({"state": moments, "param_groups": adam.state_dict()["param_groups"]})
        rng.set_state(state["rng"])
        return int(state["step"])

    def _about(self) -> bytes:
        """What makes this training the one that it is."""
        data = hashlib.sha256()
        for part in (self.scans, self.twins):
            if part is not None:
                data.update(part.contiguous().numpy().tobytes())
        return json.dumps([self.classifier.fingerprint, self.target, asdict(self.plan), data.hexdigest()]).encode()


def train_from(
    classifier: Classifier,
    items: Sequence[Item],
    out: str | Path,
    target: str | int | None = None,
    plan: Plan | None = None,
    on_progress: Callable[[float, str], None] = lambda share, doing: None,
) -> tuple[Agreement, dict[str, str]]:
    """Trains a surrogate on a collection and writes it; goes on with a training that was stopped.

    Of ten patients nine train and one measures; a hash of the patient decides.

    Args:
        classifier: a PyTorch network.
        items: the scans.
        out: the file; beside it lies ``out.training`` until it is written.
        target: the class that counts most; all count the same when ``None``.
        plan: how much is done.
        on_progress: called with the share done and a few words.

    Returns:
        How far it agrees, and why each scan was left out that was.

    Raises:
        QuestionError: for a black box, or a class that is not there.
        ParameterError: for a classifier that does more than its network, or a folder of another training.
        ScanError: for too few scans.
        OutputError: when it cannot be written.
    """
    out = Path(out)
    folder = out.with_name(out.name + ".training")
    classifier.network()
    which = None if target is None else classifier.index(target)
    scans: dict[bool, list[Tensor]] = {True: [], False: []}
    left_out: dict[str, str] = {}
    for number, item in enumerate(items):
        on_progress(0.05 * number / len(items), f"reading, {number} of {len(items)}")
        try:
            prepared = classifier.prepare(item.read())
        except LucencyError as error:
            left_out[item.name] = str(error)
            continue
        first = next((group[0] for group in scans.values() if group), prepared)
        if prepared.shape != first.shape:
            left_out[item.name] = (
                f"It is {list(prepared.shape)} on the model's grid and the first scan {list(first.shape)}."
            )
            continue
        at = int(hashlib.sha256(f"lucency-surrogate-1/{item.patient}".encode()).hexdigest()[:8], 16) / 16**8
        # Half precision tells 2,000 steps of grey apart, and a thousand scans fit into the memory.
        scans[at < SHARE_MEASURED].append(prepared.half())
    checked, trains = (torch.stack(group) if group else torch.empty(0) for group in (scans[True], scans[False]))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / "lock"):
            training = Training(classifier, trains, checked, folder, target=which, plan=plan)
            for at_step in training:
                words = f"training, loss {at_step.loss:.3f}"
                on_progress(0.05 + 0.9 * at_step.done, words)
            on_progress(0.95, "measuring")
            found = training.agreement()
            training.save(out, found)
    except Timeout as error:
        raise OutputError(f"Another training writes to {out}; wait for it, or choose another --out.") from error
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({reason(error)}); free space or choose another place."
        ) from error
    shutil.rmtree(folder, ignore_errors=True)
    return found, left_out


def _filled(scans: Tensor, twins: Tensor | None) -> tuple[Tensor | None, int]:
    """As many twins as scans, those that are missing by the scan itself; and how many there were."""
    if twins is None:
        return None, 0
    return (twins if len(twins) == len(scans) else torch.cat([twins, scans[len(twins) :]])), len(twins)


def _huber(x: Tensor) -> Tensor:
    return F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none")


def hidden_in(scans: Tensor, masks: Tensor) -> Tensor:
    """Scans ``[B, C, *grid]`` as a surrogate sees them under masks ``[B, *grid]``."""
    return torch.lerp(torch.full_like(scans, HIDDEN), scans, masks[:, None].to(scans))


def varied(scans: Tensor, rng: torch.Generator) -> Tensor:
    """Scans ``[B, C, *grid]`` as they might have been taken too: exposure, contrast, a little moved."""
    count = (len(scans), *(1,) * (scans.ndim - 1))

    def draw(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, generator=rng)).to(scans.device)

    low, high = scans.amin(), scans.amax().clamp_min(1e-6)
    x = ((scans - low) / (high - low)).clamp(0, 1).pow(draw(0.78, 1.28)) * draw(0.85, 1.15) + draw(-0.04, 0.04)
    x = low + (high - low) * x.clamp(0, 1)
    moved = []
    for one in x:
        by = [int(n * 0.05 * (2 * float(torch.rand((), generator=rng)) - 1)) for n in one.shape[1:]]
        moved.append(one.roll(by, tuple(range(1, one.ndim))))
    return torch.stack(moved)
