import pytest
import torch

from prune_nas.training.data import Augmentation, Data, Images
from prune_nas.training.loop import Setting
from prune_nas.training.precision import Precision


@pytest.fixture
def setting():
    """Forty-eight 8x8 images whose class is their brightness: learnt in a few steps."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % 2
    pixels = (60 * torch.rand(48, 3, 8, 8, generator=generator) + 150 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    images = Images(pixels, labels)
    data = Data(
        name="bright",
        classes=("dark", "bright"),
        train=images.subset(torch.arange(32)),
        val=images.subset(torch.arange(32, 48)),
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        augmentation=Augmentation(padding=1, flip=True),
        fingerprint="x",
        input_shape=(3, 8, 8),
        tests=48,
        read_test=lambda: images,
    )
    return Setting(data, torch.device("cpu"), Precision("fp32"))
