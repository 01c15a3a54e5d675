"""Models that are named, and files that can act."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bad_inputs import SIZE, Net, program
from lucency import Scan, load_classifier, plugins
from lucency.classifier import Classifier
from lucency.cli.model import classifier_named
from lucency.errors import ModelError


def library(name: str) -> Any:
    """The optional package, or a skipped test that says why it is one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except Exception as error:
        pytest.skip(f"{name} cannot be imported here ({type(error).__name__}: {str(error)[:80]})")


def sees_the_same(
    classifier: Classifier, theirs: Callable[[Image.Image], torch.Tensor], *, centred: bool = True, edge: int = 0
) -> None:
    """What the network is given of a film is what its own library gives it: but for 8 bits, and for half a pixel where
    their crop is not ``centred``, as of an odd number of pixels it cannot be; ``edge`` pixels at the edge left out."""
    coarse = np.random.default_rng(1).uniform(0, 255, (3, 4)).astype(np.uint8)
    for size, most in (((512, 512), 0.012 if centred else 0.05), ((640, 480), 0.05)):
        film = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        scan = Scan.from_array(np.array(film), value_range=(0, 255))
        ours = classifier.normalise(classifier.prepare(scan)[None])[0]
        wanted = theirs(film.convert("RGB"))
        assert ours.shape == wanted.shape
        far = (ours - wanted).abs()[:, edge : ours.shape[1] - edge, edge : ours.shape[2] - edge]
        assert far.max() * min(classifier.std) < most


def scripted(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Net().eval()), str(path))
    return path


class Entry:
    """An installed package's entry point."""

    def __init__(self, name: str, thing: object) -> None:
        self.name, self.thing = name, thing

    def load(self) -> object:
        if isinstance(self.thing, Exception):
            raise self.thing
        return self.thing


def mine(name: str, *, classes: tuple[str, ...] = ("a", "b", "c", "d")) -> Classifier:
    return load_classifier(Net(), input_size=SIZE, classes=classes)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    there = [Entry("mine", mine), Entry("broken", ImportError("no\nsuch thing")), Entry("odd", lambda name: 3)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: there if group == "lucency.classifiers" else [])
    plugins.found.cache_clear()
    yield
    plugins.found.cache_clear()


@pytest.mark.usefixtures("entries")
def test_other_packages_add_ways_in() -> None:
    with pytest.warns(UserWarning, match=r"'broken' .*cannot be loaded .*no such thing"):
        assert load_classifier("mine:net").classes == ("a", "b", "c", "d")
    assert load_classifier("mine:net", classes=list("wxyz"), trust=True).classes == ("w", "x", "y", "z")
    with pytest.raises(ModelError, match=r"mine: cannot be used so .*'mean'"):
        load_classifier("mine:net", mean=[0.5])
    with pytest.raises(ModelError, match="int instead of a Classifier"):
        load_classifier("odd:net")


@pytest.mark.parametrize(("name", "acts"), [("m.pt", "write files when it runs"), ("m.pt2", "runs Python")])
def test_files_that_can_act_wait_for_trust(tmp_path: Path, name: str, acts: str) -> None:
    path = scripted(tmp_path / name) if name == "m.pt" else program(tmp_path / name)
    with pytest.raises(ModelError, match=rf"{acts}.*trust=True \(--trust-model\); safe are ONNX"):
        load_classifier(path, input_size=SIZE)
    with pytest.raises(ModelError, match="--trust-model"):
        classifier_named(str(path))
    path.with_suffix(".json").write_text(json.dumps({"input_size": SIZE, "trust": True}))
    with pytest.raises(ModelError, match="trust means nothing there"):
        classifier_named(str(path))
    path.with_suffix(".json").write_text(json.dumps({"input_size": SIZE}))
    assert classifier_named(str(path), trust=True).input_size == SIZE


