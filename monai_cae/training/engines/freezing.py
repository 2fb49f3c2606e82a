"""When each part of the classifier learns."""

from __future__ import annotations

from ignite.engine import Engine, Events

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
