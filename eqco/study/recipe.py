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

    p: Probability
    brightness: Probability = 0.0
    contrast: Probability = 0.0
    saturation: Probability = 0.0
    hue: Annotated[Real, Field(ge=0, le=0.5)] = 0.0


class Blur(Section):
    """Gaussian blur with σ drawn from U(sigma), in pixels."""

    p: Probability
    sigma: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field([0.1, 2.0])
    kernel: Count = Field(description="width of the kernel in pixels, odd")

    @model_validator(mode="after")
    def _odd(self) -> "Blur":
        if self.kernel % 2 == 0:
            raise PydanticCustomError("message", "kernel must be odd")
        if self.sigma[0] > self.sigma[1]:
            raise PydanticCustomError("message", "sigma must be [low, high]")
        return self


class Augment(Section):
    """The augmentations of a view, applied in this order; one that is left out is not applied."""

    crop: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        None, description="area of the random resized crop, as a share of the image: [low, high]"
    )
    flip: Probability = Field(0.0, description="probability of a horizontal flip")
    jitter: Jitter | None = None
    grayscale: Probability = 0.0
    blur: Blur | None = None
    erase: Probability = Field(0.0, description="probability of erasing a rectangle")

    @model_validator(mode="after")
    def _area(self) -> "Augment":
        if self.crop and not self.crop[0] <= self.crop[1] <= 1:
            raise PydanticCustomError("message", "crop must be [low, high] with high at most 1")
        return self


class Network(Section):
    """The encoder: a backbone, whose features are evaluated, and a projector for the loss."""

    backbone: Backbone
    stride: Literal[1, 2] = Field(
        2, description="conv5's first convolution: 1 for images under 16 pixels"
    )
    stem: Literal["small", "large"] = Field(
        "large", description="a ResNet's: large is ImageNet's, small is 3 x 3 without a pool"
    )
    batch_norm_groups: Count = Field(
        1, description="batch norm over so many groups of the batch, as on so many GPUs"
    )
    projector: Annotated[list[Count], Field(min_length=1)] = Field(
        description="widths of the projector's layers, the last is the embedding's"
    )
    projector_norm: Literal["all", "hidden", "none"] = Field(
        "all", description="which of the projector's layers batch norm follows"
    )
    predictor: Count | None = Field(
        None,
        description="hidden width of nnclr's predictor; default: the projector's first",
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

    epochs: Count
    batch: Annotated[int, Field(ge=2)] = Field(description="N, images a step")
    lr: Positive
    lr_per: Count | None = Field(
        None,
        description="images a step that lr is for: the learning rate of a batch of N is "
        "lr x N / lr_per, the linear scaling rule; without it, lr for every N",
        exclude_if=lambda images: images is None,  # a study without this key stays the same
    )
    optimizer: Optimizer = Field(
        "sgd",
        description="normalised-sgd: by the gradient divided by its norm, so that no factor of the "
        "loss matters; its weight decay is apart from the gradient. lars: SimCLR's, trust 0.001. "
        "adamw: torch's",
        exclude_if=lambda name: name == "sgd",  # a study without this key stays the same
    )
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 1e-4
    decay_norm_and_bias: bool = Field(
        True,
        description="whether batch norm and biases decay too; by lars they never do",
        exclude_if=lambda decay: decay,  # a study without this key stays the same
    )
    warmup_epochs: NotNegative = Field(
        0.0, description="the learning rate rises linearly for so long; a cosine lowers it"
    )
    ema: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.999, description="the key encoder keeps this share of itself each step"
    )
    sampling: Literal["shared", "independent"] = Field(
        "shared",
        description="one draw of K negatives shared by all queries of a step, or a draw a query",
    )
    symmetric: bool = Field(False, description="both views are queries; for moco and simmoco")
    batch_norm_per_view: bool = Field(
        False,
        description="each view has batch norms' statistics of its own, for simclr, whose authors "
        "have those of both views together; all other methods pass each view by itself",
        exclude_if=lambda each: not each,  # a study without this key stays the same
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the networks' passes; weights, similarities and the loss stay float32",
    )
    online: Positive | None = Field(
        None,
        description="learning rate of a linear classifier that is trained beside the encoder, on "
        "its features, and evaluated as linear-online",
        exclude_if=lambda lr: lr is None,  # a study without this key stays the same
    )
    queue: Count | None = Field(
        None, description="length of moco's queue, K without it, or of nnclr's support set"
    )

    def scaled(self, lr: float, batch: int) -> float:
        """The learning rate of a batch: by the linear scaling rule if ``lr_per`` is given."""
        return lr * batch / self.lr_per if self.lr_per else lr


class LossSettings(Section):
    """Settings of the losses without a margin."""

    inter: Positive = Field(1.0, description="τ_β of the dual temperature; its τ_α is τ")
    sigma: Positive = Field(0.5, description="σ of DCLW's weight")
    detach: bool = Field(True, description="whether DCLW's weight is a constant for the gradient")
    constant: Positive = Field(
        1.0,
        description="W of dcl-constant",
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
        description="K_s of dcl-by-scalar-negatives: the negatives that W is of, where K are those "
        "of the direction",
        exclude_if=lambda count: count is None,  # a study without this key stays the same
    )
