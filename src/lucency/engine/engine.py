"""From "this scan with these pieces removed, in this sense" to scores.

Methods never loop over forward passes: they open a :class:`Probe` and ask it for the scores of masks, so that
every speed-up reaches every method.
"""

from __future__ import annotations

import copy
import math
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, fx, nn

from lucency.asking import asking, one_at_a_time
from lucency.classifier import Classifier, Layer, Question
from lucency.engine.chunks import Chunks
from lucency.engine.footprint import SHARE, Footprint, free_memory
from lucency.engine.graph import traced
from lucency.engine.incremental import Incremental
from lucency.engine.scorer import BATCH, Raw, Scorer
from lucency.engine.tokens import TokenNetwork
from lucency.errors import LucencyError, ModelError, ParameterError, QuestionError, ran_out_of_memory
from lucency.removal import Fill, Removal, Surrogate, Tokens, remove
from lucency.scan import Scan
from lucency.work import count, introducing, trying

Result = TypeVar("Result")
CHECKED = 4
"""Scans that go through at both precisions."""
ROUNDED = 0.1
"""Half precision hurts no map of a time limit when it moves scores by this share of how they differ from each other:
rounding is drawn anew for each scan as the scans are, so that it adds as small a share to the standard error."""
ALIKE = 1e-4
"""Outputs that differ by no more than this share of the largest are the same; rounding stays below."""

CHANGING = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
"""Modules that do something else while a network is trained."""


@dataclass
class Habits:
    """What is found out about a classifier once.

    Attributes:
        alone: it must get one scan at a time.
        notices: that, in words.
        untraced: the watched layers and the grids with which its traced network is of no use.
    """

    met: bool = False
    alone: bool = False
    notices: tuple[str, ...] = ()
    untraced: set[tuple[tuple[str, ...], tuple[int, ...]]] = field(default_factory=set)


_HABITS: weakref.WeakKeyDictionary[Classifier, dict[object, Habits]] = weakref.WeakKeyDictionary()


