"""The typed parameters of a study, and one clear line for each mistake.

A study is a YAML file in ``params/``; ``params/README.md`` explains every key. These models are the
one source: ``params/schema.json`` is generated from them, for editors.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from eqco.errors import InputError
from eqco.methods import METHODS


def _number(value: Any) -> Any:
    """Read ``1e-4``, which YAML 1.1 takes for text, as the number that its writer meant."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _margin(value: Any) -> Any:
    value = _number(value)
    if value == "eqco" or (isinstance(value, int | float) and not isinstance(value, bool)):
        if value != value or value == -math.inf:
            raise PydanticCustomError("margin", "must be a number, 'eqco' or 'inf'")
        return value
    raise PydanticCustomError("margin", "must be a number, 'eqco' or 'inf'")


Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NotNegative = Annotated[Real, Field(ge=0)]
Probability = Annotated[Real, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Margin = Annotated[
    float | Literal["eqco"],
    BeforeValidator(_margin),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["eqco", "inf"]}]}),
]
# A name becomes a folder: no separator, no leading dot, nothing that a shell reads.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Loss = Literal["info-nce", "dclw", "dual-temperature", "info-nce-rescaled", "dcl-rescaled"]


def _method(value: Any) -> Any:
    if not isinstance(value, str) or value not in METHODS:
        raise PydanticCustomError(
            "allowed", "must be one of {names}", {"names": ", ".join(METHODS)}
        )
    return value


Method = Annotated[str, BeforeValidator(_method), Field(json_schema_extra={"enum": list(METHODS)})]


class Section(BaseModel):
    """A part of a study: types are strict and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        ser_json_inf_nan="strings",  # JSON has no infinity
    )

    @model_validator(mode="before")
    @classmethod
    def _unknown_key(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    raise PydanticCustomError(
                        "message",
                        "unknown key {key}; allowed: {allowed}",
                        {"key": repr(key), "allowed": ", ".join(cls.model_fields)},
                    )
        return values


class Digits(Section):
    """scikit-learn's 1,797 scanned digits, 8 x 8 grey; 1,297 train and 500 test."""

    kind: Literal["digits"]
    channels: ClassVar[int] = 1
    size: ClassVar[int] = 8

    @property
    def name(self) -> str:
        """The folder under ``data/``."""
        return self.kind

    @property
    def train_size(self) -> int | None:
        """Training images, where the study file alone tells."""
        return 1297


class FashionMNIST(Section):
    """Fashion-MNIST, 28 x 28 grey, 60,000 + 10,000."""

    kind: Literal["fashion-mnist"]
    channels: ClassVar[int] = 1
    size: ClassVar[int] = 28
    root: str | None = Field(
        None,
        description="folder that holds the four *-ubyte.gz files; without it Debian's package "
        "dataset-fashion-mnist is used where it is installed, else torchvision's download",
    )
    train_images: Annotated[int, Field(ge=1, le=60_000)] = Field(
        60_000, description="use the first so many training images"
    )

    @property
    def name(self) -> str:
        """The folder under ``data/``."""
        return self.kind

    @property
    def train_size(self) -> int | None:
        """Training images, where the study file alone tells."""
        return self.train_images


ImagesPerClass = Annotated[
    Count | None,
    Field(
        description="use the first so many images of each class",
        exclude_if=lambda count: count is None,  # what results were made by before it was
    ),
]


class ImageFolder(Section):
    """Any folder of ``train/<class>/*`` and ``test/<class>/*`` images, packed as RGB."""

    kind: Literal["image-folder"]
    channels: ClassVar[int] = 3
    name: Name = Field(description="the folder under data/, and the name in tables")
    path: str = Field(description="folder that holds train/ and test/, or a tar archive of it")
    size: Annotated[int, Field(ge=4, le=1024)] = Field(
        description="pixels: images are resized to this short side and centre-cropped"
    )
    images_per_class: ImagesPerClass = None

    @property
    def train_size(self) -> int | None:
        """Training images, where the study file alone tells."""
        return None


class JpegFolder(Section):
    """A folder as ``ImageFolder``'s, kept as JPEG: for more images than memory holds."""

    kind: Literal["jpeg-folder"]
    channels: ClassVar[int] = 3
    name: Name = Field(description="the folder under data/, and the name in tables")
    path: str = Field(description="folder that holds train/ and test/ or val/, or a tar archive")
    short_side: Annotated[int, Field(ge=8, le=4096)] = Field(
        256, description="pixels: larger images are packed with this short side"
    )
    size: Annotated[int, Field(ge=4, le=1024)] = Field(
        224, description="pixels of views, and of the centre that is evaluated"
    )
    images_per_class: ImagesPerClass = None

    @property
    def train_size(self) -> int | None:
        """Training images, where the study file alone tells."""
        return None

    @model_validator(mode="after")
    def _inside(self) -> "JpegFolder":
        if self.size > self.short_side:
            _refuse("size", self.size, f"must be at most short_side, {self.short_side}")
        return self


