"""Methods: each says where an image pushes a network's output up (towards AD) and where down (towards HC).

All have one signature, `method(subject, seed)`: a map per sample of the image, signed, of the image's size. Most
compare the image with a reference, the mean of the test images: what is as in the mean explains nothing. Black in
place of a square would be fluid, which is what the disease leaves.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from monai.networks.utils import replace_modules_temp
from monai.transforms import GaussianSmooth
from monai.visualize import GradCAM, OcclusionSensitivity, SmoothGrad, VanillaGrad
from torch import nn
from torch.nn import functional

from monai_cae.errors import MonaiCaeError

BATCH_VALUES = 2**20  # of images that go through the network at once: 33 slices of 176 x 176, or a volume at 2 mm
_SMOOTH = 2.0  # voxels, SD, of what comes from gradients: single voxels say nothing
Infer = Callable[[torch.Tensor, nn.Module], Any]
Box = tuple[slice, ...]


class Score(nn.Module):
    """A network's output for images, called as its stage calls it.

    Args:
        network: from images to shape `(N, 1)`.
        infer: `infer(images, network)`.
    """

    def __init__(self, network: nn.Module, infer: Infer) -> None:
        super().__init__()
        self.network = network
        self.infer = infer
        self.eval()  # MONAI's classes put a module that is in training mode back into it, with all that is in it

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, C, H, W[, D])`.

        Returns:
            Shape `(N, 1)`.

        Raises:
            MonaiCaeError: the network gives something else.
        """
        output = self.infer(image, self.network)
        if not isinstance(output, torch.Tensor) or output.shape != (len(image), 1):
            given = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise MonaiCaeError(f"an explanation needs one number for each image, and the network gives {given}")
        return output.float()


@dataclass(frozen=True)
class Subject:
    """What is explained.

    Attributes:
        score: of the network.
        image: shape `(1, C, H, W[, D])`, on the network's device.
        reference: the mean image, of the same shape.
        box: where any image differs from its background, without channels.
        samples: of the image; the channels of a sample are neighbours.
    """

    score: Score
    image: torch.Tensor
    reference: torch.Tensor
    box: Box
    samples: int = 1

    def under(self, network: nn.Module) -> Subject:
        """The same image, seen by another network."""
        return replace(self, score=Score(network, self.score.infer))

    def by_sample(self, values: torch.Tensor) -> torch.Tensor:
        """Numbers of the channels, shape `(1, C, ...)`, added up: shape `(samples, ...)`."""
        return values[0].unflatten(0, (self.samples, -1)).sum(dim=1)


Method = Callable[[Subject, int], torch.Tensor]


