"""The explanation: a heatmap that remembers everything needed to repeat it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lucency import explanation_file
from lucency.methods import METHODS, Method, Step
from lucency.privacy import shown_source
from lucency.records import FORMAT, Contents, MethodRecord, Provenance, VerdictRecord
from lucency.writing import results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Map = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the evidence lies, how sure that is, and how it was found.

    Attributes:
        heatmap: float32 ``[*spatial]`` on the scan's own grid, signed; positive = supports the answer.
        pixels: float32 ``[C, *spatial]``, the scan as displayed, 0..1.
        standard_error: float32 ``[*spatial]`` of the heatmap, from the method or from shifted copies of the scan, or
            ``None`` where neither was asked; ``provenance.error_bars`` says which.
        also: further maps by name, each float32 ``[*spatial]``.
        probabilities: the classifier's probability of each class on the clean scan; empty where it measures something.
        facts: what the method found out about its own map (R², completeness gap, ...).
        provenance: what is needed to repeat it: hashes, method, parameters, seed, versions, device, cost.
        verdict: where, how strongly and how sure, as :func:`lucency.checks.verdict.judge` put it; ``None`` before that.
    """

    heatmap: Map
    pixels: Map
    standard_error: Map | None
    also: Mapping[str, Map]
    probabilities: Mapping[str, float]
    facts: Mapping[str, float | int | str | bool]
    provenance: Provenance
    verdict: VerdictRecord | None = None
    notices: tuple[str, ...] = ()
    steps: tuple[Step, ...] = field(default=(), repr=False)

    @property
    def target(self) -> str:
        """The class that is explained."""
        return self.provenance.question.name

    @property
    def probability(self) -> float:
        """Probability of that class on the clean scan; NaN where the classifier measures something else."""
        return self.probabilities.get(self.target, math.nan)

    @property
    def answer(self) -> str:
        """What the classifier says of the clean scan, in words: the probability, or the number that it measures."""
        if math.isnan(self.probability):
            return f"{self.provenance.question.score:.4g}"
        return f"probability {self.probability:.3f}"

    @property
    def peak(self) -> tuple[int, ...] | None:
        """Index of the heatmap's maximum on the scan's grid: (row, column), or (slice, row, column).

        ``None`` where the map is flat: nothing reacted, so no place stands out.
        """
        return peak_of(self.heatmap)

    @property
    def removal(self) -> str:
        """The name of what stood where something was removed; empty for a method without a removal."""
        return self.provenance.method.removal

    @property
    def complete(self) -> bool:
        """Whether the method ran to its end, rather than into its budget or a cancellation."""
        return self.provenance.complete

    def __repr__(self) -> str:
        about = self.provenance
        size = " x ".join(map(str, self.heatmap.shape))
        where = "flat map" if self.peak is None else f"peak at {self.peak}"
        return (
            f"Explanation({self.target!r}, {self.answer} by {about.model.name}; "
            f"{about.method.title}, {size}, {where}, {about.cost.evaluations} evaluations, "
            f"{about.cost.seconds:.1f} s{'' if self.complete else ', not finished'})"
        )

    def _repr_html_(self) -> str | None:
        """Overlay, verdict and a small table, which a notebook shows; nothing without the ``render`` extra."""
        if find_spec("matplotlib") is None or find_spec("jinja2") is None:
            return None
        from lucency.render.notebook import html

        return html(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """The viewer, which a notebook shows in place of the HTML; nothing without the ``notebook`` extra."""
        if find_spec("anywidget") is None or find_spec("IPython") is None:
            return {}
        from lucency.viewer.widget import bundle

        return bundle(self)

    def anonymous(self) -> Explanation:
        """The same with a hash of the pixels in place of the name of the scan's file."""
        scan = self.provenance.scan
        kept = dataclasses.replace(scan, source=shown_source(scan.source, scan.sha256, anonymous=True))
        return dataclasses.replace(self, provenance=dataclasses.replace(self.provenance, scan=kept))

    def overlay(self, **how: Any) -> Figure:
        """The map over the scan as a matplotlib figure, see :func:`lucency.render.overlay`.

        Raises:
            MissingExtraError: without the ``render`` extra.
        """
        from lucency.render import overlay

        return overlay(self, **how)

    def to_dicom(self, source: str | Path, folder: str | Path, **how: Any) -> list[Path]:
        """Writes DICOM objects that belong to the study of the film, see :func:`lucency.dicom.derived`.

        Args:
            source: the DICOM file that was explained.
            folder: made when missing; the files of an earlier call in it go.

        Raises:
            OutputError: when they cannot be written; the folder is then as it was before.
            ScanError: when the source cannot be read, cannot be referred to or is another film.
            MissingExtraError: without the ``clinic`` extra.
        """
        from lucency.dicom import derived, save

        found = derived(self, source, **how)
        with results(Path(folder), "dicom") as place:
            return [Path(folder) / file.name for file in save(found, place.place)]

    def save(self, path: str | Path) -> Path:
        """Writes everything into one file, see :mod:`lucency.explanation_file`.

        Raises:
            OutputError: when the file cannot be written; what was there before is there still.
        """
        arrays = {"heatmap": self.heatmap, "pixels": self.pixels}
        if self.standard_error is not None:
            arrays["standard_error"] = self.standard_error
        arrays |= {f"also_{i}": m for i, m in enumerate(self.also.values())}
        contents = Contents(
            tuple(self.also), self.probabilities, self.facts, self.provenance, self.verdict, self.notices
        )
        return explanation_file.save(path, arrays, contents)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Reads what :meth:`save` wrote.

        Raises:
            OutputError: when the file is missing, damaged, too large or something else.
        """
        arrays, contents = explanation_file.load(path)
        return cls(
            arrays["heatmap"],
            arrays["pixels"],
            arrays.get("standard_error"),
            {name: arrays[f"also_{i}"] for i, name in enumerate(contents.also)},
            contents.probabilities,
            contents.facts,
            _of_today(contents.provenance),
            contents.verdict,
            contents.notices,
        )


def _of_today(provenance: Provenance) -> Provenance:
    """Of a file by Lucency 0.1.0, with what a method says of its maps, as far as the method is known."""
    record = provenance.method
    cls = {word: cls for cls in METHODS.values() for word in (cls.name, *cls.formerly)}.get(record.name)
    if provenance.format == FORMAT or cls is None:
        return dataclasses.replace(provenance, format=FORMAT)
    said = method_record(cls, record.parameters)
    method = dataclasses.replace(
        record, name=cls.name, panel=said.panel, axes=said.axes, locates=said.locates, grainy=said.grainy
    )
    return dataclasses.replace(provenance, method=method, format=FORMAT)


def method_record(method: Method | type[Method], parameters: Mapping[str, Any]) -> MethodRecord:
    """What is remembered of a method with these parameters, which are plain JSON values."""
    return MethodRecord(
        name=method.name,
        title=method.title,
        paper=method.paper,
        unit=method.unit,
        panel=method.panel,
        axes=method.axes,
        locates=method.locates,
        grainy=method.grainy,
        parameters=parameters,
    )


def peak_of(heatmap: Map) -> tuple[int, ...] | None:
    """Index of the maximum of a map ``[*spatial]``; ``None`` of a flat map.

    Where a whole plateau holds the maximum (a patch does), its middle is taken.
    """
    if float(heatmap.max()) == float(heatmap.min()):
        return None
    top = np.argwhere(heatmap >= heatmap.max())
    centre = top.mean(0)
    return tuple(int(i) for i in top[np.square(top - centre).sum(1).argmin()])


def place_of(peak: tuple[int, ...]) -> str:
    """An index on the scan in words: ``"row 12, column 40"``."""
    axes = ("slice", "row", "column")[-len(peak) :]
    return ", ".join(f"{axis} {i}" for axis, i in zip(axes, peak, strict=True))


def describe(how: object) -> dict[str, Any]:
    """The parameters of a method or removal, nested, as plain JSON values."""
    if not dataclasses.is_dataclass(how) or isinstance(how, type):
        return {"repr": repr(how)}

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {"name": getattr(value, "name", type(value).__name__), **describe(value)}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, Tensor | np.ndarray):
            # Numbers would fill the record; the hash tells whether they were the same.
            array = np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
            return {"shape": list(array.shape), "sha256": hashlib.sha256(array.tobytes()).hexdigest()}
        return value if isinstance(value, str | int | float | bool | None) else repr(value)

    return {"parameters": {f.name: plain(getattr(how, f.name)) for f in dataclasses.fields(how)}}