Data = Annotated[Digits | FashionMNIST | ImageFolder | JpegFolder, Field(discriminator="kind")]


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
    sigma: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [0.1, 2.0]
    kernel: Count = Field(description="width of the kernel in pixels, odd")

    @model_validator(mode="after")
    def _odd(self) -> "Blur":
        if self.kernel % 2 == 0:
            raise PydanticCustomError("message", "kernel must be odd")
        if self.sigma[0] > self.sigma[1]:
            raise PydanticCustomError("message", "sigma must be [low, high]")
        return self


class Augment(Section):
    """The operations that make a view, in this order; an operation that is left out is not done."""

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

    backbone: Literal["conv5", "resnet18", "resnet50"]
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


class Pretrain(Section):
    """The recipe of the pretraining."""

    epochs: Count
    batch: Annotated[int, Field(ge=2)] = Field(description="N, images a step")
    lr: Positive
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 1e-4
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
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the networks' passes; weights, similarities and the loss stay float32",
    )
    queue: Count | None = Field(
        None, description="length of moco's queue, K without it, or of nnclr's support set"
    )


class LinearLBFGS(Section):
    """Logistic regression on standardised features, by L-BFGS."""

    l2: NotNegative = Field(1e-4, description="weight of ½‖W‖² beside the mean CE")
    iterations: Count = 200


class Linear(Section):
    """A linear layer on frozen features, by SGD as in MoCo."""

    lr: Positive = 30.0
    lrs: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="in place of lr, several in one pass, each a protocol: linear-lr~10"
    )
    epochs: Count = 100
    batch: Count = 256
    drops: list[Count] = Field([60, 80], description="epochs at which the rate falls to a tenth")
    augment: Augment | None = Field(
        None,
        description="train on views made anew in each epoch, as MoCo's; else on clean images",
        exclude_if=lambda augment: augment is None,  # what results were rated by before it was
    )

    @property
    def probes(self) -> dict[str, float]:
        """The learning rate of each protocol: of ``linear``, or one for each of several rates."""
        return {f"linear-lr~{lr:g}": lr for lr in self.lrs} if self.lrs else {"linear": self.lr}


class KNN(Section):
    """Weighted k-nearest-neighbour vote by cosine similarity."""

    k: Count = 200
    ks: Annotated[list[Count], Field(min_length=1)] | None = Field(
        None,
        description="further k, rated in the same pass, each a protocol: knn-k~20",
        exclude_if=lambda ks: ks is None,  # results from before this key keep their settings
    )
    temperature: Positive = 0.1

    @property
    def votes(self) -> dict[str, int]:
        """The k of each protocol."""
        return {"knn": self.k, **{f"knn-k~{k}": k for k in self.ks or []}}


KEY_SUFFIX = "@key"  # ends the names of the key encoder's protocols


class Evaluate(Section):
    """The protocols; docs/protocols.md defines each."""

    linear_lbfgs: LinearLBFGS | None = LinearLBFGS()  # none where the data is too large for it
    linear: Linear = Linear()
    knn: KNN = KNN()
    key_encoder: bool = Field(
        False,
        description="rate the key encoder too, by the same protocols: knn@key; momentum methods",
        exclude_if=lambda rated: not rated,  # results from before this key keep their settings
    )

    @property
    def protocols(self) -> list[str]:
        """The names of the protocols that give a cell's accuracies."""
        lbfgs = ["linear-lbfgs"] * bool(self.linear_lbfgs)
        names = [*lbfgs, *self.linear.probes, *self.knn.votes]
        return names + [f"{name}{KEY_SUFFIX}" for name in names] * self.key_encoder


class LossSettings(Section):
    """The settings of the losses other than InfoNCE with a margin."""

    inter: Positive = Field(1.0, description="τ_β of the dual temperature; its τ_α is τ")
    sigma: Positive = Field(0.5, description="σ of DCLW's weight")
    detach: bool = Field(True, description="whether DCLW's weight is a constant for the gradient")


class Block(Section):
    """A block of the grid: every combination of its lists is a cell."""

    methods: Annotated[list[Method], Field(min_length=1)]
    negatives: Annotated[list[Count], Field(min_length=1)] = Field(description="K, per query")
    margins: Annotated[list[Margin], Field(min_length=1)] = Field(
        description="m: 0 (InfoNCE), a number, eqco (τ log(α/K)), inf (DCL)"
    )
    losses: Annotated[list[Loss], Field(min_length=1)] | None = Field(
        None, description="as an axis, in place of InfoNCE with a margin"
    )
    alphas: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="α, as an axis, in place of the study's"
    )
    temperatures: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="τ, as an axis, in place of the study's"
    )
    batches: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)] | None = Field(
        None, description="N, as an axis, in place of the recipe's"
    )
    lrs: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="the learning rate, as an axis, in place of the recipe's"
    )
    weight_decays: Annotated[list[NotNegative], Field(min_length=1)] | None = Field(
        None,
        description="the weight decay, as an axis, in place of the recipe's",
        exclude_if=lambda decays: decays is None,  # a study from before this key stays the same
    )
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]


