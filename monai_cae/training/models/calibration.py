"""Calibrated probabilities, by one number fitted to the validation subjects."""

from __future__ import annotations

import torch
from monai.engines import SupervisedEvaluator

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.calibration import fitted_temperature
from monai_cae.networks import EncoderClassifier
from monai_cae.training.engines.handlers import BestCheckpoint


class Calibration:
    """Temperature scaling (Guo et al. 2017): the best weights' logits are divided by one number.

    It goes into the last layer's weights, so that whoever loads them predicts the calibrated probability. Neither the
    order of the subjects nor a decision at 0.5 changes.

    Args:
        best: its network is an `EncoderClassifier`; its weights are replaced by the calibrated ones.
        evaluator: of the validation set.
        enabled: False does nothing.

    Attributes:
        temperature: what the logits were divided by; above 1 for a network that was too sure.
    """

    def __init__(self, best: BestCheckpoint, evaluator: SupervisedEvaluator, enabled: bool = True) -> None:
        self.best = best
        self.evaluator = evaluator
        self.enabled = enabled
        self.temperature = 1.0

    def run(self) -> None:
        """Fit the temperature and keep the calibrated weights.

        Raises:
            MonaiCaeError: another network, or several processes, each with a share of the validation set.
        """
        if not self.enabled:
            return
        network = self.best.network
        if not isinstance(network, EncoderClassifier) or torch.distributed.is_initialized():
            raise MonaiCaeError("calibrate works in one process and with an EncoderClassifier: set --calibrate false")
        self.best.restore()
        network.eval()
        labels, logits = [], []
        with torch.no_grad():
            for batch in self.evaluator.data_loader:  # type: ignore[union-attr]  # a loader is what the configs give
                image, label, *extra = self.evaluator.prepare_batch(batch, self.evaluator.state.device)
                args, kwargs = extra if extra else ((), {})
                logits.append(self.evaluator.inferer(image, network, *args, **kwargs).flatten())
                labels.append(label.flatten())
        self.temperature = fitted_temperature(torch.cat(labels).cpu().numpy(), torch.cat(logits).float().cpu().numpy())
        network.head.scale(1 / self.temperature)
        self.best.replace()
