"""Speaking to the user: words on stdout or one JSON object, progress on stderr."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from lucency.privacy import printable

if TYPE_CHECKING:
    from lucency.methods import Step
    from lucency.work import Stage

# Names of classes, files and layers come from strangers: nothing in them is markup.
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def line(*parts: str | tuple[str, str]) -> Text:
    """Words, and ``(words, style)`` pairs, on their way to a terminal that nothing in them can steer."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((printable(words), style) for words, style in pairs))


def say(*parts: str | tuple[str, str]) -> None:
    """A line on stdout."""
    out.print(line(*parts))


def tell(sentence: str) -> None:
    """A sentence on stderr, for what is beside the result."""
    with suppress(OSError):
        err.print(line(sentence), soft_wrap=True)


def print_json(record: Mapping[str, Any] | list[Any]) -> None:
    """One JSON value."""
    text = json.dumps(plain(record), ensure_ascii=False, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        plainly = printable(text) == text
    except UnicodeEncodeError:
        plainly = False
    print(text if plainly else json.dumps(plain(record), allow_nan=False))


def plain(value: Any) -> Any:
    """The value in JSON's terms; what JSON has no word for (NaN, infinities) becomes null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Bar:
    """A progress bar fed by the stream of steps."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=1.0, note="")

    def start(self, title: str) -> None:
        """A new piece of work begins."""
        self._progress.reset(self._task, description=printable(title), note="")

    def step(self, step: Step) -> None:
        """Shows how far the method is."""
        self._progress.update(self._task, completed=step.done, note=f"{step.evaluations} evaluations")

    def stage(self, stage: Stage[Any]) -> None:
        """Shows how far other long work is."""
        self.share(stage.done, stage.doing)

    def share(self, done: float, note: str = "") -> None:
        """Shows how far anything else is, 0..1."""
        self._progress.update(self._task, completed=done, note=printable(note))

    def note(self, note: str) -> None:
        """Shows what is being done, where nobody knows how much there is."""
        self._progress.update(self._task, note=printable(note))


@contextmanager
def progress() -> Iterator[Bar]:
    """A bar on stderr where a person watches it, and silence elsewhere."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as shown:
        yield Bar(shown)


@contextmanager
def cancelled_by_ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that the map so far is kept; a second one ends the program."""
    event = threading.Event()

    def first(_signal: int, _frame: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
