"""The bundle's encoder as a feature extractor on another task, under MONAI's own SupervisedTrainer.

The task is to measure the radius of a disc in a noisy image: synthetic, made here, seconds on a CPU.

    python examples/encoder_on_another_task.py BUNDLE      # a bundle's folder with configs/ and models/
"""

from __future__ import annotations

import sys

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from torch import nn

import monai_cae
from monai_cae.errors import MonaiCaeError

SIZE = 32


class RadiusRegressor(nn.Module):
    """A frozen encoder, and dense layers that learn.

    Args:
        encoder: of `monai_cae.load_encoder`.
    """

    def __init__(self, encoder: nn.Module, channels: int) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        features = channels * 16
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.BatchNorm1d(features),  # codes of different encoders differ much in size
            nn.Linear(features, 64),
            nn.ReLU(),
            nn.Linear(64, 1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Shape `(N, 1, H, W)`, values in [0, 1], to `(N, 1)`."""
        return self.head(self.encoder(image))

    def train(self, mode: bool = True) -> RadiusRegressor:
        """As in PyTorch, but the encoder stays in evaluation mode.

        SupervisedTrainer calls `train()` in every iteration, and batch-norm statistics would drift.
        """
        super().train(mode)
        self.encoder.eval()
        return self


def discs(number: int, generator: torch.Generator) -> list[dict[str, torch.Tensor]]:
    """Images of shape `(1, SIZE, SIZE)` in [0, 1], and radii from 0 (none) to 1 (a third of the image)."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(SIZE, dtype=torch.float32)] * 2, indexing="ij"))
    items = []
    for _ in range(number):
        radius = torch.rand(1, generator=generator)
        centre = SIZE * (0.35 + 0.3 * torch.rand(2, generator=generator))
        inside = (grid - centre[:, None, None]).norm(dim=0) < radius * SIZE / 3
        noise = torch.rand(1, SIZE, SIZE, generator=generator)
        items.append({"image": 0.5 * inside[None] + 0.5 * noise, "label": radius})
    return items


def mean_error(network: nn.Module, items: list[dict[str, torch.Tensor]]) -> float:
    """Mean absolute error of the radius."""
    network.eval()
    images, radii = (torch.stack([item[key] for item in items]) for key in ("image", "label"))
    with torch.inference_mode():
        return float((network(images) - radii).abs().mean())


def main(bundle: str) -> None:
    """Train the dense layers, and print the error on images that were not trained on."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    training, test = discs(96, generator), discs(64, generator)
    encoder = monai_cae.load_encoder(bundle)
    network = RadiusRegressor(encoder, encoder.out_channels)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=30,
        train_data_loader=DataLoader(Dataset(training), batch_size=16, shuffle=True),
        network=network,
        optimizer=torch.optim.Adam(network.head.parameters(), lr=3e-3),
        loss_function=nn.MSELoss(),
        decollate=False,
    )
    before = mean_error(network, test)
    trainer.run()
    print(f"mean error of the radius on {len(test)} synthetic images: {before:.3f} before, ", end="")
    print(f"{mean_error(network, test):.3f} after training on the frozen encoder (guessing the mean: 0.25)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/encoder_on_another_task.py BUNDLE")
    try:
        main(sys.argv[1])
    except MonaiCaeError as error:
        sys.exit(f"error: {error}")
