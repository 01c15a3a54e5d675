"""``lucency pacs``: films come from a PACS, their explanations go back."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucency.cli.options import (
    DEFAULT_MODEL,
    Anonymous,
    AsJson,
    Authorities,
    Budget,
    Certificate,
    Device,
    Key,
    Memory,
    Model,
    PasswordFile,
    Removal,
    Seed,
    Settings,
    Target,
    TokenFile,
    Tolerance,
    TrustModel,
    User,
    Watch,
)

if TYPE_CHECKING:
    from lucency.pacs import Access, Rules
    from lucency.pacs.work import Question

EXAMPLES = """[bold]Examples:[/bold]

  lucency pacs listen --send-to ORTHANC@127.0.0.1:4242

  lucency pacs listen --host 0.0.0.0 --allow XRAY1 --send-to https://pacs/dicom-web --user lucency

  lucency pacs status

  lucency pacs fetch --dicomweb https://pacs/dicom-web --study 1.2.3 --out out/study
"""

app = typer.Typer(
    help="Explain the films of a PACS and send the maps back. Research only, not for diagnosis.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode="rich",
)

HERE = Path("lucency-pacs")
PlaceOf = Annotated[
    Path, typer.Option("--folder", metavar="DIR", help="Where films and jobs lie until they are done with.")
]
JobsAt = Annotated[
    str | None,
    typer.Option(
        "--jobs",
        metavar="URL",
        envvar="LUCENCY_JOBS",
        show_envvar=True,
        help="A PostgreSQL database for the jobs, postgresql://user@host/name; a file in DIR if left out. A password "
        "belongs into PGPASSWORD or ~/.pgpass.",
    ),
]
SendTo = Annotated[
    str,
    typer.Option("--send-to", metavar="WHERE", help="AET@HOST:PORT, or the https:// address of a DICOMweb archive."),
]
MayBeSentTo = Annotated[
    str | None,
    typer.Option("--send-to", metavar="WHERE", help="AET@HOST:PORT, or the https:// address of a DICOMweb archive."),
]
Title = Annotated[str, typer.Option("--aet", metavar="AET", help="Lucency's own title.")]
Method = Annotated[
    str, typer.Option("--method", metavar="NAME", help="How to find the evidence; `lucency methods` lists them.")
]
Modalities = Annotated[
    list[str] | None,
    typer.Option("--modality", metavar="M", help="Which modalities are explained; CR and DX if left out."),
]
Views = Annotated[
    list[str] | None, typer.Option("--view", metavar="V", help="Which views, such as PA and AP; any if left out.")
]
Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--body-part",
        metavar="P",
        help="Which body parts, UNKNOWN for films that do not say; any if left out, and for models of chest films "
        "CHEST, THORAX, LUNG and UNKNOWN.",
    ),
]
Doubtful = Annotated[
    bool, typer.Option("--doubtful", help="Explain also films that cannot be what the model reads; the doubt is said.")
]
Deidentify = Annotated[
    bool,
    typer.Option(
        "--deidentify",
        help="Leave the patient out of what is sent (DICOM PS3.15, basic profile); the pixels stay as they are.",
    ),
]
SendTls = Annotated[bool, typer.Option("--send-tls", help="Send to AET@HOST:PORT through TLS.")]


@app.command()
def listen(
    send_to: SendTo,
    aet: Title = "LUCENCY",
    host: Annotated[
        str, typer.Option(metavar="H", help="The address to listen on; others need --allow.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="The port to listen on; 0 for any.")] = 11112,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="AET", help="A title that may call; may be given several times."),
    ] = None,
    folder: PlaceOf = HERE,
    jobs: JobsAt = None,
    model: Model = DEFAULT_MODEL,
    trust_model: TrustModel = False,
    target: Target = None,
    method: Method = "occlusion",
    settings: Settings = None,
    removal: Removal = None,
    watch: Watch = "probability",
    budget: Budget = None,
    tolerance: Tolerance = None,
    memory: Memory = None,
    device: Device = "auto",
    seed: Seed = 0,
    modality: Modalities = None,
    view: Views = None,
    body_part: Parts = None,
    doubtful: Doubtful = False,
    deidentify: Deidentify = False,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    tls_ca: Authorities = None,
    send_tls: SendTls = False,
    user: User = None,
    password_file: PasswordFile = None,
    token_file: TokenFile = None,
) -> None:
    """Receive films by C-STORE, explain them, and send what is derived.

    A film is on the disk before its sender hears of success. Killed at any moment, the listener goes on where it was
    when it is started again; while the archive is away, it tries again. The same film is explained once. Ctrl-C stops.
    """
    from lucency.cli.console import say
    from lucency.pacs import Listener, destination

    access = access_of(tls_cert, tls_key, tls_ca, user, password_file, token_file)
    where = destination(send_to, aet=aet, access=access, tls=send_tls)
    question = _question(
        model, trust_model, target,
        method=method, settings=settings or [], removal=removal or "auto", watch=watch, budget=budget, device=device,
        seed=seed, memory=memory, tolerance=tolerance,
    )  # fmt: skip
    listener = Listener(
        folder,
        question,
        where,
        aet=aet,
        host=host,
        port=port,
        allowed=allow or (),
        rules=_rules(modality, view, body_part, doubtful),
        access=access,
        deidentify=deidentify,
        jobs=jobs,
    )
    with listener:
        say(f"{aet} listens on {host}:{listener.port} and sends to {where.name}; Ctrl-C stops.")
        threading.Event().wait()


@app.command()
def fetch(
    context: typer.Context,
    dicomweb: Annotated[str, typer.Option("--dicomweb", metavar="URL", help="The address of the archive.")],
    study: Annotated[str, typer.Option("--study", metavar="UID", help="The study whose films are explained.")],
    series: Annotated[
        str | None, typer.Option("--series", metavar="UID", help="One series of it; all if left out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="A folder of results for each film goes here.")
    ] = None,
    send_to: MayBeSentTo = None,
    aet: Title = "LUCENCY",
    model: Model = DEFAULT_MODEL,
    trust_model: TrustModel = False,
    target: Target = None,
    method: Method = "occlusion",
    settings: Settings = None,
    removal: Removal = None,
    watch: Watch = "probability",
    budget: Budget = None,
    tolerance: Tolerance = None,
    memory: Memory = None,
    device: Device = "auto",
    seed: Seed = 0,
    modality: Modalities = None,
    view: Views = None,
    body_part: Parts = None,
    doubtful: Doubtful = False,
    deidentify: Deidentify = False,
    folder: PlaceOf = HERE,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    tls_ca: Authorities = None,
    send_tls: SendTls = False,
    user: User = None,
    password_file: PasswordFile = None,
    token_file: TokenFile = None,
    anonymous: Anonymous = False,
    as_json: AsJson = False,
) -> None:
    """Explain the films of a study in a DICOMweb archive; write the results to DIR, send them, or both."""
    from lucency.cli.console import print_json, say, tell
    from lucency.cli.explain import Animation, write
    from lucency.errors import ParameterError
    from lucency.pacs import destination
    from lucency.pacs.destination import address
    from lucency.pacs.dicomweb import DicomWeb
    from lucency.pacs.fetching import fetched
    from lucency.pacs.inbox import Inbox
    from lucency.privacy import shown_command

    if out is None and send_to is None:
        raise ParameterError("The results have nowhere to go; give --out DIR, --send-to WHERE, or both.")
    access = access_of(tls_cert, tls_key, tls_ca, user, password_file, token_file)
    archive = DicomWeb(address(dicomweb), access)
    where = None if send_to is None else destination(send_to, aet=aet, access=access, tls=send_tls)
    question = _question(
        model, trust_model, target,
        method=method, settings=settings or [], removal=removal or "auto", watch=watch, budget=budget, device=device,
        seed=seed, memory=memory, tolerance=tolerance,
    )  # fmt: skip
    secret = Inbox(folder).folder / "secret" if deidentify else None
    rules = _rules(modality, view, body_part, doubtful)
    said: list[dict[str, Any]] = []
    for one in fetched(archive, study, series, question, rules=rules, destination=where, secret=secret):
        record: dict[str, Any] = {"instance": one.instance}
        if one.explanation is not None:
            explanation = one.explanation.anonymous() if anonymous else one.explanation
            record |= {"target": explanation.target, "probability": explanation.probability}
            if out is not None:
                write(out / one.instance, explanation, None, Animation.none, shown_command(context.obj))
                record["folder"] = str(out / one.instance)
        if one.delivery is not None:
            record |= {"sent": len(one.delivery.kept), "verified": one.delivery.verified}
        if one.refused or one.error:
            record |= {"not explained": one.refused} if one.refused else {"error": one.error}
        said.append(record)
        if not as_json:
            what = one.refused or one.error
            (tell if one.error else say)(f"{one.instance}: {what}" if what else _line(record))
    if as_json:
        print_json({"films": said})
    if any("error" in record for record in said):
        raise typer.Exit(2)


@app.command()
def send(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="DICOM files.", show_default=False)],
    send_to: SendTo,
    aet: Title = "LUCENCY",
    tls_cert: Certificate = None,
    tls_key: Key = None,
    tls_ca: Authorities = None,
    send_tls: SendTls = False,
    user: User = None,
    password_file: PasswordFile = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Send DICOM files, such as those of `lucency dicom`, and read back that they are there."""
    from lucency.cli.console import print_json, say, tell
    from lucency.pacs import destination
    from lucency.pacs.work import header_of

    access = access_of(tls_cert, tls_key, tls_ca, user, password_file, token_file)
    where = destination(send_to, aet=aet, access=access, tls=send_tls)
    for file in files:
        header_of(file)
    found = where.deliver(files)
    if as_json:
        print_json({"kept": list(found.kept), "left_out": dict(found.left_out), "verified": found.verified})
        return
    for name, why in found.left_out.items():
        tell(f"{name} was left out: {why}.")
    asked = "has them, as it says when asked" if found.verified else "took them; it cannot be asked whether it has them"
    say(f"{where.name} {asked}: {len(found.kept)} of {len(files)}.")


