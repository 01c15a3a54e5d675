"""Every kind of file and array that is read, as the page shows it: what it is, what happens, how it is made."""

# ruff: noqa: E501 (a row is a row)

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from bad_inputs import dicom, saved, volume
from lucency import Scan

L8 = np.linspace(0, 255, 24 * 18).reshape(18, 24).astype(np.uint8)
L16 = np.linspace(0, 65535, 24 * 18).reshape(18, 24).astype(np.uint16)
C8 = np.stack([L8, L8[::-1], L8[:, ::-1]], -1)
C16 = np.stack([L16, L16[::-1], L16[:, ::-1]], -1)
LUMA = np.array([0.299, 0.587, 0.114])
VOXELS = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)

# A picture of 24 x 16 in HEIC, which nothing here can write: 0, 200, 40 and 240 in its quarters.
HEIC = (
    "c-"
    "mc12~bm46n#Gnq{AYbuvO3i8Uwa&h!l+wHp^lW1OY*o7@+x@jgTS^6~fX|$<VPfK#fR3QE64QwnkQ2M^eC<23tWuASyJ)Qjk@agx~*#I@8{_oO"
    "ACx@4b630Kg_md{)Rwgwp_OJUD4L#(6L+2>>XSmndd|RkPzHa7Akz2w}Du{Lk!Ru7HgZA0~j%ff^)RMF8+pbaQ}Ve$rbPi<+ZOB5uv&q_THo)K"
    "mzIdG93iuuvpKu?H5i1t=z?GH-}LLaBTK6CtmGPPc&4b@+Jnh9wg+h7bf3;NL3nsH6_ZWT9s?F9`bYL31|2BKk(%>B~6G--B&9vy-"
    "UQzz1qcmTo}bC$j}y5ueRXL!&0ZK!S!SaEdT-tz_ofqO-"
    "XyEKjSoyv;B~5acO}I26?wu2z=@zby_c!3q}g{_QT>Fk%)CPs~NLDC8xu(C*^%=+JGW1oFdxE%6>T#hJ(iGMLF*nk-wyrhE~3H+6I(`ib_b!Z7"
    "w)Tu58ch5}a8mn$0=1kc;G8%z1gwW~mD_5mh(-"
    "ip%w_CcoDPMzmvOA_x?H+kueW>;Zl@w45UXYtlrx!X@$+wx3pe5Dp2MBa^&fcI=mCZQW6CMC0q(7Db407%p*&(15NZNFOned?iCRb+t%@U0S*d"
    "rMlDU$>VXkX5Ksz6r_MjMQcy?jFk&iXId-&Yc9{UU<Oej2~O)G&WsDt!^Tv4p`GeJx+1ej59$?;%dX7;&C+~M2`-YUmLXfh<-"
    "To`y#11K>}L+opx0_j*qDbv_P|wj+1VVO~^QZ_+rK0J9OiGd*2`llqwfLa_PS_TuGhM{I-"
    "c<t^i4L?gU4!@4Aq6e*Lla_D<3Z;A}x@Oa=!Tt}dQ>@puy>vIaOs((3zYRU7Q`&P?XJ>!%p|;*cq4qe5cfEJc*vpbu;|C~y7b!0D0PuPT(wucS"
    "@q0(RlLk2~>}+KhT7DLW!aqn%GTNk|~gtMT^rDCd`jse?cB2X09S6vz1XM;8lZ(^)gah3@HNVvj1Yg&Iuw+FwU;4to6gaaWjXhA+LR>D+RK?B`"
    "rhq(k1gCqsb|7UAa^C6wN#JVuCWs2oAEbsmam2UQm)j;xTU(_2{xvILG6J#qPX=7f4rESHt_gO&=G%QHO*BVTMM-*u}ZjK`K`%ve^+8-"
    "{Wt{seIYNVU6qPURy$RNrlD**{?DJAc2We~<$7H72Ga?-xv~`_-"
    "@N>S;$CWuf%?*{ac)1>9+&eX7H@G{|{fcx=2jEP2RwTPSh)Qg4hje>1XhOI63!mfbx!f9K_P7tgIbktNsP_nZ1YOV6wISUA!#Nqzwc;jucUmw("
    "5loNt}OG=GGJG{Qv`fvme{AHaoDGZ?|w75OQZt_~;0W~~$L&lw!|>q{Q|Yj3{9kP{Y+=PUI__XT=ihsqV{^JV3(%g1iUbd5e}{|>0wwT;u_H#e"
    "e5v-"
    "6GXEqUWJS2K}mwM_YDf3C5=z2MRNg=W17(lg!R($%0=cvl?SskW~FkOcTWaW^&Pr8_>QC3iS>R1}#oIiudeTh}RW0l%x&zYNNvJRyy(EG*5K+_"
    "#)Vn9tA-oWJNEB>4x{v>1W"
)


