"""Formats that others load a backbone from: weights of torchvision or timm, ONNX, torch.export.

Each is a function of a backbone in eval mode, its section of the study, and images (B, C, H, W) as
an example of its input. It returns the file's content and a function from images to features, which
reads them back from this content alone.
"""

import io
from collections.abc import Callable

import torch
from torch import Tensor, nn

from eqco.networks.backbones import resnet, small_stem, timm_options
from eqco.runtime.extras import extra
from eqco.study.recipe import Network

Exported = tuple[bytes, Callable[[Tensor], Tensor]]


def torchvision_weights(backbone: nn.Module, network: Network, images: Tensor) -> Exported:
    """Safetensors for torchvision's model of the same name, of which only ``fc`` is missing."""
    model, _ = resnet(network.backbone, images.shape[1], network.stem)
    return _weights(backbone, model)


def timm_weights(backbone: nn.Module, network: Network, images: Tensor) -> Exported:
    """Safetensors for timm's model of the same name with ``num_classes=0``; nothing is missing.

    Raises:
        InputError: if timm is not installed.
    """
    timm, channels = extra("timm", "timm", "--to timm"), images.shape[1]
    name, options = timm_options(network.backbone, channels, images.shape[-1])
    model = timm.create_model(name, **options)
    if network.stem == "small":
        small_stem(model, channels)
    return _weights(backbone, model)


def _weights(backbone: nn.Module, model: nn.Module) -> Exported:
    from safetensors.torch import load, save

    tensors = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    content = save(tensors, {"format": "pt"})  # which loaders of hubs ask for
    model.load_state_dict(load(content))
    return content, model.eval().requires_grad_(False)


def onnx(backbone: nn.Module, network: Network, images: Tensor) -> Exported:
    """An ONNX program: ``images`` (B, C, H, W) float32 to ``features`` (B, F); B is free.

    Raises:
        InputError: if onnx, onnxscript or onnxruntime is not installed.
    """
    runtime, *_ = (
        extra(name, "onnx", "--to onnx") for name in ("onnxruntime", "onnx", "onnxscript")
    )
    exported = torch.onnx.export(
        _program(backbone, images),
        dynamo=True,
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    assert exported is not None
    content = exported.model_proto.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def pt2(backbone: nn.Module, network: Network, images: Tensor) -> Exported:
    """A program of torch.export: images (B, C, H, W) float32 to features (B, F); B is free."""
    file = io.BytesIO()
    torch.export.save(_program(backbone, images), file)
    content = file.getvalue()
    return content, torch.export.load(io.BytesIO(content)).module()


def _program(backbone: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """The traced backbone, for batches of any size."""
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(backbone, (images,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it has the folders of this machine
    return program


FORMATS: dict[str, Callable[[nn.Module, Network, Tensor], Exported]] = {
    "torchvision": torchvision_weights,
    "timm": timm_weights,
    "onnx": onnx,
    "pt2": pt2,
}
