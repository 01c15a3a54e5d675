"""Opening scans: files, folders of slices, phantoms, the gallery; and showing them."""

from __future__ import annotations

import json
import struct
import tempfile
import threading
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
import numpy as np
import torch
from fastapi import APIRouter, Header, Query, Request, Response

from lucency.errors import ScanError
from lucency.privacy import printable
from lucency.reading import read_scan
from lucency.scan import Scan
from lucency.serve.catalogue import MethodAbout, ModelAbout, RemovalAbout, about_model, all_methods, all_removals
from lucency.serve.common import BINARY, Shop, User
from lucency.serve.errors import NotThereError
from lucency.serve.schemas import GalleryEntry, Id, PhantomWanted, ScanAbout, Scores, ScoresWanted
from lucency.serve.workshop import Workshop
from lucency.viewer import pack, packed_film

router = APIRouter(tags=["scans"])

FOLDER = "application/x-lucency-folder"
SUFFIXES = ("dcm", "dicom", "png", "jpg", "jpeg", "tif", "tiff", "bmp", "gif", "webp", "jp2", "j2k", "avif", "heic",
            "npy", "nii", "nii.gz", "nrrd", "mha")  # fmt: skip
"""Endings that say what a file is; whatever else a name says stays outside."""
MOST_SLICES = 4096
DECODERS = threading.Semaphore(2)

GALLERY: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "demo": ("Simulated film with an effusion", "The film of the demonstration; its fluid is on the right.", None),
    "healthy": ("Simulated film without fluid", "A simulated patient with nothing in the pleura.", {"volume_ml": 0}),
    "left": ("Effusion on the left", "300 ml of fluid on the patient's left.", {"side": "left", "volume_ml": 300}),
    "both": ("Effusions on both sides", "400 ml of fluid on each side.", {"side": "both", "volume_ml": 400}),
    "small": ("A small effusion", "100 ml of fluid on the right, near what can be seen.", {"volume_ml": 100}),
}


@router.get("/models")
def list_models(shop: Shop) -> list[ModelAbout]:
    """The classifiers that may be asked; the first is the page's own choice."""
    return [about_model(bench.classifier, bench.known is not None) for bench in shop.benches.all.values()]


@router.get("/methods")
def list_methods() -> list[MethodAbout]:
    """The methods with their parameters."""
    return all_methods()


@router.get("/removals")
def list_removals() -> list[RemovalAbout]:
    """What may stand where something was removed."""
    return all_removals()


@router.get("/gallery")
def list_gallery() -> list[GalleryEntry]:
    """What can be opened without a file."""
    return [GalleryEntry(name=n, title=title, summary=words) for n, (title, words, _) in GALLERY.items()]


@router.post("/gallery/{name}")
def open_gallery(name: str, shop: Shop) -> ScanAbout:
    """Opens one of them."""
    if name not in GALLERY:
        raise NotThereError(f"The gallery has no {name!r:.40}; it has {', '.join(GALLERY)}.")
    title, _, phantom = GALLERY[name]
    if phantom is None:
        film = read_scan(Path(str(files("lucency.phantom") / "demo.png")))
        return kept(shop, film, title)
    return _simulated(shop, {"seed": 11, "size": 512, **phantom}, title)


@router.post("/phantoms")
def make_phantom(wanted: PhantomWanted, shop: Shop) -> ScanAbout:
    """Simulates a radiograph whose fluid is known."""
    fluid = f"{wanted.volume:g} ml, {wanted.side}" if wanted.volume else "no fluid"
    about = {"seed": wanted.seed, "volume_ml": wanted.volume, "side": wanted.side, "size": wanted.size}
    return _simulated(shop, about, f"Phantom {wanted.seed}: {fluid}")


def _simulated(shop: Workshop, about: dict[str, Any], title: str) -> ScanAbout:
    from lucency.phantom import simulate

    seed = about.pop("seed")
    with DECODERS:
        made = simulate(seed, **about)
    film = Scan.from_array(made.image.clip(0, 1), spacing=made.spacing_mm, source="phantom")
    return kept(shop, film, title, torch.from_numpy(made.truth_mm))