@pytest.mark.usefixtures("entries")
def test_a_description_names_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "chest.json"

    def described(**content: Any) -> Classifier:
        about.write_text(json.dumps(content))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return classifier_named(str(about))

    assert described(model="mine:net", classes=list("wxyz")).classes == ("w", "x", "y", "z")
    assert described(model="lucency:phantom").name == "lucency:phantom"
    for content, says in (
        ({"classes": ["a"]}, "names no model"),
        ({"model": "mine:net", "colour": 1}, "colour means nothing"),
        ({"model": "https://elsewhere.example/v2/models/m"}, "would send scans to https://elsewhere"),
        ({"model": "nothing.onnx"}, "no model"),
    ):
        with pytest.raises(ModelError, match=says):
            described(**content)
    program(tmp_path / "net.pt2")
    about.write_text(json.dumps({"model": "net.pt2", "classes": list("wxyz")}))
    monkeypatch.chdir(tmp_path.parent)
    assert classifier_named(str(about), trust=True).classes == ("w", "x", "y", "z")
    (tmp_path / "net.json").write_text(json.dumps({"model": "lucency:phantom"}))
    with pytest.raises(ModelError, match="names a model of its own"):
        classifier_named(str(tmp_path / "net.pt2"), trust=True)


def test_weights_belong_to_a_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds its own weights"):
        load_classifier(program(tmp_path / "m.pt2"), weights="w.safetensors")


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_a_scan_is_cropped_and_resampled_as_pictures_are(interpolation: Any) -> None:
    """224 pixels out of the middle of 256, as everything trained on ImageNet sees them; against Pillow."""
    small = np.random.default_rng(0).uniform(0, 255, (6, 5)).astype(np.uint8)
    film = Image.fromarray(small).resize((500, 600), Image.Resampling.BICUBIC)
    classifier = load_classifier(
        Net(), input_size=(224, 224), fit="crop", crop_share=224 / 256, interpolation=interpolation, clip=True
    )
    scan = Scan.from_array(np.array(film), value_range=(0, 255))
    kind = Image.Resampling.BICUBIC if interpolation == "cubic" else Image.Resampling.BILINEAR
    theirs = np.asarray(film.resize((256, 307), kind), np.float32)[41 : 41 + 224, 16 : 16 + 224] / 255
    ours = classifier.prepare(scan)[0].numpy()
    assert ours.shape == theirs.shape
    # Half a pixel of the film, where their crop falls between two, and 8 bits.
    assert np.abs(ours - theirs).max() < 0.02
    assert np.abs(ours - theirs).mean() < 0.005


@pytest.mark.parametrize(("option", "value"), [("crop_share", 0), ("crop_share", "all"), ("interpolation", "bicubic")])
def test_odd_croppings_are_refused(option: str, value: object) -> None:
    with pytest.raises(ModelError, match=option):
        load_classifier(Net(), input_size=SIZE, **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("resnet18.a1_in1k", {}),
        ("vit_tiny_patch16_224", {"num_classes": 3}),
        ("swin_tiny_patch4_window7_224", {"num_classes": 2}),
        ("convnext_atto", {"num_classes": 4, "in_chans": 1}),
        ("resnet18", {"num_classes": 1, "in_chans": 1}),
    ],
)
def test_timm_networks_with_weights_of_ones_own(tmp_path: Path, name: str, changed: dict[str, int]) -> None:
    timm = library("timm")
    data = library("timm.data")
    network = timm.create_model(name, **changed).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    classifier = load_classifier(f"timm:{name}", weights=tmp_path / "w.safetensors")
    channels = changed.get("in_chans", 3)
    count = changed.get("num_classes", 1000)
    assert (classifier.channels, len(classifier.classes)) == (channels, count)
    assert len({c.lower() for c in classifier.classes}) == count
    if count == 1000:
        assert classifier.classes[1].startswith("goldfish")
    x = torch.rand(2, channels, *(classifier.input_size or ()))
    with torch.no_grad():
        assert torch.allclose(classifier(x), network(classifier.normalise(x)), atol=1e-5)
    if channels == 3:
        transform = data.create_transform(**data.resolve_model_data_config(network), is_training=False)
        sees_the_same(classifier, transform, centred="a1" not in name)


