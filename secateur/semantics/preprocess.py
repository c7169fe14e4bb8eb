"""Pictures as a CLIP wants them: the pixels of each, then numbers for a whole batch.

Together the two give what open_clip's own transform gives for one picture, to the last bit, other than for one whose
sides are beyond 1 to 20: resized by its shorter side before it is cropped, a line of pixels would take gigabytes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, Normalize, ToTensor

WIDEST = 20  # sides of a picture as one to so much, beyond which only the centre counts


class Preprocess:
    """The transform of a model.

    Attributes:
        settings: Size, mean, std, interpolation, ... as open_clip names them.
        size: Height and width that the model takes.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        config = PreprocessCfg(**settings)
        self.settings = dict(settings)
        self.size: tuple[int, int] = config.input_size[1:]
        steps = image_transform_v2(config, is_train=False).transforms
        self._crops = config.resize_mode == "shortest"
        self._resize = Compose([step for step in steps if not isinstance(step, ToTensor | Normalize)])
        normalise = next(step for step in steps if isinstance(step, Normalize))
        self._mean, self._std = (torch.tensor(v).view(-1, 1, 1) for v in (normalise.mean, normalise.std))

    def pixels(self, picture: Image.Image) -> npt.NDArray[np.uint8]:
        """Resize and crop an RGB picture, uint8 (H, W, 3)."""
        if picture.size != self.size[::-1]:
            picture = self._resize(within(picture) if self._crops else picture)
        return np.asarray(picture)

    def normalise(self, pixel_BHW3: Tensor) -> Tensor:
        """Scale the pixels of a batch, uint8, on the device where they are; float32 (B, 3, H, W)."""
        mean, std = (value.to(pixel_BHW3.device) for value in (self._mean, self._std))
        picture_B3HW = pixel_BHW3.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return picture_B3HW.div_(255).sub_(mean).div_(std)


def within(picture: Image.Image) -> Image.Image:
    """The centre of a picture, with sides not beyond 1 to 20; most pictures as they are."""
    longest = WIDEST * min(picture.size)
    if max(picture.size) <= longest:
        return picture
    width, height = (min(side, longest) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
