"""A network in files that need no resnetlab: safetensors, ONNX, torch.export or a state dict, with an example."""

import runpy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from textwrap import indent
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor, nn

from resnetlab.console import say
from resnetlab.data import ImageData
from resnetlab.errors import DataError, LabError, first_line
from resnetlab.models.norm import StandardizedConv2d
from resnetlab.runs.files import make_folder, write_json, write_text
from resnetlab.runs.summary import best_column
from resnetlab.training.inference.predict import Classifier, read_images

FILES = {
    **{"safetensors": "model.safetensors", "onnx": "model.onnx", "torch-export": "model.pt2", "state-dict": "model.pt"},
}
BOUND = 1e-4  # largest difference of logits, relative to the largest logit (to 1 if that is smaller)
TEMPLATES = Environment(loader=PackageLoader("resnetlab.training.inference", ""), undefined=StrictUndefined)


@torch.inference_mode()
def export(
    model: Classifier, form: str, out: Path, images: Sequence[Path] = (), card: Callable[..., str] | None = None
) -> None:
    """Writes a new folder `out`: the model, model.json, example.py and what they need.

    images: real ones to compare on; none: the first validation images. Nothing is written if the logits of the files,
    loaded again, differ by more than BOUND. card: report.card.model_card, for a README.md. Raises LabError.
    """
    if out.exists():
        raise DataError(f"{out} is there already; name another folder with --out, or remove it")
    make_folder(out.absolute().parent)
    try:
        own = ImageData(model.config.data, 1, 0.0, 0)
        pixels = read_images(images, model.size)[1] if images else own.val.pixels[:64]
    except LabError as error:
        raise DataError(f"{error}; --images FILE compares on other pictures") from None
    wanted = model(pixels)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.absolute().parent) as temporary:
        (folder := Path(temporary) / "made").mkdir()
        try:
            run = write_model(model, form, folder)
            found = torch.cat([run(part) for part in (pixels[:1], pixels[1:]) if len(part)])
        except Exception as error:  # the exporters of torch raise many kinds
            cure = "; pip install 'resnetlab[export]'" if isinstance(error, ImportError) else ""
            raise LabError(f"{model.path} cannot be exported --to {form}: {first_line(error)}{cure}") from error
        difference = float((found - wanted).abs().max() / max(1.0, float(wanted.abs().max())))
        if not difference <= BOUND:
            raise LabError(f"--to {form}: logits differ by {difference:.2g} on {len(pixels)} images, above {BOUND:g}")
        write_json(folder / "model.json", about := model_facts(model))
        example = TEMPLATES.get_template("example.py.jinja").render(form=form, file=FILES[form])
        write_text(folder / "example.py", example + "\n")
        if card is not None:
            rows, ranked = model.checkpoint["callbacks"]["Recorder"]["rows"], best_column(model.config)
            write_text(folder / "README.md", card(model.path.absolute().parent.parent, about, rows, ranked))
        folder.rename(out)
    say(f"{out}: {FILES[form]}; logits differ by at most {difference:.2g} on {len(pixels)} images (bound {BOUND:g})")


def model_facts(model: Classifier) -> dict[str, Any]:
    """Plain data: classes, preprocessing, recipe and figures, without the folders of its maker."""
    config, checkpoint, (height, width) = model.config, model.checkpoint, model.size
    identity = checkpoint["identity"] | {"seed": config.seed}
    return {
        **{"classes": model.class_names, "height": height, "width": width},
        "input": "uint8 N x 3 x H x W, RGB, scaled bilinearly to cover H x W and cropped; normalization is in it",
        **{"model": config.model.name, "data": config.data.name, "split": config.data.split},
        **{"weights": model.weights, "epoch": checkpoint["epoch"] + 1, "torch": torch.__version__},
        "figures": checkpoint["callbacks"]["Recorder"]["rows"][checkpoint["epoch"]],
        "identity": {k: v for k, v in identity.items() if not (isinstance(v, str) and PurePath(v).is_absolute())},
    }


def write_model(model: Classifier, form: str, folder: Path) -> Callable[[Tensor], Tensor]:
    """Writes the model's files, and returns what they compute, loaded again: uint8 (N, 3, H, W) -> logits."""
    file = folder / FILES[form]
    model.to(memory_format=torch.contiguous_format)
    for layer in model.modules():
        if isinstance(layer, StandardizedConv2d):  # once for all, which makes it a plain convolution
            layer.weight, layer.__class__ = nn.Parameter(layer.standardized()), nn.Conv2d  # type: ignore[assignment]
    if form in ("onnx", "torch-export"):
        example = torch.zeros(2, 3, *model.size, dtype=torch.uint8)  # part of the file: no picture of the user's
        program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("N", min=1)},))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # names files of this machine
        if form == "onnx":
            return write_onnx(program, file)
        torch.export.save(program, file)
        return torch.export.load(file).module()
    write_text(folder / "network.py", network_source(model))
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if form == "safetensors":
        from safetensors.torch import load_file, save_file

        save_file(state, file)
        state = load_file(file)
    else:
        torch.save(state, file)
        state = torch.load(file, weights_only=True)
    network: nn.Module = runpy.run_path(str(folder / "network.py"))["Network"]().eval()
    network.load_state_dict(state)
    return network


def network_source(model: Classifier) -> str:
    """A module of plain torch with the same state, from torch.fx's trace of the network."""
    traced = torch.fx.symbolic_trace(model.network)
    layers = {name: layer for name, layer in traced.named_modules() if name and not [*layer.children()]}
    forward = indent(traced.code.strip(), "    ")
    return TEMPLATES.get_template("network.py.jinja").render(layers=layers, forward=forward, model=model) + "\n"


def write_onnx(program: torch.export.ExportedProgram, file: Path) -> Callable[[Tensor], Tensor]:
    """Writes it with a dynamic number of images, and without what names files of this machine."""
    import onnx
    import onnxruntime

    made = torch.onnx.export(program, verbose=False, input_names=["images"], output_names=["logits"])
    proto = made.model_proto  # type: ignore[union-attr]
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        part.ClearField("metadata_props")
        part.doc_string = ""
    onnx.save(proto, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