def test_timm_weights_come_from_its_own_store_and_never_from_afar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = library("timm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"not on this machine and Lucency fetches nothing"):
        load_classifier("timm:resnet18.a1_in1k")
    place = tmp_path / "models--timm--resnet18.a1_in1k"
    (place / "snapshots" / "abc").mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    network = timm.create_model("resnet18").eval()
    save_file(network.state_dict(), place / "snapshots" / "abc" / "model.safetensors")
    classifier = load_classifier("timm:resnet18.a1_in1k")
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(classifier(x), network(classifier.normalise(x)), atol=1e-5)
    for name in ("hf-hub:timm/resnet18.a1_in1k", "nothing", "local-dir:/tmp"):
        with pytest.raises(ModelError, match="timm has no network"):
            load_classifier(f"timm:{name}")


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 1000), ("resnet18", 2), ("swin_t", 3), ("googlenet", 2), ("densenet121", 2), ("squeezenet1_1", 2)],
)
def test_torchvision_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    models = library("torchvision.models")
    options: dict[str, Any] = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    network = models.get_model(name, num_classes=count, **options).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    classifier = load_classifier(f"torchvision:{name}", weights=tmp_path / "w.safetensors")
    assert (classifier.channels, len(classifier.classes)) == (3, count)
    weights = models.get_model_weights(name).DEFAULT
    sees_the_same(classifier, weights.transforms())
    if name == "googlenet":
        network.transform_input = True
    x = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(classifier(x), network(classifier.normalise(x)), atol=1e-5)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError, match="not on this machine"):
        load_classifier(f"torchvision:{name}")
    if count == 1000:
        (tmp_path / "checkpoints").mkdir()
        torch.save(network.state_dict(), tmp_path / "checkpoints" / weights.url.rpartition("/")[2])
        fetched = load_classifier(f"torchvision:{name}.IMAGENET1K_V1")
        assert fetched.classes[1] == "goldfish"
        with torch.no_grad():
            assert torch.allclose(classifier(x), fetched(x), atol=1e-6)
        torch.save(network, tmp_path / "checkpoints" / weights.url.rpartition("/")[2])
        with pytest.raises(ModelError, match="damaged or no state dict"):
            load_classifier(f"torchvision:{name}")


def test_weights_that_do_not_fit_say_so(tmp_path: Path) -> None:
    models = library("torchvision.models")
    file = tmp_path / "w.safetensors"
    state = models.resnet18(num_classes=2).state_dict()
    save_file({f"module.{name}": value.half() for name, value in state.items()}, file)
    assert load_classifier("torchvision:resnet18", weights=file, classes=["no", "yes"]).classes == ("no", "yes")
    with pytest.raises(ModelError, match=r"do not fit torchvision:resnet50: .* name the network"):
        load_classifier("torchvision:resnet50", weights=file)
    file.write_bytes(b"rubbish")
    for weights in (file, tmp_path / "nothing.safetensors"):
        with pytest.raises(ModelError, match="holds no weights that Lucency reads"):
            load_classifier("torchvision:resnet18", weights=weights)
    for name, says in (("resnet18.BEST", "no weights 'BEST'"), ("fasterrcnn_resnet50_fpn", "no classifier")):
        with pytest.raises(ModelError, match=says):
            load_classifier(f"torchvision:{name}")


