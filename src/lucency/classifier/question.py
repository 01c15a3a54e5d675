"""The question: which class, and which number of the classifier is watched while the scan is perturbed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lucency.asking import undisturbed
from lucency.classifier.base import Classifier
from lucency.errors import QuestionError
from lucency.scan import Scan

WATCHED = ("probability", "logit", "margin", "number")


@dataclass(frozen=True)
class Question:
    """What is watched: a number of one class, or how strongly one feature map fires.

    Attributes:
        target: index of the class.
        name: its name.
        watch: ``"probability"``, ``"logit"``, ``"margin"`` (this logit minus the largest other one), ``"number"`` (what
            the model puts out, as it is: all there is where it gives an age or a volume), or ``"layer:NAME:UNIT"`` for
            how strongly one feature map of a layer fires: the mean over space of its positive part.
    """

    target: int
    name: str
    watch: str = "probability"

    @classmethod
    @undisturbed()
    def ask(
        cls,
        classifier: Classifier,
        scan: Scan,
        target: str | int | None = None,
        watch: str = "probability",
        *,
        clean: Callable[[Sequence[str]], tuple[Tensor, dict[str, Tensor]]] | None = None,
    ) -> Question:
        """A question about this classifier and scan; without a target, about the class it finds most probable.

        ``watch="layer:NAME"`` takes the unit of that layer that fires most on the clean scan. Of a model that gives
        numbers and no scores of classes, the number is watched, and without a target it is the first.

        Args:
            clean: gives the outputs on the clean scan and what the named layers put out, where they are known
                (:meth:`lucency.engine.Engine.question`); the classifier is run when ``None``.

        Raises:
            QuestionError: when the class, the layer or the quantity does not exist.
        """
        index = None if target is None else classifier.index(target)
        layer, unit = _layer_unit(watch)
        if layer is None and watch not in WATCHED:
            raise QuestionError(
                f"Nothing called {watch!r} can be watched; use {', '.join(WATCHED)} or layer:NAME[:UNIT]."
            )
        if classifier.outputs == "numbers":
            index = 0 if index is None else index
            if watch in ("logit", "margin"):
                raise QuestionError(f"{classifier.name} gives numbers and no scores of classes; watch the number.")
            watch = "number" if watch == "probability" else watch
        if index is None or layer is not None:

            def run(layers: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
                x = classifier.prepare(scan)[None].to(classifier.device)
                return classifier.outputs_and_features(x, layers) if layers else (classifier(x), {})

            with torch.inference_mode():
                outputs, features = (clean or run)([] if layer is None else [layer])
                if layer is not None:
                    fired = _firing(features[layer])[0]
                    unit = int(fired.argmax()) if unit is None else unit
                    if not 0 <= unit < len(fired):
                        raise QuestionError(
                            f"Layer {layer} has feature maps 0 to {len(fired) - 1}; there is no {unit}."
                        )
                    watch = f"layer:{layer}:{unit}"
            if index is None:
                index = int(classifier.probabilities(outputs)[0].argmax())
        if watch == "margin" and len(classifier.classes) < 2:
            raise QuestionError(f"{classifier.name} has one class, so there is no margin; watch the logit.")
        return cls(index, classifier.classes[index], watch)

    @property
    def layer(self) -> str | None:
        """The layer that is watched, if one is."""
        return _layer_unit(self.watch)[0]

    @property
    def label(self) -> str:
        """What the number is, in words, for axes and tables."""
        layer, unit = _layer_unit(self.watch)
        if self.watch == "number":
            return self.name
        return f"{self.watch} of {self.name}" if layer is None else f"mean activation of {layer}, map {unit}"

    def read(self, classifier: Classifier, outputs: Tensor, features: dict[str, Tensor]) -> Tensor:
        """The watched number ``[B]`` from outputs ``[B, K]`` and the features of the watched layer."""
        layer, unit = _layer_unit(self.watch)
        if layer is not None:
            assert unit is not None
            return _firing(features[layer])[:, unit]
        if self.watch == "probability":
            return classifier.probabilities(outputs)[:, self.target]
        if self.watch == "number":
            return classifier.numbers(outputs)[:, self.target]
        if self.watch == "logit":
            return classifier.logits(outputs)[:, self.target]
        return classifier.margins(outputs, self.target)


def _firing(features: Tensor) -> Tensor:
    return features.clamp_min(0).flatten(2).mean(2)


def _layer_unit(watch: str) -> tuple[str | None, int | None]:
    if not watch.startswith("layer:"):
        return None, None
    name, _, unit = watch.removeprefix("layer:").partition(":")
    if unit and not unit.isdigit():
        raise QuestionError(f"A feature map is asked for as layer:NAME:UNIT with a whole number, not {watch!r}.")
    return name, int(unit) if unit else None