class Cell(Section):
    """One point of the grid: one pretraining."""

    method: Method
    loss: Loss = "info-nce"
    negatives: int
    margin: Margin
    alpha: float | None = Field(description="None where the margin does not depend on it")
    temperature: float
    batch: int
    lr: float
    weight_decay: float | None = Field(
        None,
        description="None where it is the recipe's",
        exclude_if=lambda decay: decay is None,  # cells from before this axis keep their hashes
    )
    seed: int


class Study(Section):
    """A study file."""

    study: Name = Field(description="results go to results/<study>/")
    data: Data
    augment: Augment
    network: Network
    pretrain: Pretrain
    evaluate: Evaluate = Evaluate()
    loss: LossSettings = LossSettings()
    alpha: Positive = Field(description="α, the number of negatives that EqCo stands in for")
    temperature: Positive = Field(description="τ")
    grid: Annotated[list[Block], Field(min_length=1)]

    @model_validator(mode="after")
    def _possible(self) -> "Study":
        recipe, images, groups = self.pretrain, self.data.train_size, self.network.batch_norm_groups
        for b, block in enumerate(self.grid):
            batches = [(f"grid.{b}.batches.{i}", n) for i, n in enumerate(block.batches or [])]
            for key, batch in batches or [("pretrain.batch", recipe.batch)]:
                if images is not None and batch > images:
                    _refuse(key, batch, f"the data has {images} training images")
                if batch % groups:
                    _refuse(key, batch, f"must be a multiple of batch_norm_groups, {groups}")
                for i, k in enumerate(block.negatives):
                    for method in block.methods:
                        most = METHODS[method].candidates(batch, recipe.queue)
                        if most is not None and k > most:
                            key = f"grid.{b}.negatives.{i}"
                            what = f"the negatives to draw from at batch {batch}"
                            _refuse(key, k, f"{method} allows 1 to {most}, {what}")
            for i, method in enumerate(block.methods):
                key = f"grid.{b}.methods.{i}"
                if recipe.symmetric and not METHODS[method].symmetric:
                    able = ", ".join(name for name, entry in METHODS.items() if entry.symmetric)
                    _refuse(key, method, f"pretrain.symmetric is a choice of {able} alone")
                if self.evaluate.key_encoder and not METHODS[method].momentum:
                    able = ", ".join(name for name, entry in METHODS.items() if entry.momentum)
                    _refuse(key, method, f"evaluate.key_encoder is a choice of {able} alone")
                if method == "nnclr" and not recipe.queue:
                    _refuse(key, method, "needs pretrain.queue, the length of its support set")
            for i, loss in enumerate(block.losses or []):
                if loss != "info-nce" and block.margins != [0]:
                    _refuse(f"grid.{b}.losses.{i}", loss, "has no margin: margins must be [0]")
        return self

    def resolve(self, cell: Cell) -> dict[str, Any]:
        """Everything that the pretraining of ``cell`` depends on, as plain values."""
        parts = self.model_dump(mode="json", include={"data", "augment", "network", "pretrain"})
        parts["data"].pop("root", None)  # where the files lie is not what they are
        parts["data"].pop("path", None)
        for axis in ("batch", "lr", "weight_decay"):  # the cell's stand in place of the recipe's
            if getattr(cell, axis) is not None:
                del parts["pretrain"][axis]
        reads_settings = cell.loss in ("dclw", "dual-temperature")
        settings = self.loss.model_dump(mode="json") if reads_settings else None
        return {**parts, "loss": settings, "cell": cell.model_dump(mode="json")}


def _refuse(key: str, value: Any, allowed: str) -> None:
    raise PydanticCustomError(
        "message", "{key}: {value}: {allowed}", {"key": key, "value": value, "allowed": allowed}
    )


def config_hash(resolved: dict[str, Any]) -> str:
    """16 hex digits that name a resolved configuration, the same on every machine."""
    return hashlib.sha256(canonical(resolved).encode()).hexdigest()[:16]


def canonical(values: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def parse_study(values: Any, source: str) -> Study:
    """Check a study's values.

    Args:
        values: what the YAML file held.
        source: the file's name, for messages.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    if not isinstance(values, dict):
        raise InputError(f"{source}: a study is a mapping of keys; see params/README.md")
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        first, *others = error.errors()
        more = f" (and {len(others)} more)" if others else ""
        raise InputError(f"{source}: {_line(first)}{more}") from None


def load_study(path: Path) -> Study:
    """Read and check a study file; raises InputError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    return parse_study(values, str(path))


def _line(error: ErrorDetails) -> str:
    tags = {
        *("digits", "fashion-mnist", "image-folder", "jpeg-folder"),
        *("float", "literal['eqco']"),
    }
    key = ".".join(str(part) for part in error["loc"] if part not in tags)
    message = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "missing":
        return f"{key}: is missing"
    if error["type"] == "message" or isinstance(error["input"], dict):
        return f"{key}: {message}" if key else message
    return f"{key}: {error['input']!r}: {message}"


def schema() -> str:
    """The JSON schema of a study file, as text."""
    return json.dumps(Study.model_json_schema(), indent=2) + "\n"
