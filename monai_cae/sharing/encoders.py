"""The bundle's encoder as a feature extractor for other tasks."""

from __future__ import annotations

from pathlib import Path

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvEncoder, EachSample
from monai_cae.sharing.bundle import CHECKPOINTS, open_bundle
from monai_cae.sharing.definitions import load_network
from monai_cae.sharing.screening import require_screened, screen_executed


def load_encoder(bundle: str | Path, *, trust: bool = False) -> ConvEncoder:
    """The encoder of a bundle, with its trained weights.

    Its channels are those of the bundle's `configs/inference.json`. The weights are the autoencoder's
    (`models/autoencoder.pt`) or, where that file is not there, those of the classifier's encoder (`models/model.pt`),
    which is fine-tuned on the diagnosis. They are read as data, and a config that is more than settings is refused.

    Feed it what it was trained on: float32 of shape `(N, 1, H, W)`, each image scaled to [0, 1] by its own minimum and
    maximum (MONAI's `ScaleIntensity`), H and W divisible by 4. Any such size will do, not only 176 x 176. Where the
    bundle's images have several samples, it takes one of them.

    Args:
        bundle: the bundle's folder, with `configs/` and `models/`.
        trust: execute a config that has more than settings besides what this package ships, see
            `monai_cae.sharing.screening`.

    Returns:
        Encoder on the CPU in evaluation mode; its code has the shape `(N, 128, H / 4, W / 4)` or, with other channels,
        `(N, encoder.out_channels, H / encoder.downsampling, W / encoder.downsampling)`. `encoder.blocks` are its
        stages, for skip connections. It can be trained further; `encoder.requires_grad_(False)` freezes its weights,
        and evaluation mode its batch-norm statistics.

    Raises:
        MonaiCaeError: no such folder, no weights in it, a config that is not trusted, weights of another architecture
            than the config's, or metadata of a newer version than this package reads.
    """
    opened = open_bundle(bundle)
    require_screened(opened.folder, screen_executed(opened.folder), trust)
    names = [CHECKPOINTS["autoencoder"], CHECKPOINTS["classifier"]]
    found = [path for path in (opened.folder / name for name in names) if path.is_file()]
    if not found:
        raise MonaiCaeError(
            f"no {names[0]} or {names[1]} in {opened.folder}: train a network, and copy models/ of its --output_dir "
            "there"
        )
    encoder = load_network(opened, "autoencoder", found[0], part="encoder").eval()
    encoder = encoder.network if isinstance(encoder, EachSample) else encoder
    if not isinstance(encoder, ConvEncoder):
        raise MonaiCaeError(
            f"{opened.config_file}: the encoder of autoencoder_def is {type(encoder).__name__}, and only a ConvEncoder "
            "can be loaded by itself: instantiate autoencoder_def, and load the weights into it"
        )
    return encoder
