"""Can the film be what the model reads? Asked before it is explained."""

from __future__ import annotations

from lucency.checks.out_of_distribution import LEVEL, OutOfDistribution
from lucency.classifier import Classifier
from lucency.lungs.upright import Orientation, orientation
from lucency.scan import Scan

TURNED = ("", "turned by 90 degrees anticlockwise", "upside down", "turned by 90 degrees clockwise")
"""What a number of quarter turns has made of a film."""


def doubts(scan: Scan, classifier: Classifier, known: OutOfDistribution | None = None) -> tuple[str, ...]:
    """One sentence for each reason why a film cannot be what the model reads; none for a film like those that it knows.

    A model that brings clean scans with it is asked whether it knows scans like this one. Where those are frontal chest
    films, the film is also looked at for how it lies: in negative, turned, mirrored, lateral, or no chest film at all.
    Of a model without clean scans nothing is known, and nothing is said.

    Args:
        known: the clean scans that the model knows; those that it brings with it when ``None``.
    """
    known = known or OutOfDistribution.of(classifier)
    if known is None:
        return ()
    if known.chest and scan.view == "LATERAL":
        return (
            f"This is a lateral film and {classifier.name} has learnt from frontal ones: its answer means nothing "
            "here; choose the frontal film of the examination.",
        )
    if known.chest and len(scan.shape) == 2 and (said := _lies(orientation(scan), classifier.name)):
        return (said,)
    if known.p_values(classifier.prepare(scan)[None])[0] < LEVEL:
        return (
            f"{classifier.name} has seen nothing like this scan (p < {LEVEL:g} among the scans that it knows): its "
            "answer may mean nothing; check that the right scan was sent to the right model.",
        )
    return ()


def _lies(film: Orientation, model: str) -> str:
    if not film.chest:
        return (
            f"This does not look like a frontal chest film, and {model} has learnt from nothing else: its answer means "
            "nothing here; choose another scan or another model."
        )
    if film.upright:
        return ""
    if film.negative:
        also = f" and to be {_turned(film)}" if film.turns or film.mirrored else ""
        return (
            f"The film seems to be a negative (air bright, bone dark){also}: {model} would read it wrongly and places "
            "would have wrong names; invert it, or correct its photometric interpretation, and explain it again."
        )
    if film.turns:
        return (
            f"The film seems to be {_turned(film)}: {model} would read it wrongly and places would have wrong names; "
            "turn it as a viewer shows it, and explain it again."
        )
    return (
        "The heart seems to lie on the patient's right: the film may be mirrored, or the patient may have "
        "dextrocardia; compare the side marker before any side is believed."
    )


def _turned(film: Orientation) -> str:
    if not film.turns:
        return "mirrored"
    return TURNED[film.turns] + (" and mirrored" if film.mirrored else "")
