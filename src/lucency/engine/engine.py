"""From "this scan with these pieces removed, in this sense" to scores.

Methods never loop over forward passes: they open a :class:`Probe` and ask it for the scores of masks, so that
every speed-up reaches every method.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lucency.classifier import Classifier, Question
from lucency.errors import ModelError, ParameterError
from lucency.removal import Fill, Removal, remove
from lucency.scan import Scan


class Engine:
    """Runs one classifier on one device.

    Args:
        classifier: moved to the device.
        device: ``"auto"`` takes a GPU when there is one.
        batch_size: perturbed scans in one forward pass; found by the engine when ``None``.
        seed: where every random number of a method and of a removal comes from.

    Raises:
        ParameterError: for a device that is not there.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
        seed: int = 0,
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
        self.batch_size = batch_size or (64 if self.device.type == "cuda" else 16)
        self.seed = seed

    def generator(self) -> torch.Generator:
        """A fresh CPU generator in the state that the seed gives."""
        return torch.Generator().manual_seed(self.seed)

    def open(
        self, scan: Scan, question: Question, removal: Removal | None = None, also: Sequence[Question] = ()
    ) -> Probe:
        """A probe of ``scan``: what is watched (the question first, then ``also``) and what "removed" means.

        A gradient method that removes nothing leaves ``removal`` out.

        Raises:
            ModelError: when the clean scan does not get a finite score.
        """
        return Probe(self, scan, (question, *also), removal)


class Probe:
    """One scan under one question, and the perturbed copies of it.

    Attributes:
        pixels: float32 ``[C, *grid]``, the clean scan on the model's grid and the engine's device.
        clean: float32 ``[Q]``, what the Q questions read on the clean scan.
        evaluations: scans that went forward through the model so far.
        gradients: scans that went backward.
    """

    def __init__(self, engine: Engine, scan: Scan, questions: tuple[Question, ...], removal: Removal | None) -> None:
        self.engine = engine
        self.scan = scan
        self.questions = questions
        self.evaluations = 0
        self.gradients = 0
        self._layers = sorted({q.layer for q in questions if q.layer is not None})
        self.pixels = engine.classifier.prepare(scan).to(engine.device)
        self._fill: Fill | None = None if removal is None else removal.bind(self.pixels, engine.generator())
        with torch.inference_mode():
            clean = self.watch(self.pixels[None])[0]
        if not bool(torch.isfinite(clean).all()):
            raise ModelError(
                f"{engine.classifier.name} gives {clean.tolist()} on this scan, which is not finite; "
                "check the weights and the normalisation."
            )
        self.clean = clean.clone()

    @property
    def grid(self) -> tuple[int, ...]:
        """Size of the model's grid along each spatial axis."""
        return tuple(self.pixels.shape[1:])

    @property
    def batch_size(self) -> int:
        """How many perturbed scans to ask about at once, for a method that yields a step in between."""
        return self.engine.batch_size

    def removed(self, masks: Tensor) -> Tensor:
        """The perturbed scans ``[B, C, *grid]`` for masks ``[B, *grid]`` in 0..1, 1 = kept; differentiable."""
        if self._fill is None:
            raise ParameterError("This probe was opened without a removal, so nothing can be removed.")
        masks = masks.to(self.pixels.device)
        return remove(self.pixels, masks, self._fill(masks))

    def watch(self, x: Tensor) -> Tensor:
        """What the Q questions read, ``[B, Q]``, on scans ``[B, C, *grid]`` in one pass; differentiable."""
        classifier = self.engine.classifier
        if self._layers:
            outputs, features = classifier.outputs_and_features(x, self._layers)
        else:
            outputs, features = classifier(x), {}
        self.evaluations += x.shape[0]
        return torch.stack([q.read(classifier, outputs, features) for q in self.questions], 1).float()

    def scores(self, masks: Tensor, boxes: Tensor | None = None) -> Tensor:
        """What the Q questions read, ``[B, Q]``, on the scan with what ``masks`` ``[B, *grid]`` leave out removed.

        ``boxes`` ``[B, axes, 2]`` may bound what each mask leaves out, so that an engine can save work.
        """
        with torch.inference_mode():
            scores = torch.cat([self.watch(self.removed(m)) for m in torch.split(masks, self.engine.batch_size)])
        return scores.clone()

    def scores_of(self, x: Tensor) -> Tensor:
        """What the Q questions read, ``[B, Q]``, on any scans ``[B, C, *grid]``."""
        with torch.inference_mode():
            scores = torch.cat([self.watch(part) for part in torch.split(x, self.engine.batch_size)])
        return scores.clone()

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first question's score ``[B]`` and its gradient ``[B, C, *grid]`` at scans of that shape.

        Raises:
            QuestionError: when the classifier is a black box.
        """
        self.engine.classifier.network()
        scores, gradients = [], []
        for part in torch.split(x, self.engine.batch_size):
            at = part.detach().clone().requires_grad_(True)
            with torch.enable_grad():
                score = self.watch(at)[:, 0]
                (gradient,) = torch.autograd.grad(score.sum(), at)
            self.gradients += part.shape[0]
            scores.append(score.detach())
            gradients.append(gradient)
        return torch.cat(scores), torch.cat(gradients)

    def mask_gradient(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The first question's score ``[B]`` and its gradient ``[B, *grid]`` with respect to masks of that shape.

        Raises:
            QuestionError: when the classifier is a black box.
        """
        self.engine.classifier.network()
        scores, gradients = [], []
        for part in torch.split(masks, self.engine.batch_size):
            at = part.detach().clone().requires_grad_(True)
            with torch.enable_grad():
                score = self.watch(self.removed(at))[:, 0]
                (gradient,) = torch.autograd.grad(score.sum(), at)
            self.gradients += part.shape[0]
            scores.append(score.detach())
            gradients.append(gradient)
        return torch.cat(scores), torch.cat(gradients)
