"""The kNN accuracy of an encoder while it trains, for a learning curve."""

import copy
from pathlib import Path

from eqco.evaluation.features import features_of, frozen
from eqco.evaluation.knn import knn
from eqco.networks.batch_norm import average_statistics
from eqco.runtime.ranks import rank
from eqco.study.study import Study
from eqco.training.step import Training


def knn_accuracy(training: Training, study: Study, data: Path) -> float | None:
    """The accuracy by the study's protocol ``knn`` of the encoder as it is now.

    A copy of its backbone is evaluated, so the training goes on as if it had not been. All ranks
    call it together.

    Args:
        training: after a step.
        study: for the protocol.
        data: folder of the packed dataset.

    Returns:
        Percent of the test images, on rank 0; None on the others.
    """
    backbone = copy.deepcopy(training.method.encoder.backbone)
    average_statistics(backbone)
    if rank() > 0:
        return None
    features = features_of(frozen(backbone), study.data, data, device=training.device)
    return knn(features, study.evaluate.knn)["knn"]
