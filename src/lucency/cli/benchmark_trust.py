"""``lucency benchmark-trust``: methods x removals where the truth is known, and what follows for the defaults."""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucency.cli.options import AsJson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lucency.methods import Method
    from lucency.metrics.trust import Record
    from lucency.removal import Removal

METHODS = "occlusion,occlusion:patch=32,lime,shapley,rise:samples=1000,integrated_gradients,gradcam,layercam,smoothgrad"
REMOVALS = "constant,mean,blur"

EXAMPLES = """[bold]Examples:[/bold]

  lucency benchmark-trust --out out/trust --phantoms 20 --minutes 10

  lucency benchmark-trust --out out/trust --methods occlusion:patch=32,rise:samples=500 --removals constant,blur --jobs 4

  lucency benchmark-trust --out out/trust --films ../shared/xrays
"""  # noqa: E501


def benchmark_trust(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write to, and to go on in.")
    ],
    phantoms: Annotated[int, typer.Option(metavar="N", help="Phantoms with 25 to 1,000 ml of fluid.")] = 200,
    films: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Real films: nih/, nih_boxes.csv and nih_labels.csv; none if left out."),
    ] = None,
    methods: Annotated[
        str, typer.Option(metavar="A,B,C", help="Methods, with settings as in occlusion:patch=32.")
    ] = METHODS,
    removals: Annotated[
        str, typer.Option(metavar="A,B,C", help="Removals, with settings as in blur:sigma=20.")
    ] = REMOVALS,
    watch: Annotated[str, typer.Option(metavar="W", help="What is watched: probability, logit.")] = "probability",
    minutes: Annotated[
        float | None, typer.Option(metavar="N", help="Stop after this time; the same command goes on later.")
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", help="Processes.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure methods and removals where the truth is known, and recommend the defaults of `lucency explain`.

    DIR gets rows.jsonl (one finished row a line; the same command goes on from there), trust.json and trust.md. A
    contestant that takes four times as long as most sees fewer scans when the time is short. The recommendation is
    chosen on every other phantom and reported on the rest.
    """
    import time

    from lucency.cli.console import cancelled_by_ctrl_c, print_json, progress, say, tell
    from lucency.cli.folder import results
    from lucency.cli.trust_page import markdown, tables
    from lucency.errors import ParameterError
    from lucency.privacy import shown_command

    if phantoms < 0 or jobs < 1 or (minutes is not None and minutes <= 0):
        raise ParameterError("--phantoms must be 0 or more, --jobs 1 or more and --minutes above 0.")
    tasks = list(_tasks(phantoms, films, contestants(methods, removals), removals, watch, folder))
    if not tasks:
        raise ParameterError("There is nothing to measure; ask for phantoms, or name a folder with --films.")
    started = time.perf_counter()
    with _only(folder) as file, progress() as bar, cancelled_by_ctrl_c() as cancelled:
        rows, damaged = _kept(file, tasks)
        if damaged:
            tell(f"Skipped {damaged} line(s) of {file} that are damaged or cut off; their rows are made again.")
        bar.start("Trust")

        def over() -> bool:
            return cancelled.is_set() or (minutes is not None and time.perf_counter() - started > 60 * minutes)

        total = len(tasks)
        with _opened(file) as keep:
            for row in _done(tasks, list(rows), jobs, over):
                rows.append(row)
                keep(row)
                bar.share(len(rows) / total, f"{row['case']}, {row['method'] or row['removal']}")
    command = shown_command(context.obj)
    with results(folder, "benchmark-trust") as place:
        page = markdown(rows, command)
        (place / "trust.md").write_text(page)
        (place / "trust.json").write_text(json.dumps(tables(rows), indent=1) + "\n")
    if as_json:
        print_json({**tables(rows), "rows": len(rows), "of": len(tasks)})
        return
    say(page)
    say(f"{len(rows)} of {len(tasks)} rows. Wrote rows.jsonl, trust.json, trust.md to {folder}")
    if tables(rows)["recommendation"] is None:
        say("Too few phantoms for a recommendation yet; run the same command again.")


def contestants(methods: str, removals: str) -> list[tuple[str, str, Method]]:
    """``(method, removal, the method with it)`` for every combination; a method that removes nothing comes once.

    Raises:
        ParameterError: when a method, a removal or a setting does not exist.
    """
    from lucency.cli.evaluate import named
    from lucency.methods import method_named

    found: list[tuple[str, str, Method]] = []
    for spec in named(methods):
        name, *settings = spec.split(":")
        how = method_named(name, settings)
        if how.removal is None:
            found.append((spec, "", how))
            continue
        found += [(spec, removal, with_removal(name, settings, removal)) for removal in named(removals)]
    return found


def with_removal(name: str, settings: Sequence[str], removal: str) -> Method:
    """The method with a removal given as in ``blur:sigma=20``."""
    from lucency.methods import method_named

    standing, *inner = removal.split(":")
    return method_named(name, [*settings, f"removal={standing}", *(f"removal.{setting}" for setting in inner)])


def removal_with(spec: str) -> Removal:
    """The removal given as in ``blur:sigma=20``."""
    from lucency.methods.occlusion import Occlusion

    how = with_removal("occlusion", [], spec)
    assert isinstance(how, Occlusion)
    return how.removal


EFFUSION = "effusion"
PATIENCE = 4
"""How many times the time of the median contestant one may take before it has to wait for the others."""


class Task:
    """One row to make: what a worker process needs, and nothing that cannot travel to it."""

    def __init__(
        self, what: str, kind: str, case: Any, method: str, removal: str, how: Any, watch: str, kept: Path
    ) -> None:
        self.what, self.kind, self.case, self.method, self.removal = what, kind, case, method, removal
        self.how, self.watch, self.kept = how, watch, kept

    @property
    def key(self) -> tuple[str, ...]:
        return self.what, self.kind, str(self.case), self.method, self.removal, self.watch

    @property
    def contestant(self) -> tuple[str, ...]:
        return self.what, self.kind, self.method, self.removal

    @property
    def prints(self) -> tuple[str, str]:
        """The weights that it is made with: of the classifier, and of what stands where something is gone."""
        removal = self.how if self.what == "removal" else getattr(self.how, "removal", None)
        return _fingerprint(self.kind), getattr(removal, "fingerprint", "")


MODELS = {"phantom": "lucency:phantom"}
FILMS = "lucency:effusion"


def _tasks(
    phantoms: int, films: Path | None, hows: Sequence[tuple[str, str, Method]], removals: str, watch: str, folder: Path
) -> Iterator[Task]:
    from lucency.cli.evaluate import named

    kept = folder / "cases"
    standing = [(name, removal_with(name)) for name in named(removals)]
    cases: list[tuple[str, Any]] = [("phantom", i) for i in range(phantoms)]
    if films is not None:
        from lucency.metrics.films import boxed, findings, normal, simulated

        # One after the other: the first is what the phantoms have too.
        known = [finding for finding in findings(films) if finding in _engine("box").classifier.classes]
        for some in (*(boxed(films, finding) for finding in known), normal(films), simulated(films)):
            cases += [(film.kind, film) for film in some]
    for kind, case in cases:
        if kind != "normal":
            for method, removal, how in hows:
                yield Task("map", kind, case, method, removal, how, watch, kept)
        if not kind.startswith("box"):
            for removal, what in standing:
                yield Task("removal", kind, case, "", removal, what, watch, kept)


KEY = ("what", "kind", "key", "method", "removal", "watch")


@contextmanager
def _only(folder: Path) -> Iterator[Path]:
    """The file of rows, for one process at a time; the death of a process frees it.

    Raises:
        OutputError: when another process has it, or it cannot be written.
    """
    from filelock import Timeout

    from lucency.errors import OutputError
    from lucency.writing import alone, reason

    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / ".benchmark-trust.lock"):
            yield folder / "rows.jsonl"
    except Timeout as error:
        raise OutputError(
            f"Another benchmark-trust is at work in {folder}; wait for its end or name another --out."
        ) from error
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({reason(error)}); name another --out.") from error
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()  # nothing was put there


def _kept(file: Path, tasks: Sequence[Task]) -> tuple[list[Record], int]:
    """The rows of an earlier run that this one wants, made with the same weights, and how many lines are damaged."""
    if not file.exists():
        return [], 0
    wanted = {task.key: task.prints for task in tasks}
    rows: dict[tuple[str, ...], Record] = {}
    damaged = 0
    for line in file.read_bytes().decode(errors="replace").splitlines():
        try:
            row = json.loads(line)
            key = tuple(row[k] for k in KEY)
            prints = row["fingerprint"], row.get("painter", "")
            usable = all(isinstance(k, str) for k in key) and row["case"] is not None and float(row["took"]) >= 0
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            usable = not line.strip()  # an empty one is what a cut line was closed with
            key = ()
        if not usable:
            damaged += 1
        elif key in wanted and prints == wanted[key]:
            rows.setdefault(key, row)
    return list(rows.values()), damaged


@contextmanager
def _opened(file: Path) -> Iterator[Callable[[Record], None]]:
    """What adds a row to the file; nothing that is there is touched."""
    from lucency.errors import OutputError
    from lucency.writing import reason

    def failed(error: OSError) -> OutputError:
        return OutputError(f"{file} cannot be written ({reason(error)}); free space or name another --out.")

    try:
        opened = file.open("ab", buffering=0)
        if opened.tell() and file.read_bytes()[-1:] != b"\n":
            # Whoever wrote last was killed in the middle of a line.
            opened.write(b"\n")
    except OSError as error:
        raise failed(error) from error

    def add(row: Record) -> None:
        line = json.dumps(row).encode() + b"\n"
        try:
            if opened.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise failed(error) from error

    with opened:
        yield add


def _done(tasks: Sequence[Task], rows: Sequence[Record], jobs: int, over: Any) -> Iterator[Record]:
    """Makes what is missing, scan by scan for all contestants; one that takes far more time than most has to wait."""
    import multiprocessing
    import statistics
    from collections import defaultdict
    from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool

    from lucency.errors import ParameterError

    made = {tuple(row[k] for k in KEY) for row in rows}
    todo: dict[tuple[str, ...], list[Task]] = defaultdict(list)
    for task in tasks:
        if task.key not in made:
            todo[task.contestant].append(task)
    spent = dict.fromkeys(todo, 0.0)
    for row in rows:
        who = row["what"], row["kind"], row["method"], row["removal"]
        spent[who] = spent.get(who, 0.0) + row["took"]
    wanted = {who: sum(task.contestant == who for task in tasks) for who in todo}

    def next_one() -> Task | None:
        left = [who for who, some in todo.items() if some]
        if not left or over():
            return None
        bound = PATIENCE * max(1.0, statistics.median(spent.values()))
        quick = [who for who in left if spent[who] <= bound]
        who = min(quick, key=lambda who: wanted[who] - len(todo[who])) if quick else min(left, key=spent.__getitem__)
        return todo[who].pop(0)

    if jobs == 1:
        while (one := next_one()) is not None:
            row = made_row(one)
            spent[one.contestant] += row["took"]
            yield row
        return
    # Ctrl-C is for this process: the others finish their rows.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _deaf) as pool:
        running: dict[Future[Record], Task] = {}
        try:
            while True:
                while len(running) < jobs and (one := next_one()) is not None:
                    running[pool.submit(made_row, one)] = one
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED)[0]:
                    task, row = running.pop(future), future.result()
                    spent[task.contestant] += row["took"]
                    yield row
        except BrokenProcessPool as error:
            raise ParameterError(
                "A process died, most likely for want of memory; run the same command with fewer --jobs."
            ) from error


def _deaf() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


_ENGINES: dict[str, Any] = {}


def _engine(kind: str) -> Any:
    """The engine for cases of that kind; one for each process."""
    from lucency.classifier.loading import load_classifier
    from lucency.engine import Engine

    name = MODELS.get(kind, FILMS)
    if name not in _ENGINES:
        _ENGINES[name] = Engine(load_classifier(name))
    return _ENGINES[name]


def _fingerprint(kind: str) -> str:
    return str(_engine(kind).classifier.fingerprint)


@lru_cache(2)
def _case(kind: str, case: Any, kept: Path) -> Any:
    """The scan with its truth; most contestants ask for the same one, one after the other."""
    from lucency.metrics.trust import phantom_case

    return phantom_case(case, kept) if kind == "phantom" else case.case()


def made_row(task: Task) -> Record:
    """One row, in whatever process."""
    import time

    from lucency.errors import LucencyError, OutputError
    from lucency.metrics.trust import gold_map, kept_array, map_row, removal_row

    engine = _engine(task.kind)
    started = time.process_time()
    try:
        case = _case(task.kind, task.case, task.kept)
    except OutputError:
        # A full disk is no property of a scan.
        raise
    except LucencyError as error:
        case, row = None, {"error": str(error), "took": time.process_time() - started}
    if case is not None and task.what == "removal":
        row = removal_row(case, task.how, engine, EFFUSION)
    elif case is not None:
        gold = None
        if case.twin is not None:
            file = task.kept / f"gold-{case.kind}-{case.name}-{task.watch}-{engine.classifier.fingerprint[:12]}.npz"
            gold = kept_array(file, lambda: gold_map(case, engine, EFFUSION, task.watch))
        row = map_row(case, task.how, engine, getattr(task.case, "finding", EFFUSION), task.watch, gold)
    about: Record = {"case": str(task.case)} if case is None else {"case": case.name, "half": case.half, **case.about}
    return {
        "what": task.what, "kind": task.kind, "key": str(task.case), "method": task.method, "removal": task.removal,
        "watch": task.watch, "fingerprint": task.prints[0], "painter": task.prints[1], **about, **row,
    }  # fmt: skip
