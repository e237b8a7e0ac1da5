"""The recipe of a pretraining: augmentation, network, optimisation, settings of the losses."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from eqco.study.fields import (
    Backbone,
    Count,
    NotNegative,
    Optimizer,
    Positive,
    Probability,
    Real,
    Section,
)


class Jitter(Section):
    """Colour jitter; each strength s draws a factor from U(1 - s, 1 + s), hue from U(-s, s)."""

    p: Probability = Field(
        description="probability of the jitter; the order of its four parts is drawn for each batch"
    )
    brightness: Probability = Field(0.0, description="s of the brightness")
    contrast: Probability = Field(0.0, description="s of the contrast")
    saturation: Probability = Field(0.0, description="s of the saturation")
    hue: Annotated[Real, Field(ge=0, le=0.5)] = Field(0.0, description="s of the hue, in turns")


class Blur(Section):
    """Gaussian blur with σ drawn from U(sigma), in pixels."""

    p: Probability = Field(description="probability of the blur")
    sigma: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        [0.1, 2.0], description="bounds of σ: `[low, high]`"
    )
    kernel: Count = Field(description="width of the kernel in pixels, odd")

    @model_validator(mode="after")
    def _odd(self) -> "Blur":
        if self.kernel % 2 == 0:
            raise PydanticCustomError("message", "kernel must be odd")
        if self.sigma[0] > self.sigma[1]:
            raise PydanticCustomError("message", "sigma must be [low, high]")
        return self


class Augment(Section):
    """The augmentations of a view, applied in this order; one that is left out is not applied.

    Every image draws its own parameters.
    """

    crop: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="area of the random resized crop, as a share of the image: `[low, high]`; its "
        "aspect is 3/4 to 4/3",
    )
    flip: Probability = Field(0.0, description="probability of a horizontal flip")
    jitter: Jitter | None = Field(None, description="colour jitter")
    grayscale: Probability = Field(0.0, description="probability of grey in place of colours")
    blur: Blur | None = Field(None, description="Gaussian blur")
    erase: Probability = Field(
        0.0,
        description="probability of erasing a rectangle, after normalisation, with 0: 2 % to 33 % "
        "of the area, aspect 0.3 to 3.3",
    )

    @model_validator(mode="after")
    def _area(self) -> "Augment":
        if self.crop and not self.crop[0] <= self.crop[1] <= 1:
            raise PydanticCustomError("message", "crop must be [low, high] with high at most 1")
        return self


class Network(Section):
    """The encoder: a backbone, whose features are evaluated, and a projector for the loss."""

    backbone: Backbone = Field(
        description="`conv5`: five 3 × 3 convolutions of widths 16, 16, 32, 32, 64 and a mean over "
        "a 2 × 2 grid, 256 features; `resnet18`, `resnet50`: torchvision's, 512 and 2,048 "
        "features; `timm/<name>`: any model of timm, with the features that it pools"
    )
    stride: Literal[1, 2] = Field(
        2,
        description="stride of `conv5`'s first convolution. Images under 16 pixels want 1: 2 "
        "leaves 1 × 1 features, a poor network until it is trained, as the demo wants it",
    )
    stem: Literal["small", "large"] = Field(
        "large",
        description="of a ResNet: `large` is 7 × 7 with stride 2 and a pool, for ImageNet; `small` "
        "is 3 × 3 with stride 1 and no pool, for CIFAR",
    )
    batch_norm_groups: Count = Field(
        1,
        description="the backbone's batch norm has statistics for each of so many groups of the "
        "batch, as on so many GPUs; key images are shuffled between them (MoCo's shuffle-BN)",
    )
    projector: Annotated[list[Count], Field(min_length=1)] = Field(
        description="widths of the projector's linear layers, with ReLU between them; the last is "
        "the embedding's, so `[128]` is a linear head"
    )
    projector_norm: Literal["all", "hidden", "none"] = Field(
        "all",
        description="the projector's layers that batch norm follows: `all` (SiMo, SimCLR, NNCLR), "
        "the `hidden` ones, `none` (MoCo v2, SimCo)",
    )
    predictor: Count | None = Field(
        None,
        description="hidden width of `nnclr`'s predictor; default: the projector's first",
        exclude_if=lambda width: width is None,  # a study without this key stays the same
    )
    zero_init_residual: bool = Field(
        False,
        description="a ResNet's blocks start as the identity: the last batch norm of each is 0",
        exclude_if=lambda zero: not zero,  # a study without this key stays the same
    )
    weights: str | None = Field(
        None,
        description="file of weights of the backbone, which it starts from: safetensors, or a "
        "state dict of torch",
        exclude_if=lambda file: file is None,  # a study without this key stays the same
    )


class Pretrain(Section):
    """The recipe of the pretraining."""

    epochs: Count = Field(
        description="passes over the training images; a pass drops its last, smaller batch"
    )
    batch: Annotated[int, Field(ge=2)] = Field(
        description="N, images per step, at most the training images"
    )
    lr: Positive = Field(description="peak learning rate")
    lr_per: Count | None = Field(
        None,
        description="images per step that `lr` is for: the learning rate of a batch of N is "
        "lr × N / lr_per, the linear scaling rule, and a block's `lrs` are scaled in the same way; "
        "without it `lr` is for every N",
        exclude_if=lambda images: images is None,  # a study without this key stays the same
    )
    optimizer: Optimizer = Field(
        "sgd",
        description="`normalised-sgd`: the gradient is divided by its norm before momentum, and "
        "weight decay is apart from it, so no factor of the loss matters. `lars`: SimCLR's, with a "
        "rate per layer (trust 0.001), but batch norm and biases at the plain rate and without "
        "decay. `adamw`: torch's, β1 is `momentum` and β2 0.999; no constant factor of the loss "
        "matters, but one that falls within 1,000 steps does",
        exclude_if=lambda name: name == "sgd",  # a study without this key stays the same
    )
    momentum: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.9, description="momentum of the optimiser"
    )
    weight_decay: NotNegative = Field(1e-4, description="weight decay, of every parameter")
    decay_norm_and_bias: bool = Field(
        True,
        description="whether batch norm and biases decay too; by `lars` they never do",
        exclude_if=lambda decay: decay,  # a study without this key stays the same
    )
    warmup_epochs: NotNegative = Field(
        0.0,
        description="epochs in which the learning rate rises linearly; a cosine lowers it from "
        "step 0",
    )
    ema: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.999, description="the key encoder keeps this share of itself each step"
    )
    sampling: Literal["shared", "independent"] = Field(
        "shared",
        description="`shared`: one draw of K negatives for all queries of a step, as in EqCo's "
        "released code; `independent`: a draw for each query",
    )
    symmetric: bool = Field(False, description="both views are queries; for `moco` and `simmoco`")
    batch_norm_per_view: bool = Field(
        False,
        description="`simclr` passes each view by itself, so that batch norm has statistics of "
        "each, as solo-learn and lightly do; without it both views are one batch, as its authors "
        "do; all other methods pass each view by itself",
        exclude_if=lambda each: not each,  # a study without this key stays the same
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="precision of the networks' passes; weights, similarities, the loss and "
        "evaluation stay float32. A CPU without bfloat16 units emulates it, 12 times slower than "
        "float32 for a ResNet-18; the cell's log says so, and `quick` uses float32",
    )
    online: Positive | None = Field(
        None,
        description="learning rate of a linear classifier that is trained beside the encoder, on "
        "its features, and evaluated as the protocol `linear-online`; in all cells or in none",
        exclude_if=lambda lr: lr is None,  # a study without this key stays the same
    )
    queue: Count | None = Field(
        None, description="length of `moco`'s queue (K without it), or of `nnclr`'s support set"
    )

    def scaled(self, lr: float, batch: int) -> float:
        """The learning rate of a batch: by the linear scaling rule if ``lr_per`` is given."""
        return lr * batch / self.lr_per if self.lr_per else lr


class LossSettings(Section):
    """Settings of the losses without a margin; a cell has those that its loss reads."""

    inter: Positive = Field(1.0, description="τ_β of the dual temperature; its τ_α is τ")
    sigma: Positive = Field(0.5, description="σ of DCLW's weight")
    detach: bool = Field(True, description="whether DCLW's weight is a constant for the gradient")
    constant: Positive = Field(
        1.0,
        description="W of `dcl-constant`",
        exclude_if=lambda constant: constant == 1,  # a study without this key stays the same
    )
    slope: Probability = Field(
        0.5,
        description="α of MACL's temperature τ (1 + α (A - A_0)), with A the mean s0 of a step",
        exclude_if=lambda slope: slope == 0.5,  # a study without this key stays the same
    )
    threshold: Probability = Field(
        0.0,
        description="A_0 of MACL's temperature, the alignment at which it is τ",
        exclude_if=lambda threshold: threshold == 0,  # a study without this key stays the same
    )
    bias: Real = Field(
        -10.0,
        description="b of SigLIP's sigmoid loss",
        exclude_if=lambda bias: bias == -10,  # a study without this key stays the same
    )
    gamma: Annotated[Real, Field(gt=0, le=1)] = Field(
        0.9,
        description="γ of SogCLR: the share of a step in what is remembered of an image",
        exclude_if=lambda gamma: gamma == 0.9,  # a study without this key stays the same
    )
    scalar_negatives: Count | None = Field(
        None,
        description="K_s of `dcl-by-scalar-negatives`: W is of so many negatives, the gradient's "
        "direction of K; they are the first K_s and the first K of one draw. `moco` needs a "
        "`queue` longer than both",
        exclude_if=lambda count: count is None,  # a study without this key stays the same
    )
