"""A protocol by its name, on features of a frozen backbone, or on new views in each epoch."""

from pathlib import Path

from torch import nn

from eqco.data.views import Views
from eqco.evaluation.features import Features, unchanged
from eqco.evaluation.knn import knn
from eqco.evaluation.linear import linear, linear_on_views
from eqco.evaluation.logistic import linear_lbfgs
from eqco.runtime.seeds import draw_seed
from eqco.runtime.signals import stop_on_signals
from eqco.store.checkpoint import Checkpoints
from eqco.study.datasets import Data
from eqco.study.protocols import Evaluate, Linear


def fit(
    name: str,
    settings: Evaluate,
    backbone: nn.Module,
    features: Features,
    dataset: tuple[Data, Path],
    *,
    seed: int,
    checkpoints: Checkpoints,
    progress: Path,
) -> dict[str, float]:
    """The accuracies of a protocol and its variants, as ``Features.accuracies``.

    Args:
        name: of ``Evaluate.sections``.
        settings: of the protocols; none are given for one that they leave out.
        backbone: frozen, on the device of its features.
        features: by it.
        dataset: its section of a study, and the folder of the packed dataset.
        seed: for all that a protocol draws.
        checkpoints: of a probe on views, to resume from.
        progress: file for the progress of a probe on views.

    Raises:
        InputError: if a share of the labels leaves a class without one.
        Interrupted: if a signal has stopped a probe on views; its state is saved.
    """
    params = settings.sections[name]
    if params is None:
        return {}
    if name == "linear-lbfgs":
        return linear_lbfgs(features, params, seed)
    if name == "knn":
        return knn(features, params)
    if params.augment is None:
        return linear(features, params, seed)
    return _on_views(
        backbone,
        features,
        params,
        dataset,
        seed=seed,
        checkpoints=checkpoints,
        progress=progress,
    )


def _on_views(
    backbone: nn.Module,
    features: Features,
    params: Linear,
    dataset: tuple[Data, Path],
    *,
    seed: int,
    checkpoints: Checkpoints,
    progress: Path,
) -> dict[str, float]:
    """The accuracies of the linear protocol on new views in each epoch; arguments as for ``fit``.

    It can be stopped, and then raises Interrupted.
    """
    assert params.augment is not None
    spec, data = dataset
    views = Views(
        data,
        spec,
        params.augment,
        batch=params.batch,
        batch_key="evaluate.linear.batch",
        views=1,
        epochs=params.epochs,
        seed=draw_seed(seed, "probe", 0),
        device=features.test.device,
    )
    with stop_on_signals() as stop, unchanged(backbone):
        return linear_on_views(
            backbone,
            views,
            features,
            params,
            seed,
            checkpoints=checkpoints,
            stop=stop,
            progress=progress,
        )
