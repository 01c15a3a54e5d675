"""What a method is: a generator of steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from lucency.asking import undisturbed
from lucency.classifier import Classifier, Placement, Question
from lucency.engine import Engine
from lucency.masks import Patches, Superpixels
from lucency.parameters import by_word, declared, kinds, of_word, parts_of
from lucency.removal import Removal
from lucency.scan import Scan
from lucency.work import Meter

Reaction = Literal["map", "curve", "scatter"]
Takes = Literal["patches", "superpixels", "masks", "nothing"]
Fact = float | int | str | bool


class Facts(Mapping[str, Fact]):
    """Facts of a step that cost something to find out: ``find`` runs when they are first looked at."""

    def __init__(self, find: Callable[[], Mapping[str, Fact]]) -> None:
        self._find = find

    @cached_property
    def _found(self) -> Mapping[str, Fact]:
        return self._find()

    def __getitem__(self, name: str) -> Fact:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@dataclass(frozen=True)
class Trials:
    """The perturbed scans of one step, where each asks about one piece: what a person may watch one by one.

    Attributes:
        clean: what the question reads on the clean scan.
        scores: what it reads on each perturbed scan, in the order in which they were evaluated.
        show: the step as it would have been had it ended with that one.
    """

    clean: float
    scores: tuple[float, ...]
    show: Callable[[int], Step]


@dataclass(frozen=True)
class Step:
    """What a method knows at one moment. Everything behind a callable is built only when it is looked at.

    Maps live on the model's grid: float ``[*grid]``, signed, positive = supports the answer. The callables hold on
    to values, not to the method's state, so a step can be kept and read later.

    Attributes:
        done: share of the work done, 0..1.
        score: what the question reads on the perturbed scan of this step.
        heatmap: the map so far.
        perturbed: the perturbed scan ``[C, *grid]`` (display values) that ``score`` belongs to.
        standard_error: standard error of the map, where the method has one.
        point: this step's place ``(x, y)`` in the third panel, for methods whose reaction is a curve or a scatter.
        reaction: what the third panel shows at this step instead of the map so far, where that is more telling
            (the gradient at this alpha).
        also: further maps by name (the strongest feature map's reaction, ...).
        facts: numbers and short words that belong into the result (R², completeness gap, ...), the latest count.
        trials: the perturbed scans of this step one by one, where each asks about one piece; ``score`` and
            ``perturbed`` are then those of the one that moved the score farthest.
        evaluations, gradients: scans that went forward and backward so far; not for a method to say, they are counted
            where a classifier is run (:class:`lucency.work.Meter`).
    """

    done: float
    score: float
    heatmap: Callable[[], Tensor]
    perturbed: Callable[[], Tensor]
    standard_error: Callable[[], Tensor] | None = None
    point: tuple[float, float] | None = None
    reaction: Callable[[], Tensor] | None = None
    also: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)
    trials: Trials | None = None
    evaluations: int = 0
    gradients: int = 0

    def costing(self, evaluations: int, gradients: int) -> Step:
        """The same with what it has cost so far, its trials too."""
        trials = self.trials
        if trials is not None:
            show = trials.show
            trials = replace(trials, show=lambda i: show(i).costing(evaluations, gradients))
        return replace(self, evaluations=evaluations, gradients=gradients, trials=trials)


class Method(ABC):
    """A way to turn reactions into a map. Implementations are frozen dataclasses, registered by being subclasses.

    Attributes:
        name: what it is called on the command line.
        title: what it is called in a figure.
        paper: where it comes from.
        panel: what the third panel of its demonstration shows.
        axes: labels of the third panel, ``(x, y)``, where it is a curve or a scatter.
        needs_gradients: whether a black box is out of its reach.
        unit: what a pixel of the map means, for the colour bar.
        locates: whether a high value means that there lies evidence for the answer, so that a place may be named. Not
            so for a gradient, which says where a change would matter, nor for what is led back through altered ReLUs.
        grainy: whether neighbouring pixels of its maps say opposite things, as those of a gradient do; pictures then
            show the smoothed strength beside the map.
        takes: what it takes away at once: patches, superpixels, or random or smooth masks; nothing where it follows a
            gradient or reads activations.
        per_brightness: whether a pixel of its maps says how much the score changes for each unit of brightness, as a
            gradient does, rather than what the pixel contributes.
        formerly, former_parameters: words that the command line takes for one more version.
        removal: what stands where something was removed; ``None`` for a method that removes nothing. A field of those
            that do, which takes whatever :meth:`lucency.removal.Removal.of` takes.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    panel: ClassVar[Reaction] = "map"
    axes: ClassVar[tuple[str, str]] = ("", "")
    needs_gradients: ClassVar[bool] = False
    locates: ClassVar[bool] = True
    grainy: ClassVar[bool] = False
    takes: ClassVar[Takes] = "nothing"
    per_brightness: ClassVar[bool] = False
    formerly: ClassVar[tuple[str, ...]] = ()
    former_parameters: ClassVar[Mapping[str, str]] = {}
    unit: ClassVar[str]
    removal: Removal | None = None

    def __post_init__(self) -> None:
        for part in parts_of(self, Removal):
            if (what := getattr(self, part)) is not None:
                object.__setattr__(self, part, Removal.of(what))
        for part in parts_of(self, Superpixels):
            if isinstance(what := getattr(self, part), str):
                object.__setattr__(self, part, Superpixels.from_word(what))

    @classmethod
    def from_word(cls, word: str) -> Method:
        """The method of that name with its paper's defaults.

        Raises:
            ParameterError: naming the methods there are.
        """
        return of_word(word, methods(), "method")

    @classmethod
    def words(cls) -> list[str]:
        """What :meth:`from_word` takes."""
        return by_word(methods())

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared(cls, Method)
        if "steps" in vars(cls):
            cls.steps = _undisturbed_steps(cls.steps)  # type: ignore[method-assign,assignment]

    @abstractmethod
    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        """Does the work, telling at each step what is known so far; the last step is the answer.

        Between two steps PyTorch is set up as the caller has it; during a step, and while a step builds what is looked
        at, as it is out of the box.

        Raises:
            LucencyError: when the classifier or a parameter does not allow the method.
        """

    def patches(self, placement: Placement, spacing: Sequence[float] | None) -> Patches | None:
        """The patches whose overlaps make up its maps, on a scan that lies in ``placement``; pictures interpolate them.

        ``None`` where its maps are made of something else.
        """
        return None

    def reads(self, classifier: Classifier) -> tuple[str, ...]:
        """The layers whose maps of the clean scan it reads, so that the pass that gives the score gives them too.

        Empty for a method that looks after its own.
        """
        return ()

    def anytime(self) -> Self:
        """This method with its work ordered so that it can be stopped early: the first steps see the whole scan."""
        return self


def other_classes(question: Question, classifier: Classifier) -> list[Question]:
    """The same question about every other class; none where a feature map is watched."""
    if question.layer is not None:
        return []
    names = enumerate(classifier.classes)
    return [replace(question, target=i, name=name) for i, name in names if i != question.target]


Steps = Callable[[Any, Scan, Question, Engine], Iterator[Step]]


def _undisturbed_steps(steps: Steps) -> Steps:
    """The same steps, each made and shown as if nothing around it had been switched on or off, and counted."""

    @wraps(steps)
    def wrapped(self: Method, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        inner, meter = steps(self, scan, question, engine), Meter()
        try:
            while True:
                with undisturbed(), meter:
                    step = next(inner, None)
                if step is None:
                    return
                yield _undisturbed_step(step.costing(meter.evaluations, meter.gradients))
        finally:
            with undisturbed():
                getattr(inner, "close", lambda: None)()

    return wrapped


def _undisturbed_step(step: Step) -> Step:
    def shown(make: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return undisturbed()(make)

    facts, trials = step.facts, step.trials
    return replace(
        step,
        heatmap=shown(step.heatmap),
        perturbed=shown(step.perturbed),
        standard_error=None if step.standard_error is None else shown(step.standard_error),
        reaction=None if step.reaction is None else shown(step.reaction),
        also={name: shown(make) for name, make in step.also.items()},
        facts=Facts(undisturbed()(lambda: facts._found)) if isinstance(facts, Facts) else facts,
        trials=None if trials is None else replace(trials, show=lambda i: _undisturbed_step(trials.show(i))),
    )


def methods() -> dict[str, type[Method]]:
    """Every method by its name: the project's own, and those that outside packages announce as ``lucency.methods``."""
    return kinds(Method, "lucency.methods")