def hugging_face(folder: Path, kind: str, **changed: Any) -> tuple[Any, Any]:
    """A tiny classifier and its image processor, saved as Transformers does."""
    t = library("transformers")
    labels = {"id2label": {0: "normal", 1: "effusion"}, "label2id": {"normal": 0, "effusion": 1}}
    small = {
        "vit": lambda: t.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=64,
            patch_size=16, **labels,
        ),
        "convnext": lambda: t.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], **labels),
        "resnet": lambda: t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], **labels),
        "efficientnet": lambda: t.EfficientNetConfig(image_size=64, width_coefficient=0.2, depth_coefficient=0.2,
                                                     hidden_dim=256, **labels),
    }[kind]()  # fmt: skip
    for key, value in changed.pop("config", {}).items():
        setattr(small, key, value)
    torch.manual_seed(0)
    network = t.AutoModelForImageClassification.from_config(small).eval()
    network.save_pretrained(folder)
    maker = {"vit": t.ViTImageProcessor, "convnext": t.ConvNextImageProcessor, "resnet": t.BitImageProcessor,
             "efficientnet": t.EfficientNetImageProcessor}[kind]  # fmt: skip
    processor = maker(**changed)
    processor.save_pretrained(folder)
    return network, processor


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("vit", {"size": {"height": 64, "width": 64}}),
        ("vit", {"size": {"height": 64, "width": 64}, "do_normalize": False}),
        ("convnext", {"size": {"shortest_edge": 56}}),
        ("convnext", {"size": {"shortest_edge": 384}}),
        ("resnet", {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}),
        ("efficientnet", {"size": {"height": 64, "width": 64}, "rescale_factor": 1 / 127.5, "rescale_offset": True}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_folders(
    tmp_path: Path, kind: str, changed: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    network, processor = hugging_face(tmp_path, kind, **changed)
    capfd.readouterr()
    classifier = load_classifier(f"hf:{tmp_path}")
    assert capfd.readouterr() == ("", "")
    assert (classifier.classes, classifier.channels) == (("normal", "effusion"), 3)
    sees_the_same(
        classifier, lambda film: processor(film, return_tensors="pt")["pixel_values"][0], centred=kind != "convnext"
    )
    x = torch.rand(2, 3, *(classifier.input_size or ()))
    with torch.no_grad():
        assert torch.allclose(classifier.forward(x).logits, network(pixel_values=x).logits, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_folders_that_are_not_safe_or_whole(tmp_path: Path) -> None:
    hugging_face(
        tmp_path, "vit", size={"height": 64, "width": 64}, config={"problem_type": "multi_label_classification"}
    )
    assert not load_classifier(f"hf:{tmp_path}").exclusive
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "evil.Config"}}))
    with pytest.raises(ModelError, match="asks for auto_map"):
        load_classifier(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ModelError, match="do not fit its config"):
        load_classifier(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps(config))
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor | {"size": {"longest_edge": 9}}))
    with pytest.raises(ModelError, match="does not say a size"):
        load_classifier(f"hf:{tmp_path}")
    odd = {
        "image_processor_type": "MobileViTImageProcessor",
        "do_flip_channel_order": True,
        "do_normalize": False,
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 64, "width": 64},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor | odd))
    with pytest.raises(ModelError, match="does more than resize"):
        load_classifier(f"hf:{tmp_path}")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="save model and image processor"):
        load_classifier(f"hf:{tmp_path}")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no whole model in safetensors"):
        load_classifier(f"hf:{tmp_path}")
    for wrong in ("google/vit-base-patch16-224", str(tmp_path / "nowhere")):
        with pytest.raises(ModelError, match="takes a local folder"):
            load_classifier(f"hf:{wrong}")


DENSE = {
    "_target_": "DenseNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": "@classes",
    "init_features": 4,
    "growth_rate": 2,
    "block_config": [1, 1],
}
READ = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1},
    {"_target_": "Resized", "keys": "image", "spatial_size": [48, 40]},
    {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.4, "divisor": 0.2},
]
STRAIGHT = [{**READ[0], "reverse_indexing": False}, *READ[1:]]


def bundle(folder: Path, steps: list[dict[str, Any]], **config: Any) -> Any:
    """A bundle with a small network and its weights; gives the network."""
    nets = library("monai.networks.nets")
    torch.manual_seed(0)
    network = nets.DenseNet(**{**{k: v for k, v in DENSE.items() if k != "_target_"}, "out_channels": 2}).eval()
    data = {
        "inputs": {"image": {"num_channels": 1, "spatial_shape": [48, 40]}},
        "outputs": {"pred": {"channel_def": {"0": "normal", "1": "effusion"}}},
    }
    inference = {
        "classes": 2,
        "network_def": DENSE,
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}],
        },
        **config,
    }
    for name in ("configs", "models"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": data}))
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return network


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("steps", "black_box"),
    [
        (STRAIGHT, False),
        (READ, True),
        ([*READ, {"_target_": "Transposed", "keys": "image", "indices": [0, 2, 1]}], False),
        ([*STRAIGHT[:4], {"_target_": "NormalizeIntensityd", "keys": "image"}], False),
        ([*READ[:2], READ[3]], True),
    ],
)
def test_monai_bundles(tmp_path: Path, steps: list[dict[str, Any]], black_box: bool) -> None:
    network = bundle(tmp_path, steps)
    classifier = load_classifier(f"monai:{tmp_path}")
    assert (classifier.classes, classifier.channels, classifier.exclusive) == (("normal", "effusion"), 1, False)
    assert (classifier.module is None) == black_box
    transposes = steps[-1]["_target_"] == "Transposed"
    assert classifier.input_size == ((40, 48) if black_box or transposes else (48, 40))
    coarse = np.random.default_rng(1).uniform(0, 255, (3, 4)).astype(np.uint8)
    film = Image.fromarray(coarse).resize((400, 480), Image.Resampling.BICUBIC)
    film.save(tmp_path / "film.png")
    transforms = library("monai.transforms")
    pipeline = transforms.Compose(
        [getattr(transforms, s["_target_"])(**{k: v for k, v in s.items() if k != "_target_"}) for s in steps]
    )
    with torch.no_grad():
        theirs = network(torch.as_tensor(pipeline({"image": tmp_path / "film.png"})["image"])[None])
        scan = Scan.from_array(np.array(film), value_range=(0, 255))
        ours = classifier(classifier.prepare(scan)[None])
    assert torch.allclose(ours, theirs, atol=0.02 * float(theirs.abs().max()))


