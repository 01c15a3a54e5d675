"""What requests and answers look like; the OpenAPI description is made from these."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from lucency.errors import ParameterError

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=["0" * 64])]
Model = Annotated[str, Field(max_length=200, examples=["lucency:effusion"])]
LOOK = 100_000
"""Bytes of what brings a view back."""
Span = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """What is wrong and what to do, in one sentence; the body of every 4xx and 5xx answer."""

    error: str
    kind: str


class ScanAbout(BaseModel):
    """A scan that was opened.

    Attributes:
        scan: its name from now on: the hash of its pixels.
        spacing: millimetres along each spatial axis.
        value_range: the file's values that are shown as black and white.
        slices: how many planes a volume has; 1 for a picture.
        truth: whether it is a phantom, whose fluid is known.
    """

    scan: Id
    title: str
    width: int
    height: int
    slices: int
    channels: int
    spacing: list[float] | None
    value_range: list[float]
    notices: list[str]
    view: str
    modality: str
    truth: bool


class PhantomWanted(_Strict):
    """A simulated radiograph: ``volume`` ml of fluid on a ``side``."""

    volume: float = Field(300.0, ge=0, le=5000, allow_inf_nan=False)
    side: Literal["left", "right", "both"] = "right"
    seed: int = Field(0, ge=0, le=2**31 - 1)
    size: int = Field(512, ge=64, le=1024)


class GalleryEntry(BaseModel):
    """Something to open without a file: ``POST gallery/NAME``."""

    name: str
    title: str
    summary: str


class ScoresWanted(_Strict):
    """Which classifier is asked about which scan."""

    scan: Id
    model: Model


class Scores(BaseModel):
    """What a classifier says of the clean scan.

    Attributes:
        out_of_distribution: p-value: how usual the scan is to the classifier, small = odd; null where that is unknown.
        doubts: why the scan cannot be what the classifier reads.
    """

    model: str
    probabilities: dict[str, float]
    out_of_distribution: float | None
    doubts: list[str]


class ExplanationWanted(_Strict):
    """A map that somebody wants.

    Attributes:
        target: the class, by name or number; the most probable one when null.
        parameters: of the method, as ``GET methods`` lists them; a removal or superpixels with parameters of their own
            are ``{"name": "blur", "parameters": {"sigma": 8}}``.
        removal: what stands where something is removed; chosen when null.
        watch: ``probability``, ``logit``, ``margin`` or ``layer:NAME[:UNIT]``.
        budget: seconds, or a text such as ``300ms``.
        error_bars: moved copies of the scan that are explained too.
        wait: answer when the map is there; otherwise at once, with a job.
    """

    scan: Id
    model: Model
    target: str | int | None = Field(None, examples=["effusion"])
    method: str = Field("occlusion", max_length=100)
    parameters: dict[str, Any] = Field(default_factory=dict, max_length=50)
    removal: str | None = Field(None, max_length=100)
    watch: str = Field("probability", max_length=200)
    budget: float | str | None = Field(None, examples=["2s"])
    error_bars: int = Field(0, ge=0, le=64)
    wait: bool = True


class Record(BaseModel):
    """An explanation without its arrays; ``GET explanations/ID/packed`` has them."""

    model_config = ConfigDict(extra="allow")

    id: Id
    scan: Id
    model: str
    target: str
    probability: float | None
    probabilities: dict[str, float]
    method: dict[str, Any]
    parameters: dict[str, Any]
    peak: list[int] | None
    evaluations: int
    gradients: int
    seconds: float
    complete: bool
    facts: dict[str, Any]
    verdict: dict[str, Any]
    notices: list[str]


class JobAbout(BaseModel):
    """A job.

    Attributes:
        state: how far it is.
        done: share of the work, as far as this process knows.
        explanation: the name of the result, once it is there.
        error: why it failed, in one sentence.
    """

    job: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    done: float = 0.0
    seconds: float = 0.0
    left: float | None = None
    evaluations: int = 0
    explanation: Id | None = None
    error: str | None = None


class Box(_Strict):
    """Rows and columns ``[from, to)`` in pixels of the scan; an ellipse fills its box."""

    rows: Span
    columns: Span


class Mask(_Strict):
    """A brush stroke: one bit for each pixel, row by row, 1 = touched.

    Attributes:
        bits: base64 of the packed bits, most significant first; or
        runs: lengths of runs of 0 and 1 in turn, beginning with 0.
    """

    width: int = Field(ge=1, le=2**15)
    height: int = Field(ge=1, le=2**15)
    bits: str | None = None
    runs: list[Annotated[int, Field(ge=0, le=2**30)]] | None = Field(None, max_length=1_000_000)

    def array(self) -> NDArray[np.bool_]:
        """Bool ``[height, width]``.

        Raises:
            ParameterError: when bits or runs do not make one.
        """
        count = self.width * self.height
        if (self.bits is None) == (self.runs is None) or count > 2**26:
            raise ParameterError("A mask needs either bits or runs, and at most 67,108,864 pixels.")
        try:
            if self.bits is not None:
                flat = np.unpackbits(np.frombuffer(base64.b64decode(self.bits, validate=True), np.uint8))
                if not count <= len(flat) < count + 8:
                    raise ValueError
                flat = flat[:count]
            else:
                runs = self.runs or []
                if sum(runs) != count:
                    raise ValueError
                flat = np.repeat(np.arange(len(runs), dtype=np.uint8) % 2, runs)
        except (ValueError, binascii.Error) as error:
            size = f"{self.width} x {self.height}"
            raise ParameterError(f"The mask does not have {size} pixels; draw it again.") from error
        return flat.reshape(self.height, self.width).astype(bool)


class Region(_Strict):
    """What is removed, or kept: exactly one of these.

    Attributes:
        superpixel: a number of ``POST superpixels``.
    """

    rectangle: Box | None = None
    ellipse: Box | None = None
    mask: Mask | None = None
    superpixel: int | None = Field(None, ge=0)


class Ask(_Strict):
    """A question by hand: ``remove`` this region, or ``keep`` only it."""

    scan: Id
    model: Model
    remove: Region | None = None
    keep: Region | None = None
    removal: str | None = Field(None, max_length=100)


class Answer(BaseModel):
    """What the classifier says before and after.

    Attributes:
        clean, perturbed: probability (or the number that is measured) of each class.
        milliseconds: what the server worked on it, ``waited`` what it waited for its turn.
        out_of_distribution: p-value of the perturbed scan, small = like nothing the classifier has seen.
        removal: what stood where something was removed, and why that.
        area: share of the scan that was removed.
    """

    clean: dict[str, float]
    perturbed: dict[str, float]
    milliseconds: float
    waited: float
    out_of_distribution: float | None
    removal: str
    area: float
    engine: str


class Question(_Strict):
    """A question by hand that is to be kept, for the report.

    Attributes:
        note: a person's own words.
    """

    ask: Ask
    note: str = Field("", max_length=1000)


class KeptQuestion(BaseModel):
    """A question that was kept, with its answer."""

    id: Id
    made: str
    ask: Ask
    answer: Answer
    note: str


class EvaluateWanted(_Strict):
    """Does the score fall where the map says that it should?"""

    explanation: Id
    curves: list[Annotated[str, Field(max_length=40)]] = Field(
        default=["MoRF", "LeRF", "random"], min_length=1, max_length=10
    )
    regions: int = Field(100, ge=1, le=1000)
    repeats: int = Field(1, ge=1, le=20)


class WorklistEntry(ScanAbout):
    """A scan on the worklist: when it was opened last, how it was looked at, and its explanations, oldest first."""

    opened: str
    look: dict[str, Any]
    explanations: list[Id]


class Worklist(BaseModel):
    """What was opened, newest first."""

    entries: list[WorklistEntry]


class Opened(_Strict):
    """A scan that is looked at now.

    Attributes:
        look: whatever brings the same view back; kept as it is.
        listed: false takes the scan off the list.
    """

    scan: Id
    look: dict[str, Any] | None = None
    listed: bool = True

    @field_validator("look")
    @classmethod
    def _small(cls, look: dict[str, Any] | None) -> dict[str, Any] | None:
        if len(json.dumps(look)) > LOOK:
            raise ValueError(f"a view has at most {LOOK:,} bytes")
        return look
