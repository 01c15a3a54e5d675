"""What is asked of every film: a model, a class, a method. One place holds the answers to one question."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lucency.classifier import Classifier
from lucency.explanation import describe
from lucency.recipe import Explainer

if TYPE_CHECKING:
    from lucency.pacs.access import Access


@dataclass(frozen=True)
class Asked:
    """The arguments of :class:`lucency.Explainer` and of reading, so that each worker can make its own.

    Attributes:
        model: a name or a file, or a function without arguments that makes the classifier and can be pickled.
        target: the class; the most probable one of each film when ``None``.
        frame, window, value_range: as in :func:`lucency.read_scan`.
        anonymous: names of files are kept as hashes.
        picture: whether a small picture of each film is kept, for the report.
        keep: a folder in which each film gets one with everything that ``lucency explain`` leaves; ``None`` for none.
        animation, command: what these hold of the steps, and what they say was typed.
        access: what is shown to the DICOMweb archive that films are fetched from.
    """

    model: str | Callable[[], Classifier]
    target: str | int | None = None
    method: str = "occlusion"
    settings: tuple[str, ...] = ()
    removal: str = "auto"
    watch: str = "probability"
    budget: str | float | None = None
    error_bars: int = 0
    sanity: bool = False
    tolerance: float | None = None
    memory: float | None = None
    device: str = "auto"
    seed: int = 0
    frame: int | None = None
    window: str | None = None
    value_range: tuple[float, float] | None = None
    anonymous: bool = False
    picture: bool = True
    keep: str | None = None
    animation: str = "none"
    command: str = ""
    access: Access | None = None

    def explainer(self) -> Explainer:
        """Makes what answers.

        Raises:
            LucencyError: when model, class, method and parameters do not go together.
        """
        model = self.model if isinstance(self.model, str) else self.model()
        explainer = Explainer(
            model,
            method=self.method,
            settings=self.settings,
            removal=self.removal,
            watch=self.watch,
            budget=self.budget,
            error_bars=self.error_bars,
            sanity=self.sanity,
            device=self.device,
            seed=self.seed,
            memory=self.memory,
            tolerance=self.tolerance,
        )
        if self.target is not None:
            explainer.classifier.index(self.target)
        return explainer

    def question(self, explainer: Explainer) -> dict[str, Any]:
        """What decides an answer, as plain JSON values; device and memory do not."""
        apart = (
            "model",
            "method",
            "settings",
            "device",
            "memory",
            "anonymous",
            "picture",
            "access",
            "keep",
            "animation",
            "command",
        )
        classifier = explainer.classifier
        target = None if self.target is None else classifier.classes[classifier.index(self.target)]
        method = {"name": explainer.method.name, "title": explainer.method.title, **describe(explainer.method)}
        rest = {k: v for k, v in dataclasses.asdict(self).items() if k not in apart}
        model = {"name": classifier.name, "fingerprint": classifier.fingerprint, "classes": list(classifier.classes)}
        found: dict[str, Any] = json.loads(json.dumps({**rest, "target": target, "model": model, "method": method}))
        return found


def hash_of(question: dict[str, Any]) -> str:
    """SHA-256 of a question."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