@app.command()
def status(
    folder: PlaceOf = HERE,
    jobs: JobsAt = None,
    state: Annotated[
        str | None, typer.Option("--state", metavar="S", help='Only films in this state, such as failed or "to send".')
    ] = None,
    most: Annotated[int, typer.Option("--most", metavar="N", min=1, help="How many films, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """What came, what went, what failed and why."""
    from dataclasses import asdict

    from lucency.cli.console import out, print_json, say
    from lucency.pacs.worklist import Worklist

    with Worklist(folder, jobs) as found:
        counts = found.counts()
        rows = found.rows(state=state, most=most)
    if as_json:
        films = [{**asdict(row), "came": row.came.isoformat(), "changed": row.changed.isoformat()} for row in rows]
        print_json({"counts": counts, "films": films})
        return
    say(", ".join(f"{number} {name}" for name, number in counts.items()) or "No film has come yet.")
    if not rows:
        return
    from rich.table import Table
    from rich.text import Text

    from lucency.privacy import printable

    table = Table(box=None, pad_edge=False)
    for name in ("film", "came (UTC)", "what", "state", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        what = f"{row.modality} {row.view}".strip()
        if row.target:
            what += f", {row.target}" + (f" {row.probability:.3f}" if row.probability is not None else "")
        why = row.why + (f" (tried {row.tries} times, again at {row.again})" if row.again else "")
        if row.left_out:
            why = f"without {', '.join(row.left_out)}"
        cells = (row.film[:12], f"{row.came:%Y-%m-%d %H:%M:%S}", what, row.state, why)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    out.print(table)


@app.command()
def retry(
    film: Annotated[
        str | None, typer.Argument(metavar="FILM", help="A film as `status` names it; all that failed if left out.")
    ] = None,
    folder: PlaceOf = HERE,
    jobs: JobsAt = None,
    as_json: AsJson = False,
) -> None:
    """Try again what failed or was cancelled; a listener that runs takes it up, or the next one."""
    from lucency.cli.console import print_json, say
    from lucency.pacs.worklist import Worklist

    with Worklist(folder, jobs) as found:
        tried = found.retry(film)
    if as_json:
        print_json({"films": tried})
    else:
        say(f"Tried again: {', '.join(one[:12] for one in tried)}." if tried else "Nothing has failed.")


def access_of(
    certificate: Path | None,
    key: Path | None,
    authorities: Path | None,
    user: str | None,
    password_file: Path | None,
    token_file: Path | None,
) -> Access:
    from lucency.pacs import Access

    return Access(certificate, key, authorities, user, password_file, token_file)


def _rules(modality: list[str] | None, view: list[str] | None, part: list[str] | None, doubtful: bool) -> Rules:
    from lucency.pacs import Rules
    from lucency.pacs.rules import RADIOGRAPHS

    return Rules(modality or RADIOGRAPHS, view or (), part or (), doubtful)


def _question(model: str, trust: bool, target: str | None, **how: Any) -> Question:
    from lucency import Explainer
    from lucency.cli.model import classifier_named
    from lucency.pacs.work import Question

    return Question(Explainer(classifier_named(model, trust=trust), **how), target)


def _line(record: dict[str, Any]) -> str:
    words = f"{record['instance']}: {record['target']}"
    if record["probability"] == record["probability"]:
        words += f", probability {record['probability']:.3f}"
    if "folder" in record:
        words += f"; {record['folder']}"
    if "sent" in record:
        words += f"; {record['sent']} objects sent" + (", and they are there" if record["verified"] else "")
    return words