@router.post(
    "/scans",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                BINARY: {"schema": {"type": "string", "format": "binary"}},
                FOLDER: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
async def open_scan(
    request: Request,
    shop: Shop,
    x_filename: Annotated[str, Header(max_length=1000)] = "",
    frame: Annotated[int | None, Query(ge=1, le=1_000_000)] = None,
    window: Annotated[str | None, Query(max_length=200)] = None,
    low: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    high: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> ScanAbout:
    """Opens a file: the body is the file, ``X-Filename`` (percent-encoded) its name, of which the ending counts.

    A folder of slices is sent as ``application/x-lucency-folder``: uint32 N (little-endian), N bytes of JSON
    ``{"sizes": [bytes of each file, ...]}``, then the files one after another.
    ``frame``, ``window`` and ``low`` with ``high`` are those of ``lucency explain``.
    """
    from urllib.parse import unquote

    title = unquote(x_filename).replace("\\", "/").rpartition("/")[2]
    as_folder = request.headers.get("content-type", "").partition(";")[0].strip() == FOLDER
    with tempfile.TemporaryDirectory(prefix="lucency-upload-") as place:
        body = Path(place) / f"scan{_ending(title)}"
        with body.open("wb") as file:
            async for chunk in request.stream():
                await anyio.to_thread.run_sync(file.write, chunk)
        shown = None if low is None or high is None else (low, high)
        options = {"frame": frame, "window": window, "value_range": shown}
        return await anyio.to_thread.run_sync(_opened, shop, body, as_folder, title, options)


def _opened(shop: Workshop, body: Path, as_folder: bool, title: str, options: dict[str, Any]) -> ScanAbout:
    try:
        film = shop.reader.read(_unfolded(body) if as_folder else body, **options)
    except ScanError:
        shop.metrics.refused()
        raise
    return kept(shop, film, title)


def _ending(name: str) -> str:
    """``.dcm`` of ``Mr X.DCM``: one of those that are known, or nothing."""
    low = name.lower()
    return next((f".{s}" for s in sorted(SUFFIXES, key=len, reverse=True) if low.endswith(f".{s}")), "")


def _unfolded(body: Path) -> Path:
    """The slices that a body holds, as files numbered by us.

    Raises:
        ScanError: when it does not hold what it says.
    """
    folder = body.parent / "slices"
    folder.mkdir()
    with body.open("rb") as file:
        try:
            (length,) = struct.unpack("<I", file.read(4))
            sizes = json.loads(file.read(min(length, 2**20)))["sizes"]
            if not 1 <= len(sizes) <= MOST_SLICES or not all(isinstance(n, int) and n > 0 for n in sizes):
                raise ValueError
            if 4 + length + sum(sizes) != body.stat().st_size:
                raise ValueError
        except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ScanError(
                f"The folder does not hold 1 to {MOST_SLICES} files of the sizes that it names; send it again."
            ) from error
        for i, size in enumerate(sizes):
            (folder / f"{i:05}.dcm").write_bytes(file.read(size))
    return folder


def kept(shop: Workshop, scan: Scan, title: str, truth: torch.Tensor | None = None) -> ScanAbout:
    """Keeps a scan and says what it is."""
    if shop.settings.anonymous or not title:
        title = f"scan {scan.sha256[:12]}"
    about = ScanAbout(
        scan=scan.sha256,
        title=printable(title)[:200],
        width=scan.shape[-1],
        height=scan.shape[-2],
        slices=scan.shape[0] if len(scan.shape) == 3 else 1,
        channels=len(scan.pixels),
        spacing=None if scan.spacing is None else list(scan.spacing),
        value_range=list(scan.value_range),
        notices=list(scan.notices),
        view=scan.view,
        modality=scan.modality,
        truth=truth is not None,
    )
    shop.store.add_scan(scan, about.model_dump(), truth)
    return about


@router.get("/scans/{scan}")
def about_scan(scan: Id, shop: Shop) -> ScanAbout:
    """What is known of a scan."""
    return ScanAbout(**shop.store.about_scan(scan))


@router.delete("/scans/{scan}", status_code=204)
def delete_scan(scan: Id, shop: Shop) -> None:
    """Deletes a scan, its explanations, the questions asked about it and its files."""
    shop.forget(scan)


@router.get("/scans/{scan}/film", response_class=Response, responses={200: {"content": {BINARY: {}}}})
def film(scan: Id, shop: Shop, plane: Annotated[int | None, Query(ge=0, alias="slice")] = None) -> Response:
    """The film, packed: ``data`` uint16 ``[H, W]`` or ``[H, W, 3]``; of a volume one slice.

    In the header: ``range``, the file's values that 0 and 65535 stand for, and ``shown``, those that are black and
    white at first.
    """
    picture, about = shop.scan(scan), shop.store.about_scan(scan)
    pixels = picture.display
    if pixels.ndim == 4:
        depth = pixels.shape[1]
        plane = depth // 2 if plane is None else plane
        if plane >= depth:
            raise NotThereError(f"The volume has slices 0 to {depth - 1}; there is no {plane}.")
        pixels = pixels[:, plane]
    header, data = packed_film(pixels.numpy())
    low, high = picture.value_range
    header |= {key: [low + v * (high - low) for v in header[key]] for key in ("range", "shown")}
    spacing = None if picture.spacing is None else list(picture.spacing[-2:])
    header |= {"spacing": spacing, "title": about["title"], "slice": plane, "slices": about["slices"]}
    return _packed(header, {"data": data})


@router.get("/scans/{scan}/truth", response_class=Response, responses={200: {"content": {BINARY: {}}}})
def truth(scan: Id, shop: Shop) -> Response:
    """What a phantom's rays cross, packed: ``data`` uint8 ``[H, W]``, 0..255 = 0 to ``deepest`` mm of fluid."""
    found = shop.store.truth(scan)
    deepest = float(found.max())
    data = (found / max(deepest, 1e-9) * 255).round().astype(np.uint8)
    # A pixel with any fluid counts as fluid.
    data = np.maximum(data, (found > 0).astype(np.uint8))
    return _packed({"deepest": deepest, "unit": "mm"}, {"data": data})


@router.post("/scores")
async def scores(wanted: ScoresWanted, shop: Shop, user: User) -> Scores:
    """What a classifier says of the clean scan."""
    import asyncio

    future = await anyio.to_thread.run_sync(shop.scores, wanted.scan, wanted.model, user)
    return Scores(**await asyncio.wrap_future(future))


def _packed(header: dict[str, Any], arrays: dict[str, Any]) -> Response:
    # The name is a hash of the content, so it never changes.
    return Response(pack(header, arrays), media_type=BINARY, headers={"Cache-Control": "private, max-age=86400"})
