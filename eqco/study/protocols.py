"""The protocols that evaluate an encoder, with their settings; docs/protocols.md defines each."""

from typing import Annotated, Any

from pydantic import Field

from eqco.study.datasets import Data
from eqco.study.fields import Count, NotNegative, Positive, Real, Section
from eqco.study.recipe import Augment

Share = Annotated[Real, Field(gt=0, lt=1)]


class LinearLBFGS(Section):
    """Logistic regression on standardised features, by L-BFGS."""

    l2: NotNegative = Field(1e-4, description="weight of ½‖W‖² beside the mean CE")
    iterations: Count = Field(200, description="at most so many iterations")
    labels: Annotated[list[Share], Field(min_length=1)] | None = Field(
        None,
        description="shares of the training images whose labels alone are used, in the same pass, "
        "each a protocol: `linear-lbfgs-labels~0.01`",
        exclude_if=lambda labels: labels is None,  # earlier results keep their settings
    )

    @property
    def fits(self) -> dict[str, float]:
        """The share of labels of each protocol: all of ``linear-lbfgs``."""
        few = {f"linear-lbfgs-labels~{share:g}": share for share in self.labels or []}
        return {"linear-lbfgs": 1.0, **few}


class Linear(Section):
    """A linear layer on frozen features, by SGD as in MoCo."""

    lr: Positive = Field(30.0, description="learning rate")
    lrs: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None,
        description="in place of `lr`, several in one pass, each a protocol: `linear-lr~10`",
    )
    epochs: Count = Field(100, description="passes over the training images")
    batch: Count = Field(256, description="images per step")
    drops: list[Count] = Field(
        [60, 80], description="epochs at which the learning rate falls to a tenth"
    )
    augment: Augment | None = Field(
        None,
        description="train on new views in each epoch, as MoCo does; else on clean images",
        exclude_if=lambda augment: augment is None,  # earlier results keep their settings
    )

    @property
    def probes(self) -> dict[str, float]:
        """The learning rate of each protocol: of ``linear``, or one for each of several rates."""
        return {f"linear-lr~{lr:g}": lr for lr in self.lrs} if self.lrs else {"linear": self.lr}


class FineTune(Section):
    """The whole network and a linear layer on it, by SGD with Nesterov's momentum and a cosine."""

    lr: Positive = Field(0.05, description="peak learning rate")
    epochs: Count = Field(30, description="passes over the training images")
    batch: Count = Field(256, description="images per step")
    augment: Augment = Field(description="of the views, made anew in each epoch")


class KNN(Section):
    """Weighted k-nearest-neighbour vote by cosine similarity."""

    k: Count = Field(200, description="neighbours that vote")
    ks: Annotated[list[Count], Field(min_length=1)] | None = Field(
        None,
        description="further k, evaluated in the same pass, each a protocol: `knn-k~20`",
        exclude_if=lambda ks: ks is None,  # earlier results keep their settings
    )
    temperature: Positive = Field(
        0.1, description="T: a neighbour of similarity s has the weight exp(s/T)"
    )

    @property
    def votes(self) -> dict[str, int]:
        """The k of each protocol."""
        return {"knn": self.k, **{f"knn-k~{k}": k for k in self.ks or []}}


KEY_SUFFIX = "@key"  # ends the names of the key encoder's protocols
FINETUNE = "finetune"
ONLINE = "linear-online"  # the protocol of pretrain.online
VALIDATION_SUFFIX = "@validation"  # ends the names of protocols that rate the validation images


class Evaluate(Section):
    """The protocols; docs/protocols.md defines each."""

    linear_lbfgs: LinearLBFGS | None = Field(
        LinearLBFGS(),
        description="the protocol `linear-lbfgs`; `null`: not done, where the features are too "
        "many for it",
    )
    linear: Linear = Field(Linear(), description="the protocol `linear`")
    knn: KNN = Field(KNN(), description="the protocol `knn`")
    finetune: FineTune | None = Field(
        None,
        description="the whole network is trained on, with labels: the protocol `finetune`",
        exclude_if=lambda finetune: finetune is None,  # earlier results keep their settings
    )
    key_encoder: bool = Field(
        False,
        description="evaluate the key encoder of `moco`, `simo` and `simmoco` too, by the same "
        "protocols: `knn@key`",
        exclude_if=lambda key_encoder: not key_encoder,  # earlier results keep their settings
    )
    every: Count | None = Field(
        None,
        description="epochs from one evaluation by `knn` to the next while a cell trains, for a "
        "curve in its history and on the page; added later, it trains no cell again",
        exclude_if=lambda every: every is None,  # earlier results keep their settings
    )
    on: list[Data] = Field(
        [],
        description="further datasets, each like `data`, whose features the frozen encoder makes "
        "and the same protocols rate: linear@cifar100",
        exclude_if=lambda on: not on,  # earlier results keep their settings
    )

    @property
    def sections(self) -> dict[str, Any]:
        """The settings of each kind of protocol; None of one that is not done."""
        return {"linear-lbfgs": self.linear_lbfgs, "linear": self.linear, "knn": self.knn}

    @property
    def frozen(self) -> list[str]:
        """The names of the protocols on features of the frozen encoder."""
        lbfgs = self.linear_lbfgs.fits if self.linear_lbfgs else {}
        return self._of_each_encoder([*lbfgs, *self.linear.probes, *self.knn.votes])

    @property
    def protocols(self) -> list[str]:
        """The names of the protocols that give a cell's test accuracies on the study's data."""
        return self.frozen + self._of_each_encoder([FINETUNE] * bool(self.finetune))

    def _of_each_encoder(self, names: list[str]) -> list[str]:
        return names + [f"{name}{KEY_SUFFIX}" for name in names] * self.key_encoder

    @property
    def transfers(self) -> list[str]:
        """The names of the protocols that give a cell's test accuracies on further datasets."""
        return [f"{name}@{other.name}" for other in self.on for name in self.frozen]