@pytest.mark.filterwarnings("ignore")
def test_monai_bundles_run_no_code_without_trust(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    acts = f"$(open({str(mark)!r}, 'w').close(), __import__('monai').networks.nets.DenseNet(2, 1, 2))[1]"
    (tmp_path / "mine.py").write_text("from monai.networks.nets import DenseNet\n")
    for config, says in (
        ({"network_def": acts}, "in other ways than network_def"),
        ({"network_def": {**DENSE, "growth_rate": f"$open({str(mark)!r}, 'w').close() or 2"}}, "by code"),
        ({"network_def": {**DENSE, "growth_rate": "@rate"}, "rate": f"$open({str(mark)!r}, 'w')"}, "by code"),
        ({"network_def": {**DENSE, "_target_": "mine.DenseNet"}}, "no network of MONAI's own"),
        ({"network_def": {**DENSE, "_target_": "os.system"}}, "no network of MONAI's own"),
        ({"network_def": {**DENSE, "growth_rate": {"_target_": "os.getpid"}}}, "on the way"),
        ({"network_def": {**DENSE, "growth_rate": "@growth"}, "growth": "@growth"}, "refers to itself"),
        ({"network_def": {**DENSE, "growth_rate": 3}}, "do not fit"),
        (
            {"preprocessing": {"transforms": [{"_target_": "Rotate90d", "k": 1}]}},
            "step Rotate90 that Lucency cannot do",
        ),
    ):
        bundle(tmp_path, STRAIGHT, **config)
        with pytest.raises(ModelError, match=says):
            load_classifier(f"monai:{tmp_path}")
        assert not mark.exists()
    bundle(tmp_path, STRAIGHT, network_def={**DENSE, "growth_rate": f"$open({str(mark)!r}, 'w').close() or 2"})
    assert load_classifier(f"monai:{tmp_path}", trust=True).classes == ("normal", "effusion")
    assert mark.exists()
    bundle(tmp_path, STRAIGHT, network_def={**DENSE, "_target_": "mine.DenseNet"})
    assert load_classifier(f"monai:{tmp_path}", trust=True).classes == ("normal", "effusion")
    bundle(tmp_path, STRAIGHT)
    torch.save({"model": Net()}, tmp_path / "models" / "model.pt")
    with pytest.raises(ModelError, match="no plain state dict"):
        load_classifier(f"monai:{tmp_path}")
    with pytest.raises(ModelError, match="takes the folder of a bundle"):
        load_classifier(f"monai:{tmp_path / 'nowhere'}")


@pytest.mark.filterwarnings("ignore")
def test_torchxrayvision_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, datasets = library("torchxrayvision.models"), library("torchxrayvision.datasets")
    name = "densenet121-res224-nih"
    monkeypatch.setattr("torchxrayvision.utils.get_cache_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError, match="not on this machine and Lucency fetches nothing"):
        load_classifier(f"torchxrayvision:{name}")
    torch.manual_seed(0)
    module = models.DenseNet(num_classes=18).eval()
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    torch.save(module, tmp_path / models.model_urls[name]["weights_url"].rpartition("/")[2])
    with pytest.raises(ModelError, match="as a pickle, which can act"):
        load_classifier(f"torchxrayvision:{name}")
    theirs = load_classifier(f"torchxrayvision:{name}", trust=True)
    ours = load_classifier(f"torchxrayvision:{name}", weights=tmp_path / "w.safetensors")
    x = torch.rand(2, 1, 224, 224)
    with torch.no_grad():
        assert torch.equal(theirs(x), ours(x))
    assert theirs.classes == ours.classes
    assert ours.outputs == "probabilities"

    def as_they_do(film: Image.Image) -> torch.Tensor:
        grey = datasets.normalize(np.array(film.convert("L"), np.float32), 255)[None]
        return torch.from_numpy(datasets.XRayResizer(224)(datasets.XRayCenterCrop()(grey)))

    # Their antialiasing draws black in at the edge.
    sees_the_same(ours, as_they_do, edge=1)
