"""What every metric and check gives back: numbers that say what they mean, kept in a file, drawn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from lucency.errors import OutputError, ParameterError
from lucency.records import Record
from lucency.writing import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Better = Literal["higher", "lower", "neither"]
MOST_BYTES = 200_000_000


class Result(Record):
    """Base of the frozen dataclasses that metrics and checks give back.

    Attributes:
        definition: what the numbers are, in words, with the paper.
        better: which values of them speak for what is judged.
    """

    definition: ClassVar[str]
    better: ClassVar[Better] = "neither"

    def __repr__(self) -> str:
        parts = [f"{f.name}={_short(getattr(self, f.name))}" for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(parts)})"

    def save(self, path: str | Path) -> Path:
        """Writes it as JSON.

        Raises:
            OutputError: when the file cannot be written; what was there before is there still.
        """
        record = {"result": type(self).__name__, "definition": self.definition, "better": self.better}
        with whole(Path(path)) as part:
            part.write_text(json.dumps(record | self.as_dict(), allow_nan=False) + "\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what :meth:`save` wrote.

        Raises:
            OutputError: when the file is missing, damaged, or another result.
        """
        try:
            if Path(path).stat().st_size > MOST_BYTES:
                raise ValueError(f"{MOST_BYTES // 10**6} MB are the most")
            record = json.loads(Path(path).read_text())
            if not isinstance(record, dict) or record.get("result") != cls.__name__:
                raise ValueError(f"it says that it is {record.get('result') if isinstance(record, dict) else 'a list'}")
            return cls.from_dict(record)
        except (OSError, ValueError, RecursionError, ParameterError) as error:
            raise OutputError(f"{path} holds no {cls.__name__} that Lucency wrote ({error}); make it again.") from error

    def plot(self) -> Figure:
        """The numbers as a matplotlib figure.

        Raises:
            MissingExtraError: without the ``render`` extra.
        """
        from lucency.render.plots import plot

        return plot(self)


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{' x '.join(map(str, value.shape))} {value.dtype}>"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple) and len(value) > 6:
        return f"<{len(value)}>"
    return repr(value)
