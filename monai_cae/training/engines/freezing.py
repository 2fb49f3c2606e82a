"""When each part of a network learns."""

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import nn

from monai_cae.networks import EncoderClassifier


class EncoderFreezing:
    """Freeze or free the encoder when a trainer starts: the paper's two stages (section III-C) are two trainers.

    The network itself keeps a frozen encoder in evaluation mode, so its batch-norm statistics stay too.

    Args:
        network: the classifier.
        frozen: whether this trainer leaves the encoder as it is.
    """

    def __init__(self, network: EncoderClassifier, frozen: bool) -> None:
        self.network = network
        self.frozen = frozen

    def attach(self, engine: Engine) -> None:
        """Args: engine: the stage's trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the encoder before the first iteration."""
        self.network.freeze_encoder(self.frozen)


class LayerwiseLearning:
    """Tell a network that is trained layer by layer, before every epoch, how far its training is.

    Args:
        network: with a method `begin_epoch(epoch, epochs)`, whose first epoch is 0; another is left alone.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Args: engine: the stage's trainer."""
        if hasattr(self.network, "begin_epoch"):
            engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Before the epoch's first iteration, also in a training that is resumed."""
        self.network.begin_epoch(engine.state.epoch - 1, engine.state.max_epochs)  # type: ignore[operator]