@dataclass(frozen=True)
class Kind:
    """One row of the page."""

    section: str
    kind: str
    happens: str
    make: Callable[[Path], Any]
    """From an empty folder to a path or to what is handed over."""
    pixels: NDArray[Any]
    """What the scan must hold, without its channel axis."""
    value_range: tuple[float, float]
    notices: tuple[str, ...] = ()
    """What its notices must say, each in one of them; none else."""
    spacing: tuple[float, ...] | None = None
    how: dict[str, Any] | None = None
    within: float = 0.01
    needs: str = ""

    def ready(self) -> None:
        if self.needs:
            pytest.importorskip(self.needs)

    def check(self, scan: Scan) -> None:
        assert scan.shape == self.pixels.shape
        assert np.abs(scan.pixels[0].numpy().astype(np.float64) - self.pixels).max() <= self.within
        assert scan.value_range == pytest.approx(self.value_range)
        assert scan.spacing == (None if self.spacing is None else pytest.approx(self.spacing))
        assert len(scan.notices) == len(self.notices), scan.notices
        for said, notice in zip(self.notices, scan.notices, strict=True):
            assert said in notice


def image(name: str, values: NDArray[Any], mode: str | None = None, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        picture = Image.fromarray(values)
        (picture if mode is None else picture.convert(mode)).save(folder / name, **options)
        return folder / name

    return make


def tiff(values: NDArray[Any], **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tifffile.imwrite(folder / "x.tif", values, **options)
        return folder / "x.tif"

    return make


def pages(name: str, **options: Any) -> Callable[[Path], Path]:
    more = [Image.fromarray(255 - L8), Image.fromarray(L8 // 2)]
    return image(name, L8, save_all=True, append_images=more, **options)


def turned(orientation: int) -> dict[str, Any]:
    exif = Image.Exif()
    exif[274] = orientation
    return {"exif": exif}


def deep_png(folder: Path) -> Path:
    import imagecodecs

    (folder / "x.png").write_bytes(imagecodecs.png_encode(C16))
    return folder / "x.png"


def heic(folder: Path) -> Path:
    (folder / "x.heic").write_bytes(zlib.decompress(base64.b85decode("".join(HEIC))))
    return folder / "x.heic"


def quarters() -> NDArray[np.uint8]:
    picture = np.zeros((16, 24), np.uint8)
    picture[:, 12:], picture[8:] = 200, picture[8:] + 40
    picture[8:, 12:] = 240
    return picture


def with_alpha(values: NDArray[Any]) -> NDArray[Any]:
    return np.dstack([values, np.where(np.arange(24) < 12, 255, 0) * np.ones((18, 1))]).astype(np.uint8)


def nifti(values: NDArray[Any], zooms: tuple[float, ...] = (1, 2, 3)) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        nibabel.save(nibabel.Nifti1Image(values, np.diag([*zooms, 1.0])), folder / "x.nii.gz")
        return folder / "x.nii.gz"

    return make


def upright(values: NDArray[Any]) -> NDArray[Any]:
    """``[x, y, z]`` to the right, the front and the head, as it is shown."""
    return np.flip(values.transpose(2, 1, 0), (1, 2))


def itk(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import SimpleITK

        picture = SimpleITK.GetImageFromArray(VOXELS.transpose(2, 1, 0))
        picture.SetSpacing((1, 2, 3))
        SimpleITK.WriteImage(picture, str(folder / name), useCompression=True)
        return folder / name

    return make


def slices(folder: Path, places: tuple[float, ...] = (0, 2.5, 5, 7.5), **tags: Any) -> Path:
    """A folder of CT slices, the numbers and names of which run against their places."""
    for i, place in enumerate(places):
        data = dicom(
            (np.arange(48).reshape(8, 6) + 100 * i).astype(np.uint16),
            Modality="CT",
            SeriesInstanceUID="1.2.3",
            InstanceNumber=len(places) - i,
            PixelSpacing=[0.5, 0.7],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, place],
            RescaleSlope=1,
            RescaleIntercept=-50,
            **tags,
        )
        saved(data, folder / f"{9 - i}.dcm")
    return folder


STACK = np.stack([np.arange(48).reshape(8, 6) + 100 * i - 50 for i in range(4)]).astype(np.float64)
LEVELS = (float(VOXELS.min()), float(VOXELS.max()))
OWN = "its own minimum and maximum"
GREY = "colour turned to grey"


def given(values: Any) -> Callable[[Path], Any]:
    return lambda _: values


KINDS = [
    # Pictures
    Kind("Pictures", "PNG, BMP, GIF or JPEG of 8 bits", "as it is, shown from 0 to 255", image("x.png", L8), L8, (0, 255)),
    Kind("Pictures", "JPEG 2000", "as it is; decoded in the worker", image("x.jp2", L8), L8, (0, 255)),
    Kind("Pictures", "WebP or AVIF", "as it is; decoded in the worker", image("x.webp", L8, lossless=True), L8, (0, 255)),
    Kind("Pictures", "HEIC (`pictures`)", "as it is; decoded in the worker", heic, quarters(), (0, 255), needs="pi_heif"),
    Kind("Pictures", "1-bit picture", "0 and 1", image("x.png", L8, "1"), np.asarray(Image.fromarray(L8).convert("1")), (0, 1)),
    Kind(
        "Pictures", "16-bit grey", "all 16 bits, shown from 0 to 65535 whatever the film holds, so that a series has one scale",
        image("x.png", L16), L16, (0, 65535),
    ),
    Kind(
        "Pictures", "16-bit grey whose values end early", "the same, with a notice that names the range to give if its series holds fewer bits",
        image("x.png", L16 // 16), L16 // 16, (0, 65535), ("if all films of its kind hold 12 bits, say value_range=(0, 4095)",),
    ),
    Kind(
        "Pictures", "16-bit grey with `value_range=(0, 4095)`", "shown over that range",
        image("x.png", L16 // 16), L16 // 16, (0, 4095), how={"value_range": (0, 4095)},
    ),
    Kind(
        "Pictures", "16-bit TIFF that states its largest value", "shown up to that, with a notice",
        tiff(L16 // 16, extratags=[(281, 3, 1, 4095, True)]), L16 // 16, (0, 4095), ("as the file states",),
    ),
    Kind("Pictures", "colour", "turned to grey (ITU-R BT.601 luma), with a notice", image("x.png", C8), C8 @ LUMA, (0, 255), (GREY,)),
    Kind("Pictures", "colour with equal channels", "one of them", image("x.png", L8, "RGB"), L8, (0, 255)),
    Kind(
        "Pictures", "16-bit colour TIFF", "turned to grey at full depth; without `pictures` the compressed ones at 8 bits, with a notice",
        tiff(C16, photometric="rgb"), C16 @ LUMA, (0, 65535), (GREY,),
    ),
    Kind(
        "Pictures", "16-bit colour PNG (`pictures`)", "turned to grey at full depth; without the extra at 8 bits, with a notice",
        deep_png, C16 @ LUMA, (0, 65535), (GREY,), needs="imagecodecs",
    ),
    Kind("Pictures", "palette of greys", "looked up, with a notice", image("x.png", L8, "P"), L8, (0, 255), ("palette",)),
    Kind(
        "Pictures", "palette of colours", "looked up and turned to grey, with notices",
        lambda folder: _palette(folder), C8 @ LUMA, (0, 255), ("palette", GREY), within=60,
    ),
    Kind(
        "Pictures", "transparency", "over black, with a notice",
        image("x.png", with_alpha(np.dstack([L8] * 3))), L8 * (np.arange(24) < 12), (0, 255), ("over black",),
    ),
    Kind(
        "Pictures", "CMYK TIFF", "turned to grey, with a notice", image("x.tif", C8, "CMYK"), C8 @ LUMA, (0, 255), (GREY,), within=2,
    ),
    Kind(
        "Pictures", "Lab TIFF", "its lightness, with a notice",
        tiff(np.dstack([L8, L8 * 0, L8 * 0]), photometric="cielab"), L8, (0, 255), ("lightness",),
    ),
    Kind(
        "Pictures", "white-is-zero TIFF, 1 to 64 bits", "turned round, with a notice",
        tiff(L16, photometric="miniswhite"), 65535 - L16.astype(float), (0, 65535), ("bright = dense",),
    ),
    Kind(
        "Pictures", "TIFF of signed, of 32- or 64-bit or of float numbers", "shown from its smallest to its largest value, with a notice; floats within 0 to 1 from 0 to 1",
        tiff(L16.astype(np.uint32) * 2**16), L16 * 2.0**16, (0, 65535 * 2.0**16), (OWN,), within=256,
    ),
    Kind("Pictures", "planar, tiled, big-endian, BigTIFF", "as it is", tiff(L16, tile=(16, 16), bigtiff=True, byteorder=">"), L16, (0, 65535)),
    Kind(
        "Pictures", "EXIF or TIFF orientation", "turned as a viewer turns it, with a notice",
        image("x.png", L8, **turned(6)), np.rot90(L8, -1), (0, 255), ("turned",),
    ),
    Kind("Pictures", "TIFF of several pages, animation", "the one that `frame=` names, counted from 1; an error without", pages("x.tif"), 255 - L8, (0, 255), how={"frame": 2}),
    # Volumes
    Kind(
        "Volumes", "NIfTI (`nifti`)", "D runs to the head, H to the back, W to the patient's left; spacing in mm from the affine; shown from its smallest to its largest value, with a notice",
        nifti(VOXELS), upright(VOXELS), LEVELS, (OWN,), (3, 2, 1),
    ),
    Kind("Volumes", "NRRD (`itk`)", "the same", itk("x.nrrd"), VOXELS.transpose(2, 1, 0), LEVELS, (OWN,), (3, 2, 1), needs="SimpleITK"),
    Kind("Volumes", "MetaImage, .mha or .mhd (`itk`)", "the same", itk("x.mha"), VOXELS.transpose(2, 1, 0), LEVELS, (OWN,), (3, 2, 1), needs="SimpleITK"),
    Kind(
        "Volumes", "a volume of one slice", "a picture for 2-D models, with the head above, with a notice",
        nifti(VOXELS[:, :, :1]), upright(VOXELS[:, :, :1])[0], (float(VOXELS[:, :, 0].min()), float(VOXELS[:, :, 0].max())), (OWN, "one slice"), (2, 1),
    ),
    Kind(
        "Volumes", "a time series (4-D)", "the volume that `frame=` names; an error without",
        nifti(np.stack([VOXELS, -VOXELS], 3)), upright(-VOXELS), (-LEVELS[1], -LEVELS[0]), (OWN,), (3, 2, 1), how={"frame": 2},
    ),
    Kind(
        "Volumes", "NaN in a volume", "background: the smallest value, with a notice",
        nifti(np.where(VOXELS > 1, np.nan, VOXELS).astype(np.float32)), upright(np.where(VOXELS > 1, VOXELS.min(), VOXELS)),
        (LEVELS[0], float(VOXELS[VOXELS <= 1].max())), ("NaN", OWN), (3, 2, 1),
    ),
    Kind(
        "Volumes", "spacing that is zero, negative, infinite or NaN", "dropped, with a notice",
        lambda folder: _spacing(folder), upright(np.arange(120.0).reshape(4, 5, 6)), (0, 119), ("orientation", "spacing", OWN), within=1e-3,
    ),
    Kind(
        "Volumes", "a folder of DICOM slices (`dicom`)", "a volume, ordered by position; shown over the window of the middle slice or over all values, with a notice",
        slices, STACK, (-50, 297 + 0), (OWN,), (2.5, 0.5, 0.7),
    ),
    Kind(
        "Volumes", "slices at uneven distances", "a notice that names the widest gap",
        lambda folder: slices(folder, (0, 2.5, 7.5, 10)), STACK, (-50, 297), ("one may be missing", OWN), (2.5, 0.5, 0.7),
    ),
    # Arrays
    Kind("Arrays", "`uint8`", "shown from 0 to 255", given(L8), L8, (0, 255)),
    Kind("Arrays", "`uint16`", "shown from 0 to 65535, with a notice where the values end early", given(L16), L16, (0, 65535)),
    Kind("Arrays", "other integers", "shown from the smallest to the largest value, with a notice", given(L16.astype(np.int64)), L16, (0, 65535), (OWN,)),
    Kind("Arrays", "bool", "shown from 0 to 1", given(L8 > 99), L8 > 99, (0, 1)),
    Kind("Arrays", "floats", "handed over untouched: 0 is black and 1 is white", given(L8 / 255), L8 / 255, (0, 1)),
    Kind("Arrays", "floats outside 0 to 1", "the same, with a notice", given(L8 / 1.0), L8, (0, 1), ("untouched",)),
    Kind("Arrays", "tensors of any dtype, on any device", "as arrays", given(torch.from_numpy(L8)), L8, (0, 255)),
    Kind("Arrays", "nested lists", "as the array that NumPy makes of them", given(L8.tolist()), L8, (0, 255), (OWN,)),
    Kind("Arrays", "`[H, W, 3]`", "colour: turned to grey, with a notice", given(C8), C8 @ LUMA, (0, 255), (GREY,)),
    Kind("Arrays", "`[H, W, 4]`", "colour over black, with notices", given(with_alpha(C8)), C8 @ LUMA * (np.arange(24) < 12), (0, 255), (GREY, "over black")),
    Kind("Arrays", "`[H, W, 1]`", "the channel", given(L8[..., None]), L8, (0, 255)),
    Kind("Arrays", "`[C, 1, H, W]`", "a picture, with a notice", given(L8[None, None]), L8, (0, 255), ("one slice",)),
    Kind(
        "Arrays", "masked array", "masked values take the smallest of the others, with a notice",
        given(np.ma.masked_greater(L8, 200)), np.where(L8 > 200, 0, L8), (0, 255), ("masked",),
    ),
    Kind("Arrays", "image of Pillow", "as its file, at the frame where it stands", given(Image.fromarray(L8)), L8, (0, 255)),
]  # fmt: skip


def _palette(folder: Path) -> Path:
    Image.fromarray(C8).convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "x.png")
    return folder / "x.png"


def _spacing(folder: Path) -> Path:
    """A volume whose header counts in units of no length, and has no affine."""
    path = volume(folder / "x.nii", np.arange(120.0).reshape(4, 5, 6))
    data = bytearray(path.read_bytes())
    data[80:84] = data[280:284] = np.float32(np.inf).tobytes()
    path.write_bytes(bytes(data))
    return path