class Engine:
    """Runs one classifier on one device.

    Args:
        classifier: moved to the device.
        device: ``"auto"`` takes a GPU when there is one.
        batch_size: perturbed scans in one forward pass; found by timing when ``None``.
        seed: where every random number of a method and of a removal comes from.
        windows: fold and lay out the network anew, and recompute only what a small piece can have changed, where
            that measures faster; ``False`` runs the classifier as it is.
        memory: GiB that the activations of one batch may take, by what one scan is seen to take; half of what is free
            when ``None``. Where memory runs out all the same, batches are halved.
        tolerance: the error of a score that is allowed for speed; ``None`` is exact. Methods that ask about small
            boxes report what they estimate it to be.

    Threads may share an engine; they are served one at a time.

    Raises:
        ParameterError: for a device that is not there, or a limit that is not above 0.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
        seed: int = 0,
        windows: bool = True,
        memory: float | None = None,
        tolerance: float | None = None,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device)
            self.classifier = classifier.to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise ParameterError(
                f"The device {str(device)!r} cannot be used ({str(error).splitlines()[0]}); use auto, cpu or cuda."
            ) from error
        if batch_size is not None and batch_size < 1:
            raise ParameterError(f"The batch size must be at least 1, not {batch_size}.")
        most = batch_size or (256 if self.device.type == "cuda" else 16)
        first = batch_size or (16 if self.device.type == "cuda" else 4)
        self._batch_size = most
        self.chunks = {what: Chunks(first, most, self.device) for what in ("scores", "gradients")}
        together = min(BATCH, batch_size or BATCH)
        self.chunks["windows"] = Chunks(together, together, self.device)
        # Another mode of training makes another classifier of it.
        mode = () if classifier.module is None else tuple(m.training for m in classifier.module.modules())
        self.habits = _HABITS.setdefault(classifier, {}).setdefault((self.device, mode), Habits())
        if memory is not None and not 0 < memory < math.inf:
            raise ParameterError(f"The memory for one batch is a number of GiB above 0, not {memory}.")
        self.memory = memory
        self._measured: set[tuple[int, ...]] = set()
        if tolerance is not None and not 0 < tolerance < math.inf:
            raise ParameterError(f"The tolerance is a number above 0, not {tolerance}; leave it out for exact scores.")
        self.tolerance = tolerance
        self.seed = seed
        # Windows are cut out and put back one by one, which a GPU would spend its time launching.
        self.windows = windows and self.device.type == "cpu" and classifier.module is not None and not classifier.alone
        self.checked: set[tuple[str, ...]] = set()
        self.seconds: dict[tuple[object, ...], list[float]] = {}
        self._token_networks: dict[torch.Size, TokenNetwork] = {}
        self._surrogates: dict[Surrogate, Engine] = {}
        self._graphs: dict[tuple[str, ...], tuple[torch.Size, fx.GraphModule | None]] = {}
        self._layers: dict[torch.Size, list[Layer]] = {}
        self._clean: list[tuple[Scan, Tensor, Raw]] | None = None
        self.hurried = False

    @property
    def batch_size(self) -> int:
        """How many perturbed scans go forward at once at most; 1 where the classifier must be asked one at a time."""
        return 1 if self.habits.alone else self._batch_size

    @property
    def notices(self) -> tuple[str, ...]:
        """What had to be done about the classifier, in words; known once a scan has been opened."""
        return self.habits.notices

    @introducing()
    def meet(self, x: Tensor, outputs: Tensor) -> None:
        """Finds out, once for a classifier, whether its answer depends on chance or on what it is asked with.

        Args:
            x: ``[1, C, *grid]``, a scan.
            outputs: ``[1, K]``, what the classifier gives for it.

        Raises:
            ModelError: when it gives something else the second time.
        """
        ask = self.classifier
        if ask.alone:
            # Loading it has found that out, and says so.
            self.habits.alone = True
        if not self.habits.met:
            again = ask(x)
            if (by := _apart(outputs, again, self._rounding)) is not None:
                raise ModelError(
                    f"{ask.name} answers the same scan differently the second time (by {by:.3g}{_why(ask)}."
                )
            # A scan that is black may show nothing of a company that multiplies it.
            noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
            low, high = x.aminmax()
            noise = low + (high - low).clamp_min(0.1) * noise
            self._meet_in_company(torch.cat([x, noise, 0.5 * x.flip(-1)]), torch.cat([outputs, ask(noise)]))
            self.habits.met = True
        if self.habits.alone:
            for chunks in self.chunks.values():
                chunks.limit(1)

    def _meet_in_company(self, scans: Tensor, expected: Tensor) -> None:
        name = self.classifier.name
        try:
            together = self.classifier(scans)[: len(expected)]
        except LucencyError:
            self.habits.alone = True
            self.habits.notices = (f"{name} takes one scan at a time, so each goes in by itself, which is slow.",)
            return
        except RuntimeError as error:
            # The engine finds the size of a batch that fits.
            if ran_out_of_memory(error):
                return
            raise
        for i in range(len(expected)):
            if (by := _apart(expected[i], together[i], self._rounding)) is not None:
                self.habits.alone = True
                self.habits.notices = (
                    f"What {name} says of a scan depends on the others in its batch (its outputs differ by {by:.3g}), "
                    "so each scan goes in by itself, which is slow.",
                )
                return

    @property
    def _rounding(self) -> float:
        """How far two outputs may lie apart and be the same, as a share of the largest."""
        weights = [] if self.classifier.module is None else [*self.classifier.module.parameters()]
        return max([ALIKE, *(4 * torch.finfo(w.dtype).eps for w in weights if w.dtype in (torch.half, torch.bfloat16))])

    def first_pass(self, x: Tensor, work: Callable[[Tensor], Result]) -> Result:
        """What ``work`` makes of one scan ``[1, C, *grid]``; sees how many such scans fit into the memory at once."""
        shape = tuple(x.shape)
        if shape in self._measured:
            return work(x)
        self._measured.add(shape)
        with Footprint() as seen:
            result = work(x)
        free = free_memory(self.device)
        room = SHARE * free if self.memory is None and free is not None else (self.memory or 0.0) * 2**30
        if room > 0:
            # The perturbed scan, its mask, its fill and the normalised copy come on top.
            around = 4 * x.nbytes
            for what in ("scores", "windows"):
                self.chunks[what].limit(int(room / (seen.most + around)))
            self.chunks["gradients"].limit(int(room / (seen.all + around)))
        return result

    def generator(self) -> torch.Generator:
        """A fresh CPU generator in the state that the seed gives."""
        return torch.Generator().manual_seed(self.seed)

    def seeded(self, seed: int) -> Engine:
        """This engine with another seed; what it has found out about the classifier is shared."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def remembering(self, *, hurried: bool = False) -> Engine:
        """This engine for one run, in which a scan goes clean through the classifier once, whoever asks.

        Between runs nothing is remembered: the weights may have been changed.

        Args:
            hurried: the run has a time limit, so that half precision may be used where it disappears in the noise.
        """
        if self._clean is not None and self.hurried == hurried:
            return self
        other = copy.copy(self)
        other._clean, other.hurried = [] if self._clean is None else self._clean, hurried
        return other

    @asking()
    def clean(self, scan: Scan, layers: Sequence[str] = ()) -> tuple[Tensor, Raw]:
        """A scan on the model's grid and the engine's device, ``[C, *grid]``, and what the classifier makes of it.

        Args:
            layers: whose feature maps are wanted beside the outputs ``[1, K]``.

        Raises:
            QuestionError: when one of the layers does not exist.
        """
        for known, pixels, (outputs, features) in self._clean or ():
            if known is scan and features.keys() >= set(layers):
                return pixels, (outputs, {layer: features[layer] for layer in layers})
        pixels = self.classifier.prepare(scan).to(self.device)
        with torch.inference_mode():
            outputs, features = self.first_pass(pixels[None], lambda x: self.outputs(x, layers))
        # A network may hand over what it writes into the next time.
        raw = (outputs.clone(), features)
        if self._clean is not None:
            self._clean.append((scan, pixels, raw))
        return pixels, raw

    def question(self, scan: Scan, target: str | int | None = None, watch: str = "probability") -> Question:
        """As :meth:`lucency.classifier.Question.ask`, from what the engine knows of the clean scan."""
        return Question.ask(self.classifier, scan, target, watch, clean=lambda layers: self.clean(scan, layers)[1])

    def outputs(self, x: Tensor, layers: Sequence[str] = ()) -> Raw:
        """What the classifier gives for scans ``[B, C, *grid]`` in one pass, and what the layers put out.

        Differentiable; the one place where methods, metrics and checks run a classifier.
        """
        if not layers:
            return self.classifier(x), {}
        outputs, features = self.classifier.outputs_and_features(x, layers)
        if len(x) > 1 and any(len(f) != len(x) for f in features.values()):
            # A network that goes from scan to scan by itself has shown the features of its last round.
            parts = [self.classifier.outputs_and_features(one[None], layers) for one in x]
            features = {layer: torch.cat([found[layer] for _, found in parts]) for layer in layers}
        return outputs, features

    @asking()
    def layers(self, scan: Scan) -> list[Layer]:
        """The convolutional layers in the order they run on scans like this one.

        Raises:
            QuestionError: for a black box.
        """
        pixels = self.classifier.prepare(scan).to(self.device)
        if pixels.shape not in self._layers:
            with introducing():
                self._layers[pixels.shape] = self.classifier.layers(pixels[None])
        return self._layers[pixels.shape]

    def graph(self, keep: tuple[str, ...], example: Tensor) -> fx.GraphModule | None:
        """The network as a graph for scans like ``example`` ``[1, C, *grid]``; ``None`` where it has none.

        The layers in ``keep`` can be watched.
        """
        if keep not in self._graphs or self._graphs[keep][0] != example.shape:
            self._graphs[keep] = (example.shape, traced(self.classifier.network(), example, keep))
        return self._graphs[keep][1]

    def token_network(self, pixels: Tensor) -> TokenNetwork:
        """How tokens are left out of scans like ``pixels`` ``[C, *grid]``.

        Raises:
            ParameterError: when that cannot be done.
        """
        if pixels.shape not in self._token_networks:
            with introducing():
                self._token_networks[pixels.shape] = TokenNetwork(self.classifier, pixels)
        return self._token_networks[pixels.shape]

    def forget(self, keep: tuple[str, ...]) -> None:
        """Traces the network anew when it is next asked for: its weights have changed."""
        self._graphs.pop(keep, None)
        self.checked.discard(keep)

    def open(
        self, scan: Scan, question: Question, removal: Removal | None = None, also: Sequence[Question] = ()
    ) -> Probe:
        """A probe of ``scan``: what is watched (the question first, then ``also``) and what "removed" means.

        A gradient method that removes nothing leaves ``removal`` out.

        Raises:
            ModelError: when the clean scan does not get a finite score, or not the same one twice.
        """
        engine = self._asking_surrogate(removal) if isinstance(removal, Surrogate) else self
        return Probe(engine, scan, (question, *also), removal)

    def _asking_surrogate(self, removal: Surrogate) -> Engine:
        """This engine for the surrogate of its classifier."""
        if removal not in self._surrogates:
            self._surrogates[removal] = Engine(
                removal.classifier(self.classifier),
                device=self.device,
                batch_size=self._batch_size,
                windows=self.windows,
                memory=self.memory,
                tolerance=self.tolerance,
            )
        return self._surrogates[removal].seeded(self.seed)


