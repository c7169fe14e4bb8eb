import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from secateur.semantics.preprocess import Preprocess


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "size": st.sampled_from([24, (24, 24), (16, 40)]),
            "resize_mode": st.sampled_from(["shortest", "longest", "squash"]),
            "interpolation": st.sampled_from(["bicubic", "bilinear"]),
            "mean": st.sampled_from([(0.5, 0.4, 0.3), (0.48145466, 0.4578275, 0.40821073)]),
            "std": st.sampled_from([(0.5, 0.6, 0.7), (0.26862954, 0.26130258, 0.27577711)]),
            "fill_color": st.sampled_from([0, 128]),
        }
    ),
    st.sampled_from([(24, 24), (40, 16), (16, 40), (1, 1), (7, 90), (133, 60), (500, 375)]),
    st.integers(0, 2**32),
)
def test_a_batch_is_what_open_clip_makes_of_each_picture_to_the_last_bit(settings, size, seed):
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    expected_3HW = image_transform_v2(PreprocessCfg(**settings), is_train=False)(picture)
    preprocess = Preprocess(settings)
    pixel_HW3 = preprocess.pixels(picture)
    assert pixel_HW3.dtype == np.uint8
    assert pixel_HW3.shape[:2] == preprocess.size
    batch_BHW3 = torch.from_numpy(np.stack([np.zeros_like(pixel_HW3), pixel_HW3]))
    assert preprocess.normalise(batch_BHW3)[1].equal(expected_3HW)


def test_settings_are_kept():
    assert Preprocess({"size": 8, "resize_mode": "squash"}).settings == {"size": 8, "resize_mode": "squash"}


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (7, 141), (141, 7)])
def test_a_line_of_pixels_is_cropped_before_it_is_enlarged(size, monkeypatch):
    made, resize = [], Image.Image.resize

    def watched(picture, wanted, *args, **options):
        made.append(wanted)
        return resize(picture, wanted, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    rows_HW = np.full(size[::-1], 9, np.uint8)
    middle = tuple(slice(side // 2 - 1, side // 2 + 1) if side > 7 else slice(None) for side in size[::-1])
    rows_HW[middle] = 200  # the centre is what is left
    pixel_HW3 = Preprocess({"size": 24}).pixels(Image.fromarray(rows_HW).convert("RGB"))
    assert pixel_HW3.shape == (24, 24, 3)
    assert pixel_HW3[11:13, 11:13].min() > 150
    assert max(map(max, made)) <= 20 * 24


@pytest.mark.gpu
def test_on_a_gpu_it_is_nearly_the_same():
    pixel_BHW3 = torch.randint(256, (5, 24, 24, 3), dtype=torch.uint8)
    preprocess = Preprocess({"size": 24})
    there = preprocess.normalise(pixel_BHW3.cuda()).cpu()
    torch.testing.assert_close(there, preprocess.normalise(pixel_BHW3), atol=1e-6, rtol=1e-6)
