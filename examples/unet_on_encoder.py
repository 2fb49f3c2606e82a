"""The bundle's encoder as the backbone of a U-Net with MONAI's decoder blocks, trained with DiceLoss.

The task is to segment a disc in a noisy image: synthetic, made here, seconds on a CPU.

    python examples/unet_on_encoder.py BUNDLE      # a bundle's folder with configs/ and models/
"""

from __future__ import annotations

import sys

import torch
from monai.data import DataLoader, Dataset
from monai.losses import DiceLoss
from monai.metrics import DiceMetric
from monai.networks.nets.basic_unet import UpCat
from torch import nn

import monai_cae
from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvEncoder

SIZE = 32


class EncoderUNet(nn.Module):
    """The encoder's stages on the way down; on the way up MONAI's up-sampling blocks, with their outputs beside.

    Args:
        encoder: of `monai_cae.load_encoder`.
        out_channels: classes.
    """

    def __init__(self, encoder: ConvEncoder, out_channels: int = 1) -> None:
        super().__init__()
        self.encoder = encoder
        widths = [block[0].out_channels for block in encoder.blocks]
        self.ups = nn.ModuleList(
            UpCat(2, below, beside, beside, act="relu", norm="batch", bias=True)
            for below, beside in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.output = nn.Conv2d(widths[0], out_channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Shape `(N, 1, H, W)`, values in [0, 1], to logits of shape `(N, out_channels, H, W)`."""
        stages, x = [], image
        for index, block in enumerate(self.encoder.blocks):
            x = block(x if index == 0 else self.encoder.pool(x))
            stages.append(x)
        for up, beside in zip(self.ups, stages[-2::-1], strict=True):
            x = up(x, beside)
        return self.output(x)


def discs(number: int, generator: torch.Generator) -> list[dict[str, torch.Tensor]]:
    """Images and masks of shape `(1, SIZE, SIZE)`, values in [0, 1]."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(SIZE, dtype=torch.float32)] * 2, indexing="ij"))
    items = []
    for _ in range(number):
        radius = SIZE * (0.1 + 0.2 * torch.rand(1, generator=generator))
        centre = SIZE * (0.3 + 0.4 * torch.rand(2, generator=generator))
        inside = ((grid - centre[:, None, None]).norm(dim=0) < radius)[None].float()
        noise = torch.rand(1, SIZE, SIZE, generator=generator)
        items.append({"image": 0.3 * inside + 0.7 * noise, "label": inside})
    return items


def dice(network: nn.Module, items: list[dict[str, torch.Tensor]]) -> float:
    """Mean Dice coefficient of the masks."""
    network.eval()
    images, masks = (torch.stack([item[key] for item in items]) for key in ("image", "label"))
    metric = DiceMetric(include_background=True)
    with torch.inference_mode():
        metric((network(images) > 0).float(), masks)
    return float(metric.aggregate())


def main(bundle: str) -> None:
    """Train encoder and decoder together, and print the Dice on images that were not trained on."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    training, test = discs(40, generator), discs(24, generator)
    network = EncoderUNet(monai_cae.load_encoder(bundle))
    loader = DataLoader(Dataset(training), batch_size=4, shuffle=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    loss_function = DiceLoss(sigmoid=True)
    before = dice(network, test)
    for _ in range(5):
        network.train()
        for batch in loader:
            optimizer.zero_grad()
            loss_function(network(batch["image"]), batch["label"]).backward()
            optimizer.step()
    print(f"Dice on {len(test)} synthetic images: {before:.3f} before, {dice(network, test):.3f} after training")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/unet_on_encoder.py BUNDLE")
    try:
        main(sys.argv[1])
    except MonaiCaeError as error:
        sys.exit(f"error: {error}")
