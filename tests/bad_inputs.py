"""Files of every kind, and every way in which what a user hands over can be wrong, with what the error must say."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from torch import Tensor, nn

from lucency import Scan, explain, load_classifier, read_scan

SIZE = (12, 10)


class Net(nn.Module):
    """Four logits from a grey picture."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.pool(self.relu(self.conv(x))).flatten(1))
        return out


class Raises(Net):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such thing\nsecond line")


class Nan(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.nan


class Pair(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), super().forward(x)


class OneSize(Net):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != SIZE:
            raise ValueError("another size")
        return super().forward(x)


def ramp(dtype: str = "uint16", top: int = 4095) -> NDArray[np.generic]:
    return np.linspace(0, top, 64 * 48).reshape(64, 48).astype(dtype)


def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)


def dicom(values: NDArray[np.generic], **tags: object) -> Dataset:
    """A secondary capture of these stored values, with tags as they are given."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = values.itemsize * 8
    data.BitsStored = tags.pop("BitsStored", values.itemsize * 8)
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def saved(data: Dataset, path: Path) -> Path:
    data.save_as(path, enforce_file_format=True)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def cut(path: Path, keep: float = 0.5) -> Path:
    data = path.read_bytes()
    return written(path, data[: int(len(data) * keep)])


def array(path: Path, values: object) -> Path:
    np.save(path, values)  # type: ignore[arg-type]
    return path


def picture(path: Path, values: NDArray[np.generic], mode: str | None = None) -> Path:
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def volume(path: Path, values: NDArray[np.generic]) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


def changed(path: Path, offset: int, new: bytes) -> Path:
    """A volume of 4 x 5 x 6 with other bytes in its header; packed where the name says so."""
    data = bytearray(volume(path.with_name("whole.nii"), np.arange(120.0).reshape(4, 5, 6)).read_bytes())
    data[offset : offset + len(new)] = new
    return written(path, gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))


def without_length(path: Path) -> Path:
    return changed(path, 42, bytes(2))


def without_end(path: Path) -> Path:
    return changed(path, 42, struct.pack("<3h", 600, 600, 600))


def huge_array(path: Path) -> Path:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (100_000, 100_000)}
        )
        file.truncate(100_000 * 100_000 * 4 + 128)
    return path


def huge_png(path: Path) -> Path:
    """A small file whose header promises 60,000 x 60,000 pixels."""
    data = bytearray(picture(path, noise()).read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = __import__("zlib").crc32(data[12:29]).to_bytes(4, "big")
    return written(path, bytes(data))


def unknown_syntax(path: Path) -> Path:
    data = dicom(ramp())
    saved(data, path)
    old, new = str(ExplicitVRLittleEndian).encode(), b"1.2.840.10008.1.9.9"
    assert len(old) == len(new)
    return written(path, path.read_bytes().replace(old, new, 1))


def contradictory() -> bytes:
    """A JPEG-LS film of 40 rows whose header says 64: decoders abort on it."""
    from hostile.made_films import edited, film

    return edited(film("JPEGLSLossless"), "Rows", 64)


def without_pixels(path: Path) -> Path:
    data = dicom(ramp())
    del data.PixelData
    data.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.88.22")
    return saved(data, path)


def pages(path: Path) -> Path:
    page = Image.fromarray(ramp("uint8", 255))
    page.save(path, save_all=True, append_images=[page])
    return path


class Harm:
    """What a hostile file would run if it were unpickled."""

    ran = False

    def __reduce__(self) -> tuple[object, ...]:
        return (setattr, (Harm, "ran", True))


def program(path: Path, batch: int | None = None) -> Path:
    """The network as an exported program, of any batch or of a fixed one."""
    dynamic = None if batch else {"x": {0: torch.export.Dim("n", min=1, max=64)}}
    torch.export.save(
        torch.export.export(Net().eval(), (torch.rand(batch or 2, 1, *SIZE),), dynamic_shapes=dynamic), path
    )
    return path


def hostile_program(path: Path) -> Path:
    """An exported program whose sample inputs are a pickle that runs code."""
    good = program(path).read_bytes()
    with zipfile.ZipFile(io.BytesIO(good)) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            harmful = name.endswith("sample_inputs/model.pt")
            target.writestr(name, pickle.dumps(Harm()) if harmful else source.read(name))
    return path


def weights(path: Path) -> Path:
    torch.save(Net().state_dict(), path)
    return path


def brightness(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x.mean((2, 3))


def ask(**options: object) -> Callable[[Path], object]:
    return lambda _: explain(Scan(torch.rand(1, 9, 9)), load_classifier(Net(), input_size=SIZE), **options)  # type: ignore[arg-type]


def net(**options: object) -> Callable[[Path], object]:
    return lambda _: load_classifier(Net(), **options)  # type: ignore[arg-type]


# What is wrong, the file's name (or the call) as the page shows it, what makes and uses it, what the error must say.
Bad = tuple[str, str, Callable[[Path], object], str]

BAD_SCANS: list[Bad] = [
    ("no such file", "nowhere.png", read_scan, "cannot be opened"),
    ("a folder without slices", "films", lambda p: read_scan(folder(p)), "is a folder without DICOM slices"),
    ("an empty file", "empty.dcm", lambda p: read_scan(written(p, b"")), "is empty"),
    ("text in a file called DICOM", "text.dcm", lambda p: read_scan(written(p, b"not an image" * 40)), "not a DICOM"),
    ("text in a file called PNG", "text.png", lambda p: read_scan(written(p, b"hello")), "does not begin as"),
    ("some other kind of file", "notes.txt", lambda p: read_scan(written(p, b"hello")), "no DICOM, picture"),
    ("a truncated DICOM", "cut.dcm", lambda p: read_scan(cut(saved(dicom(ramp()), p))), "damaged"),
    ("a truncated PNG", "cut.png", lambda p: read_scan(cut(picture(p, noise()))), "damaged"),
    ("a truncated JPEG", "cut.jpg", lambda p: read_scan(cut(picture(p, noise()))), "damaged"),
    ("a truncated TIFF", "cut.tif", lambda p: read_scan(cut(picture(p, noise()))), "damaged"),
    ("a truncated array", "cut.npy", lambda p: read_scan(cut(array(p, ramp()))), "damaged"),
    ("a truncated volume", "cut.nii.gz", lambda p: read_scan(cut(volume(p, np.ones((9, 9, 9))))), "damaged"),
    (
        "a compressed DICOM whose header says another size",
        "lies.dcm",
        lambda p: read_scan(written(p, contradictory())),
        "its data holds 40 x 48 pixels",
    ),
    (
        "a DICOM without that window",
        "film.dcm",
        lambda p: read_scan(saved(dicom(ramp(), WindowCenter=9, WindowWidth=9), p), window="BONE"),
        "has no window 'BONE'",
    ),
    (
        "a DICOM of two frames",
        "frames.dcm",
        lambda p: read_scan(saved(dicom(ramp(), NumberOfFrames=2, PixelData=ramp().tobytes() * 2), p)),
        "2 frames",
    ),
    ("a DICOM report", "report.dcm", lambda p: read_scan(without_pixels(p)), "holds no picture"),
    ("a transfer syntax that nothing decodes", "odd.dcm", lambda p: read_scan(unknown_syntax(p)), "cannot be decoded"),
    (
        "a DICOM without its colour palette",
        "table.dcm",
        lambda p: read_scan(saved(dicom(ramp("uint8", 255), PhotometricInterpretation="PALETTE COLOR"), p)),
        "palette",
    ),
    (
        "a DICOM of 65,535 x 65,535 pixels",
        "large.dcm",
        lambda p: read_scan(saved(dicom(ramp(), Rows=65535, Columns=65535), p)),
        "more than",
    ),
    ("a TIFF of two pages", "pages.tif", lambda p: read_scan(pages(p)), "several pages"),
    ("a page that there is not", "pages.tif", lambda p: read_scan(pages(p), frame=3), "no page 3"),
    ("a window of a picture", "film.png", lambda p: read_scan(picture(p, noise()), window="BONE"), "no windows"),
    (
        "a value range upside down",
        "film.png",
        lambda p: read_scan(picture(p, noise()), value_range=(255, 0)),
        "must be the smaller",
    ),
    ("a PNG of 60,000 x 60,000 pixels", "large.png", lambda p: read_scan(huge_png(p)), "more than"),
    ("an array of 100,000 x 100,000 pixels", "large.npy", lambda p: read_scan(huge_array(p)), "more than"),
    (
        "an array of Python objects",
        "objects.npy",
        lambda p: read_scan(array(p, np.array([{}, None]))),
        "Python objects",
    ),
    ("NaN in the pixels", "nan.npy", lambda p: read_scan(array(p, np.array([[0, np.nan]]))), "NaN"),
    ("numbers beyond float32", "inf.npy", lambda p: read_scan(array(p, np.array([[0, 1e300]]))), "infinite"),
    ("complex numbers", "complex.npy", lambda p: read_scan(array(p, np.ones((3, 3), complex))), "real numbers"),
    ("a line of numbers", "line.npy", lambda p: read_scan(array(p, np.arange(9))), "shape"),
    ("one value throughout", "flat.png", lambda p: read_scan(picture(p, noise() * 0)), "same value"),
    (
        "rows of different lengths",
        "from_array([[1, 2], [3]])",
        lambda p: Scan.from_array([[1, 2], [3]]),
        "regular array",
    ),
    ("a NIfTI with an axis of length 0", "empty.nii", lambda p: read_scan(without_length(p)), "axis of length 0"),
    ("a time series", "series.nii", lambda p: read_scan(volume(p, np.ones((4, 4, 4, 3)))), "3 volumes"),
    ("a NIfTI whose header promises too much", "cut.nii.gz", lambda p: read_scan(without_end(p)), "ends before"),
]

BAD_MODELS: list[Bad] = [
    ("no such model", "lucency:nothing", lambda p: load_classifier("lucency:nothing"), "No shipped model"),
    ("no such model file", "nothing.onnx", load_classifier, "There is no model"),
    ("a number", "load_classifier(3)", lambda p: load_classifier(3), "no classifier"),  # type: ignore[arg-type]
    ("a class instead of an instance", "load_classifier(Net)", lambda p: load_classifier(Net), "is a class"),
    ("rubbish called ONNX", "m.onnx", lambda p: load_classifier(written(p, b"rubbish")), "ONNX Runtime"),
    ("rubbish called PyTorch", "m.pt", lambda p: load_classifier(written(p, b"rubbish")), "not a model file"),
    ("a pickled state dict", "weights.pt", lambda p: load_classifier(weights(p)), "can run anything"),
    (
        "a program with a harmful pickle inside",
        "m.pt2",
        lambda p: load_classifier(hostile_program(p)),
        "can run anything",
    ),
    (
        "nothing that tells the classes",
        "load_classifier(net)",
        lambda p: load_classifier(OneSize()),
        "how many classes",
    ),
    ("too few class names", "classes=['a']", net(classes=["a"], input_size=SIZE), "4 outputs and has 1"),
    (
        "logits said to be probabilities",
        "outputs='probabilities'",
        net(input_size=SIZE, outputs="probabilities"),
        "said to give probabilities",
    ),
    ("a misspelt option", "outputs='sigmoid'", net(input_size=SIZE, outputs="sigmoid"), "outputs is 'sigmoid'"),
    ("an impossible input size", "input_size=224", net(input_size=224), "input_size is 224"),
    ("a spread of zero", "std=(0,)", net(input_size=SIZE, std=(0,)), "std is 0"),
    (
        "a network that raises",
        "load_classifier(net)",
        lambda p: load_classifier(Raises(), classes=["a"], input_size=SIZE),
        "no such thing; check",
    ),
    ("a network that gives NaN", "load_classifier(net)", lambda p: load_classifier(Nan(), input_size=SIZE), "NaN"),
    (
        "a network that gives two of everything",
        "load_classifier(net)",
        lambda p: load_classifier(Pair(), input_size=SIZE),
        "say it with output=",
    ),
]

BAD_QUESTIONS: list[Bad] = [
    (
        "a thing that is no scan",
        "explain(object(), ...)",
        lambda p: explain(object(), load_classifier(Net(), input_size=SIZE)),
        "read_scan",
    ),
    (
        "a thing that is no classifier",
        "explain(scan, 3)",
        lambda p: explain(Scan(torch.rand(1, 9, 9)), 3),  # type: ignore[arg-type]
        "is no classifier",
    ),
    ("a number in place of a method", "method=3", ask(method=3), "is no method"),
    ("a method that there is not", "method='occulsion'", ask(method="occulsion"), "use one of"),
    ("a class number with a fraction", "target=1.5", ask(target=1.5), "no class 1.5"),
    (
        "a volume for a flat model",
        "explain(volume, ...)",
        lambda p: explain(Scan(torch.rand(1, 4, 4, 4)), load_classifier(Net(), input_size=SIZE)),
        "2-D",
    ),
    (
        "two channels for a grey model",
        "explain(scan, ...)",
        lambda p: explain(Scan(torch.rand(2, 9, 9)), load_classifier(Net(), input_size=SIZE)),
        "channel",
    ),
    ("a class that there is not", "target='oedema'", ask(target="oedema"), "no class"),
    ("a class number out of range", "target=4", ask(target=4), "0 to 3"),
    ("a quantity that there is not", "watch='colour'", ask(watch="colour"), "Nothing called"),
    ("a layer that there is not", "watch='layer:x'", ask(watch="layer:x"), "no layer"),
    ("a layer without maps", "watch='layer:head'", ask(watch="layer:head"), "no feature maps"),
    (
        "gradients of a black box",
        "method='gradient'",
        lambda p: explain(Scan(torch.rand(1, 9, 9)), load_classifier(brightness, classes=["a"]), method="gradient"),
        "black box",
    ),
]


def message(act: Callable[[Path], object], path: Path) -> str:
    """What the user reads, with the folder of the file left out."""
    from lucency import LucencyError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            act(path)
    except LucencyError as error:
        return f"{type(error).__name__}: {error}".replace(f"{path.parent}/", "").replace(str(path.parent), "the folder")
    raise AssertionError(f"{path.name} was accepted")
