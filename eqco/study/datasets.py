"""The datasets that a study may name."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from eqco.study.fields import Count, Name, Section, refuse


class Dataset(Section):
    """A dataset: its folder's name, the shape of its images, and how many there are to train on."""

    kind: str
    channels: ClassVar[int]
    validation: Count | None = Field(
        None,
        description="so many of the training images, the same for every cell, of each class in "
        "proportion to its size, are kept to validate on: nothing is trained on them, and "
        "accuracies on them are protocols of their own, `linear-lbfgs@validation`. One image of "
        "each class has to remain",
        exclude_if=lambda count: count is None,  # a study without this key stays the same
    )

    @property
    def images(self) -> int | None:
        """Number of images to train on or to validate; None if only the files can say."""
        return None

    @property
    def pretrained_on(self) -> str:
        """The split that encoders are pretrained on; evaluations have ``train`` and ``test``."""
        return "train"

    def train_size(self, images: int) -> int:
        """Number of images to train on, of so many: those that are not to validate."""
        return images - (self.validation or 0)


class BuiltIn(Dataset):
    """A dataset whose kind is its name: grey images of one size."""

    channels: ClassVar[int] = 1
    size: ClassVar[int]

    @property
    def name(self) -> str:
        """The folder under ``data/``."""
        return self.kind


class Digits(BuiltIn):
    """scikit-learn's 1,797 scanned digits, 8 × 8 grey; 1,297 train and 500 test, stratified."""

    kind: Literal["digits"]
    size: ClassVar[int] = 8

    @property
    def images(self) -> int:
        return 1297


class FashionMNIST(BuiltIn):
    """Fashion-MNIST, 28 × 28 grey; 60,000 train and 10,000 test."""

    kind: Literal["fashion-mnist"]
    size: ClassVar[int] = 28
    root: str | None = Field(
        None,
        description="folder that holds the four `*-ubyte.gz` files; without it Debian's package "
        "`dataset-fashion-mnist` is used where it is installed, else torchvision's download",
    )
    train_images: Annotated[int, Field(ge=1, le=60_000)] = Field(
        60_000, description="use the first so many training images"
    )

    @property
    def images(self) -> int:
        return self.train_images


class Folder(Dataset):
    """A folder, or a tar archive, of RGB images in a folder for each class."""

    channels: ClassVar[int] = 3
    name: Name = Field(description="the folder under `data/`, and the name in tables")
    path: str = Field(description="the folder, or a tar archive of it")


ImagesPerClass = Annotated[
    Count | None,
    Field(
        description="use the first so many images of each class",
        exclude_if=lambda count: count is None,  # earlier results keep their hashes
    ),
]


class ImageFolder(Folder):
    """Any folder of ``train/<class>/*`` and ``test/<class>/*`` images, packed as RGB."""

    kind: Literal["image-folder"]
    path: str = Field(description="folder that holds `train/` and `test/`, or a tar archive of it")
    size: Annotated[int, Field(ge=4, le=1024)] = Field(
        description="pixels: images are resized to this short side and centre-cropped"
    )
    images_per_class: ImagesPerClass = None


class ParquetFiles(Folder):
    """Parquet files with a column of encoded images and one of labels, packed as RGB."""

    kind: Literal["parquet"]
    path: str = Field(
        description="folder of the files, whose names or folders begin with `train` and with "
        "`test`, else `validation`"
    )
    image: str = Field("image", description="the column of images: encoded, alone or as `bytes`")
    label: str = Field("label", description="the column of labels: numbers or names")
    size: Annotated[int, Field(ge=4, le=1024)] = Field(
        description="pixels: images are resized to this short side and centre-cropped"
    )
    images_per_class: ImagesPerClass = None


class JpegFolder(Folder):
    """A folder as ``image-folder``'s, kept as JPEG: for more images than memory holds."""

    kind: Literal["jpeg-folder"]
    path: str = Field(
        description="folder that holds `train/` and `test/` or `val/`, or a tar archive of it"
    )
    short_side: Annotated[int, Field(ge=8, le=4096)] = Field(
        256,
        description="pixels: larger images are packed with this short side, smaller JPEGs as "
        "they are",
    )
    size: Annotated[int, Field(ge=4, le=1024)] = Field(
        224,
        description="pixels of views, whose crops are of the whole image, and of the centre that "
        "is evaluated",
    )
    images_per_class: ImagesPerClass = None

    @model_validator(mode="after")
    def _inside(self) -> "JpegFolder":
        if self.size > self.short_side:
            refuse("size", self.size, f"must be at most short_side, {self.short_side}")
        return self


SIDES = {"cifar10": 32, "cifar100": 32, "stl10": 96, "svhn": 32, "imagenette": 160}
"""Pixels of a public dataset's images; of Imagenette's the short side, in the smaller archive."""

TRAIN_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257, "imagenette": 9_469}
TRAIN_IMAGES["stl10"] = 100_000  # those without labels


class Torchvision(Dataset):
    """A public dataset of RGB images, from its authors' files: downloaded, or in a folder."""

    channels: ClassVar[int] = 3
    kind: Literal["torchvision"]
    dataset: Literal["cifar10", "cifar100", "stl10", "svhn", "imagenette"] = Field(
        alias="name", description="the dataset"
    )
    root: str | None = Field(
        None,
        description="folder that holds the authors' files; without it they are downloaded, and "
        "checked by the authors' checksum",
    )
    size: Annotated[int, Field(ge=4, le=1024)] = Field(
        default_factory=lambda values: SIDES.get(values.get("dataset"), 32),
        description="pixels of Imagenette's images (160): they are resized to this short side and "
        "centre-cropped; STL-10's images are 96 pixels, the other datasets' 32",
    )
    images_per_class: ImagesPerClass = None

    @property
    def name(self) -> str:
        """The folder under ``data/``, and the name in tables; a part has a name of its own."""
        parts: list[str] = [self.dataset]
        if self.size != SIDES[self.dataset]:
            parts.append(str(self.size))
        if self.images_per_class:
            parts.append(f"first-{self.images_per_class}")
        return "-".join(parts)

    @property
    def images(self) -> int | None:
        return None if self.images_per_class else TRAIN_IMAGES[self.dataset]

    @property
    def pretrained_on(self) -> str:
        return "unlabelled" if self.dataset == "stl10" else "train"

    def train_size(self, images: int) -> int:
        """Number of images to train on, of so many; STL-10's have no part to validate."""
        return images if self.pretrained_on == "unlabelled" else super().train_size(images)

    @model_validator(mode="after")
    def _as_they_are(self) -> "Torchvision":
        side = SIDES[self.dataset]
        if self.size != side and self.dataset != "imagenette":
            refuse("size", self.size, f"must be {side}, as {self.dataset}'s images are")
        return self


Data = Annotated[
    Digits | FashionMNIST | ImageFolder | ParquetFiles | JpegFolder | Torchvision,
    Field(discriminator="kind"),
]