class Occlusion:
    """MONAI's `OcclusionSensitivity` (Zeiler and Fergus 2014): by how much the output falls if a square of the image is
    replaced by the same square of the reference. A map is the mean over the squares that cover a place.

    Args:
        patch: side of the square, in voxels of the image, at most a quarter of the brain; the next lies half of it
            further on.
        places: the most squares for an image; if there would be more, they grow.
    """

    def __init__(self, patch: float = 16, places: int = 64) -> None:
        self.patch = patch
        self.places = places

    def __call__(self, subject: Subject, seed: int = 0) -> torch.Tensor:
        """Args: subject: see `Subject`. Returns: shape `(samples, H, W[, D])`."""
        found = torch.zeros(subject.samples, *subject.image.shape[2:])
        part = (slice(None), slice(None), *subject.box)
        whole, away = subject.image, subject.image - subject.reference
        channels = whole.shape[1] // subject.samples
        sides = self.sides([one.stop - one.start for one in subject.box], subject.samples)
        together = max(1, min(32, BATCH_VALUES // whole[0].numel()))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using a non-tuple sequence")  # MONAI's indexing, under newer PyTorch
            before = float(subject.score(whole))
            for sample in range(subject.samples):
                own = slice(sample * channels, (sample + 1) * channels)
                place = (slice(None), own, *subject.box)
                module = _Away(subject.score, whole, subject.reference[place], place)
                occluded = OcclusionSensitivity(
                    module, sides, n_batch=together, verbose=False, mode=0.0, overlap=0.5, activate=False
                )
                squares = occluded(away[part][:, own])[0][0, 0].float().cpu()
                found[sample][subject.box] = before - squares
        return found

    def sides(self, box: Sequence[int], samples: int = 1) -> list[int]:
        """Of a square, so that no more are needed than allowed.

        Args:
            box: sizes of what is covered.
            samples: of an image, each of which is covered.
        """
        allowed = max(1, self.places // samples)
        side = max(2.0, min(self.patch, min(box) / 4))
        while True:
            sides = [min(round(side), size) for size in box]
            if math.prod(positions(size, one) for size, one in zip(box, sides, strict=True)) <= allowed:
                return sides
            side *= 1.05


def positions(size: int, side: int) -> int:
    """How many squares lie along an axis, each half over the next, as MONAI's sliding window lays them."""
    return math.ceil((size - side) / max(1, int(side * 0.5))) + 1


class _Away(nn.Module):
    """The score of an image, part of which is so far away from the reference."""

    def __init__(self, score: Score, whole: torch.Tensor, reference: torch.Tensor, place: tuple[slice, ...]) -> None:
        super().__init__()
        self.score, self.whole, self.reference, self.place = score, whole, reference, place
        self.eval()  # as above

    def forward(self, away: torch.Tensor) -> torch.Tensor:
        images = self.whole.repeat_interleave(len(away), dim=0)
        images[self.place] = self.reference + away
        return self.score(images)


def exact(subject: Subject, seed: int = 0) -> torch.Tensor:
    """What each place of the code adds to the output of a linear probe, beside the mean image's code there.

    The sum over all places is the difference between the image's output and the reference's, but for what a histogram
    adds, which has no place. Where samples vote, each has the map of its own vote, divided by their number.

    Raises:
        MonaiCaeError: there are hidden layers, or the network has no encoder and head.
    """
    network = subject.score.network
    head = getattr(network, "head", None)
    if head is None or sum(isinstance(one, nn.Linear) for one in head.modules()) != 1:
        raise MonaiCaeError(
            "the exact map is a linear probe's, and this network is none: take method occlusion, or set "
            "network_def#hidden to []"
        )
    encoder, summarise = network.get_submodule("encoder"), cast(Any, network).summarise
    with torch.no_grad():
        code, mean = (subject.score.infer(one, encoder) for one in (subject.image, subject.reference))
    code = code.detach().requires_grad_()
    seen = summarise(code, subject.image)
    output = head.votes(seen)[0].mean() if hasattr(head, "votes") else head(seen)
    (weight,) = torch.autograd.grad(output.sum(), code)
    parts = subject.by_sample(weight * (code.detach() - mean))[None].float()
    cells = math.prod(subject.image.shape[2:]) / math.prod(parts.shape[2:])
    mode = "bilinear" if parts.ndim == 4 else "trilinear"
    return functional.interpolate(parts, size=subject.image.shape[2:], mode=mode, align_corners=False)[0].cpu() / cells


def gradient(subject: Subject, seed: int = 0) -> torch.Tensor:
    """The gradient at the image (Simonyan et al. 2014; MONAI's `VanillaGrad`) times its difference from the mean."""
    return _by_gradient(subject, VanillaGrad(subject.score))


def smooth_gradient(subject: Subject, seed: int = 0) -> torch.Tensor:
    """`gradient` as the mean of 16 gradients at the image with noise (Smilkov et al. 2017; MONAI's `SmoothGrad`)."""
    with torch.random.fork_rng(devices=_devices(subject.image)):
        torch.manual_seed(seed)
        return _by_gradient(subject, SmoothGrad(subject.score, n_samples=16, magnitude=False, verbose=False))


def guided(subject: Subject, seed: int = 0) -> torch.Tensor:
    """Guided back-propagation (Springenberg et al. 2015): the gradient, negative parts left out at every ReLU. It
    hardly depends on the weights (Adebayo et al. 2018), and is here as what the tests must find."""
    with _relus(subject.score, _Guided):
        return _by_gradient(subject, VanillaGrad(subject.score), times_difference=False)


def deconvolution(subject: Subject, seed: int = 0) -> torch.Tensor:
    """Zeiler and Fergus 2014: as `guided`, but what a ReLU holds back in the forward pass goes back through it."""
    with _relus(subject.score, _Deconvolved):
        return _by_gradient(subject, VanillaGrad(subject.score), times_difference=False)


def grad_cam(subject: Subject, seed: int = 0) -> torch.Tensor:
    """MONAI's `GradCAM` (Selvaraju et al. 2017) of the encoder's code, for the output less that for its negative. Its
    own post-processing, which maps hot to 0 and loses how much, is left out.

    Raises:
        MonaiCaeError: the network has no encoder, or no gradient.
    """
    network = subject.score.network
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise MonaiCaeError("Grad-CAM shows an encoder's code, and the network has none: take method occlusion")
    layer = encoder.network if subject.samples > 1 and hasattr(encoder, "samples") else encoder  # of a sample
    sides = []
    for sign in (1.0, -1.0):
        with _for_gradients(subject) as image, _without_new_hooks(layer):
            module = _Signed(subject.score, sign)
            name = next(name for name, one in module.named_modules() if one is layer)
            cam = GradCAM(module, name, postprocessing=lambda values: values)
            sides.append(cam(image.requires_grad_(), class_idx=0).detach())
    found = (sides[0] - sides[1]).float().cpu()[:, 0]
    return found if len(found) == subject.samples else found.expand(subject.samples, *found.shape[1:]).clone()


METHODS: dict[str, Method] = {
    "exact": exact,
    "gradient": gradient,
    "smooth_gradient": smooth_gradient,
    "grad_cam": grad_cam,
    "guided": guided,
    "deconvolution": deconvolution,
}


class _Signed(nn.Module):
    def __init__(self, score: Score, sign: float) -> None:
        super().__init__()
        self.score, self.sign = score, sign
        self.eval()  # as above

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.sign * self.score(image)


def _by_gradient(subject: Subject, method: VanillaGrad, times_difference: bool = True) -> torch.Tensor:
    with _for_gradients(subject) as image:
        slope = method(image, index=0).detach().float()
    if times_difference:
        slope = slope * (subject.image - subject.reference)
    return GaussianSmooth(_SMOOTH)(subject.by_sample(slope).cpu())


@contextmanager
def _for_gradients(subject: Subject) -> Iterator[torch.Tensor]:
    """A copy of the image, while the weights have no gradients; a dense layer has 63 million of them."""
    weights = [one for one in subject.score.parameters() if one.requires_grad]
    for one in weights:
        one.requires_grad_(False)
    try:
        image = subject.image.detach().clone()
        if not subject.score(image.clone().requires_grad_()).requires_grad:
            raise MonaiCaeError(
                f"{type(subject.score.network).__name__} has no gradient at the image: take method occlusion"
            )
        yield image
    finally:
        for one in weights:
            one.requires_grad_()


@contextmanager
def _without_new_hooks(layer: nn.Module) -> Iterator[None]:
    """MONAI's hooks would stay, keep what they saw, and prevent the network's export."""
    kept = [(hooks, dict(hooks)) for hooks in (layer._forward_hooks, layer._backward_hooks)]
    full = layer._is_full_backward_hook
    try:
        yield
    finally:
        layer._is_full_backward_hook = full
        for hooks, before in kept:
            hooks.clear()
            hooks.update(before)


@contextmanager
def _relus(score: Score, function: type[torch.autograd.Function]) -> Iterator[None]:
    """Every ReLU of the network, whatever its name, goes backwards by a rule of its own."""
    names = [name for name, one in score.named_modules() if isinstance(one, nn.ReLU)]
    if not names:
        raise MonaiCaeError("this method is for networks with nn.ReLU, and the network has none: take method occlusion")
    with ExitStack() as replaced:
        for name in names:
            replaced.enter_context(replace_modules_temp(score, name, _ReLU(function)))
        yield


class _ReLU(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function.apply(x)


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(context: Any, slope: torch.Tensor) -> torch.Tensor:
        (x,) = context.saved_tensors
        return slope.clamp(min=0) * (x > 0)


class _Deconvolved(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(context: Any, slope: torch.Tensor) -> torch.Tensor:
        return slope.clamp(min=0)


def _devices(image: torch.Tensor) -> list[torch.device]:
    return [image.device] if image.is_cuda else []