def _apart(one: Tensor, other: Tensor, share: float) -> float | None:
    """How far outputs of one shape lie apart; ``None`` where that is rounding."""
    one, other = one.float(), other.float()
    by = float((one - other).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().max())
    if not torch.equal(one.isfinite(), other.isfinite()):
        return math.inf
    largest = float(one.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().max())
    return by if by > share * largest + 1e-6 else None


def _why(classifier: Classifier) -> str:
    """The rest of a sentence: what may make an answer depend on chance, and what to do."""
    modules = [] if classifier.module is None else [*classifier.module.named_modules()]
    training = [name for name, m in modules if m.training and isinstance(m, CHANGING)]
    if training:
        shown = ", ".join(training[:3]) + (", ..." if len(training) > 3 else "")
        return f"); {shown} of it is in training mode: call eval() on the network first"
    return "): take the dropout, the noise or the memory of earlier scans out of its forward pass first"


class Probe:
    """One scan under one question, and the perturbed copies of it.

    Attributes:
        pixels: float32 ``[C, *grid]``, the clean scan on the model's grid and the engine's device.
        clean: float32 ``[Q]``, what the Q questions read on the clean scan.
        evaluations: scans that were read so far, the clean one among them.
        layers: the layers whose feature maps are watched.
    """

    @asking()
    def __init__(self, engine: Engine, scan: Scan, questions: tuple[Question, ...], removal: Removal | None) -> None:
        self.engine = engine
        self.scan = scan
        self.questions = questions
        self.evaluations = 0
        self.layers = sorted({q.layer for q in questions if q.layer is not None})
        self.pixels, self._clean_raw = engine.clean(scan, self.layers)
        self._fast: Scorer | None = None
        self._tried = not engine.windows or len(self.grid) != 2
        self._fill: Fill | None = None if removal is None else removal.bind(self.pixels, engine.generator())
        self._tokens: TokenNetwork | None = None
        # Whether half precision pays and keeps the tolerance, and its error on the scans that were tried.
        self._half: bool | None = None
        self._half_error = 0.0
        with torch.inference_mode():
            clean = self.read(*self._clean_raw)[0]
        if not bool(torch.isfinite(clean).all()):
            raise ModelError(
                f"{engine.classifier.name} gives {clean.tolist()} on this scan, which is not finite; "
                "check the weights and the normalisation."
            )
        self.clean = clean.clone()
        with torch.inference_mode():
            engine.meet(self.pixels[None], self._clean_raw[0])
            if isinstance(removal, Tokens):
                self._tokens, self._tried = engine.token_network(self.pixels), True

    @property
    def grid(self) -> tuple[int, ...]:
        """Size of the model's grid along each spatial axis."""
        return tuple(self.pixels.shape[1:])

    @property
    def batch_size(self) -> int:
        """How many perturbed scans to ask about at once, for a method that yields a step in between.

        The network may see them in smaller chunks.
        """
        return self.engine.batch_size

    @one_at_a_time()
    def removed(self, masks: Tensor) -> Tensor:
        """The perturbed scans ``[B, C, *grid]`` for masks ``[B, *grid]`` in 0..1, 1 = kept; differentiable."""
        if self._fill is None:
            raise ParameterError("This probe was opened without a removal, so nothing can be removed.")
        masks = masks.to(self.pixels.device)
        return remove(self.pixels, masks, self._fill(masks))

    def watch(self, x: Tensor) -> Tensor:
        """What the Q questions read, ``[B, Q]``, on scans ``[B, C, *grid]`` in one pass; differentiable."""
        return self.read(*self.engine.outputs(x, self.layers))

    def read(self, outputs: Tensor, features: dict[str, Tensor]) -> Tensor:
        """What the Q questions read, ``[B, Q]``, from outputs ``[B, K]`` and the outputs of the watched layers."""
        classifier = self.engine.classifier
        self.evaluations += outputs.shape[0]
        outputs, features = outputs.float(), {name: f.float() for name, f in features.items()}
        return torch.stack([q.read(classifier, outputs, features) for q in self.questions], 1).float()

    @asking()
    def scores(self, masks: Tensor, boxes: Tensor | None = None) -> Tensor:
        """What the Q questions read, ``[B, Q]``, on the scan with what ``masks`` ``[B, *grid]`` leave out removed.

        ``boxes`` ``[B, axes, 2]`` may bound what each mask leaves out, so that an engine can save work.

        Raises:
            ModelError: when one of them is not finite.
        """
        with torch.inference_mode():
            scores: Tensor | None = None
            if self._tokens is not None:
                scores = self._by_tokens(self._tokens, masks.to(self.pixels.device))
            elif boxes is not None:
                scores = self._on_windows(masks.to(self.pixels.device), boxes)
            if scores is None:
                scores = torch.cat(self.engine.chunks["scores"].through(masks, lambda m: self._score(self.removed(m))))
        return self.finite(scores.clone(), "score")

    @asking()
    def scores_of(self, x: Tensor) -> Tensor:
        """What the Q questions read, ``[B, Q]``, on any scans ``[B, C, *grid]``.

        Raises:
            ModelError: when one of them is not finite.
        """
        with torch.inference_mode():
            scores = torch.cat(self.engine.chunks["scores"].through(x, self._score))
        return self.finite(scores.clone(), "score")

    def finite(self, values: Tensor, what: str) -> Tensor:
        """The values ``[B, ...]`` themselves. A map made from the others would show what was left out as harmless."""
        bad = int((~values.isfinite()).flatten(1).any(1).sum()) if len(values) else 0
        if bad:
            raise ModelError(
                f"{self.engine.classifier.name} has a {what} that is not finite on {bad} of {len(values)} perturbed "
                "scans, so there is no map; choose another removal, or mend what divides by zero in the network."
            )
        return values

    def _by_tokens(self, network: TokenNetwork, masks: Tensor) -> Tensor:
        kept = network.kept(masks)
        scores = self.clean.new_empty(len(masks), len(self.questions))

        def score(shown: Tensor) -> Tensor:
            with network.showing(shown):
                return self.watch(self.pixels.expand(len(shown), *self.pixels.shape))

        # Only as many tokens for each scan make one tensor.
        counts = kept.sum(1)
        for number in sorted(set(counts.tolist())):
            alike = counts == number
            scores[alike] = torch.cat(self.engine.chunks["scores"].through(kept[alike], score))
        return scores

    def _on_windows(self, masks: Tensor, boxes: Tensor) -> Tensor | None:
        fast, before = self._scorer(len(masks)), self.evaluations
        if fast is None:
            return None
        try:
            with trying():
                return fast.scores(masks, boxes)
        except LucencyError:
            raise
        except Exception:
            self._give_up(before)
            return None

    def _give_up(self, evaluations: int) -> None:
        """The traced network failed: the network itself still answers, now and later."""
        self._fast = None
        self.engine.habits.untraced.add((tuple(self.layers), self.grid))
        self.evaluations = evaluations

    def _score(self, x: Tensor) -> Tensor:
        exact = self.engine.tolerance is None and not self.engine.hurried
        if exact or self._half is False or len(x) < CHECKED:
            return self._whole(x)
        if self._half is None:
            return self._try_half(x)
        with torch.autocast(self.engine.device.type, torch.bfloat16):
            return self._whole(x)

    def _whole(self, x: Tensor) -> Tensor:
        fast, before = self._scorer(len(x)), self.evaluations
        if fast is not None:
            try:
                with trying():
                    return fast.whole(x)
            except Exception as error:
                if ran_out_of_memory(error):
                    raise
                self._give_up(before)
        return self.watch(x)

    def _try_half(self, x: Tensor) -> Tensor:
        """Scores at full precision; a few scans go through at half precision too, to see what that costs and saves."""
        few = x[:CHECKED]

        def timed() -> tuple[Tensor, float]:
            began = time.perf_counter()
            scores = self._whole(few)
            # Looking at a number waits for a GPU.
            float(scores[0, 0])
            return scores, time.perf_counter() - began

        # Whatever is set up once is set up.
        scores = self._whole(x)
        exact, full = timed()
        with torch.autocast(self.engine.device.type, torch.bfloat16):
            self._whole(few[:1])
            near, half = timed()
        self._half_error = float((near - exact).abs().max())
        noise = ROUNDED * float(scores[:, 0].std()) if self.engine.hurried else 0.0
        self._half = self._half_error <= max(self.engine.tolerance or 0.0, noise) and half < full
        return scores

    def _scorer(self, scans: int) -> Scorer | None:
        """The traced network, when there is one, it says what the classifier says, and the work is worth it."""
        if not self._tried and (scans >= 4 or self.evaluations >= 8):
            self._tried = True
            keep = tuple(self.layers)
            if not self.engine.habits.alone and (keep, self.grid) not in self.engine.habits.untraced:
                self._fast = self._traced(keep)
                if self._fast is None:
                    # The weights may have been changed since the network was traced.
                    self.engine.forget(keep)
                    self._fast = self._traced(keep)
                if self._fast is None:
                    self.engine.habits.untraced.add((keep, self.grid))
        return self._fast

    @introducing()
    def _traced(self, keep: tuple[str, ...]) -> Scorer | None:
        clean = self.engine.classifier.enter(self.pixels[None])
        graph = self.engine.graph(keep, clean)
        if graph is None:
            return None
        before = self.evaluations
        try:
            fast = Scorer(
                Incremental(graph, clean, keep),
                self.engine.classifier,
                self.grid,
                read=self.read,
                removed=self._removed_at,
                chunks=self.engine.chunks["windows"],
                seconds=self.engine.seconds,
                layers=keep,
                tolerance=self.engine.tolerance,
            )
            same = self.same(fast.raw(self.pixels[None]), self._clean_raw)
            if same and keep not in self.engine.checked:
                # The classifier may do more than its network does, and not show it on the clean scan, or not alone.
                x = self.pixels[None]
                others = torch.cat([x.flip(-1) * 0.5, 1 - x, x])[: self.engine.batch_size]
                same = self.same(fast.raw(others), self.engine.outputs(others, self.layers)) and fast.windows_agree(
                    self.pixels, self.same
                )
                if same:
                    self.engine.checked.add(keep)
        except Exception:
            # Whatever a graph cannot do that the network can: the network itself still answers.
            return None
        finally:
            self.evaluations = before
        return fast if same else None

    def same(self, one: Raw, other: Raw) -> bool:
        """Whether two ways of computing agree, in what is watched and in what lies behind a score that is full."""
        outputs, expected = one[0].float(), other[0].float()
        near = (outputs - expected).abs().max() <= 1e-4 * expected.abs().max() + 1e-6
        return bool(near) and torch.allclose(self.read(*one), self.read(*other), rtol=1e-4, atol=1e-5)

    @property
    def facts(self) -> dict[str, float | str]:
        """How the scores were computed; and what the engine has approximated, and how well, if it has."""
        half = {"half precision error": self._half_error} if self._half else {}
        if self._tokens is not None:
            rows, columns = self._tokens.grid
            return {"engine": f"tokens left out of {rows} x {columns}"}
        if self._fast is None:
            return {"engine": "whole scans, network as it is", **half}
        return {"engine": self._fast.way, **half, **self._fast.facts}

    @asking()
    def together(self, boxes: Tensor, order: Tensor) -> list[Tensor]:
        """The ``order`` ``[N]`` of boxes ``[N, axes, 2]``, cut into batches that this engine computes well at once."""
        if self._scorer(len(order)) is None:
            return list(torch.split(order, self.batch_size))
        classes = self.alignment(boxes)[order]
        most = self.engine.chunks["windows"].size
        batches = [b for c in set(classes.tolist()) for b in torch.split(order[classes == c], most)]
        place = {int(n): i for i, n in enumerate(order)}
        return sorted(batches, key=lambda b: place[int(b[0])])

    def _removed_at(self, masks: Tensor, corners: Tensor | None, size: tuple[int, int]) -> Tensor:
        return self.removed(masks) if corners is None else self.removed_in(masks, corners, size)

    @asking()
    def alignment(self, boxes: Tensor) -> Tensor:
        """A number for each box of ``[N, axes, 2]``, int64 ``[N]``; those with the same are computed well at once."""
        if (fast := self._scorer(len(boxes))) is None:
            return torch.zeros(len(boxes), dtype=torch.int64)
        edges = (boxes[:, :, 1] - boxes[:, :, 0]).amax(0)
        stride = torch.tensor(fast.stride((int(edges[0]), int(edges[1]))))
        alike: Tensor = torch.unique(boxes[:, :, 0] % stride, dim=0, return_inverse=True)[1]
        return alike

    def removed_in(self, masks: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
        """The part of :meth:`removed` inside boxes of one size whose ``corners`` ``[B, 2]`` are given."""
        assert self._fill is not None
        rows = corners[:, 0, None] + torch.arange(size[0])
        columns = corners[:, 1, None] + torch.arange(size[1])

        def cut(maps: Tensor) -> Tensor:
            maps = maps.reshape((1,) * (4 - maps.ndim) + tuple(maps.shape))
            b = torch.arange(len(masks)) if len(maps) > 1 else torch.zeros(len(masks), dtype=torch.long)
            r = rows if maps.shape[2] > 1 else torch.zeros_like(rows)
            c = columns if maps.shape[3] > 1 else torch.zeros_like(columns)
            channels = torch.arange(maps.shape[1])
            return maps[b[:, None, None, None], channels[:, None, None], r[:, None, :, None], c[:, None, None, :]]

        return torch.lerp(cut(self._fill(masks)), cut(self.pixels), cut(masks[:, None]))

    @asking()
    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first question's score ``[B]`` and its gradient ``[B, C, *grid]`` at scans of that shape.

        Raises:
            QuestionError: when the classifier is a black box, or has no gradient.
            ModelError: when score or gradient is not finite.
        """
        return self._gradient(x, self.watch)

    @asking()
    def mask_gradient(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The first question's score ``[B]`` and its gradient ``[B, *grid]`` with respect to masks of that shape.

        Raises:
            QuestionError: when the classifier is a black box, or has no gradient.
            ModelError: when score or gradient is not finite.
        """
        return self._gradient(masks, lambda m: self.watch(self.removed(m)))

    def _gradient(self, items: Tensor, watch: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        self.engine.classifier.network()
        if self._tokens is not None:
            raise ParameterError(
                "A token is left out or shown, so there is no gradient in between; choose another removal for this "
                "method, or occlusion, lime or kernel_shap."
            )

        def work(part: Tensor) -> tuple[Tensor, Tensor]:
            at = part.detach().clone().requires_grad_(True)
            score, (gradient,) = self.differentiated(lambda: watch(at)[:, 0], lambda: [at])
            if gradient is None:
                raise self._without_gradient()
            return score.detach(), gradient

        scores, gradients = zip(*self.engine.chunks["gradients"].through(items, work), strict=True)
        score, gradient = torch.cat(scores), torch.cat(gradients)
        self.finite(score[:, None], "score")
        return score, self.finite(gradient, "gradient")

    def differentiated(
        self, score: Callable[[], Tensor], by: Callable[[], Sequence[Tensor]]
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Scores ``[B]``, made by the first function, and the gradients of their sum by the tensors that the second
        names afterwards; ``None`` for those that the scores do not depend on.

        Raises:
            QuestionError: when there is no gradient at all.
        """
        with torch.enable_grad():
            try:
                found = score()
                if found.requires_grad:
                    gradients = torch.autograd.grad(found.sum(), by(), allow_unused=True)
                    count(gradients=len(found))
                    return found, gradients
                why: Exception | None = None
            except (RuntimeError, ModelError) as error:
                if ran_out_of_memory(error):
                    raise
                why = error
        # The network gave scores a moment ago, so it is the gradient that it does not give.
        raise self._without_gradient() from why

    def _without_gradient(self) -> QuestionError:
        return QuestionError(
            f"{self.engine.classifier.name} gives scores but no gradient (quantised layers, whole numbers or no_grad "
            "inside it can be why); use a method that needs scores only, such as occlusion."
        )
