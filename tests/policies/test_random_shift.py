"""Random shifts: every picture is one of the crops of itself, padded with its border."""

import torch
import torch.nn.functional as F

from poise.policies.random_shift import random_shift


def crops(image: torch.Tensor, pixels: int) -> list[list[torch.Tensor]]:
    """All crops of one picture (height, width, C), padded by repeating its border."""
    padded = F.pad(image.permute(2, 0, 1)[None].float(), (pixels,) * 4, mode="replicate")[0].permute(1, 2, 0)
    h, w = image.shape[:2]
    return [
        [padded[y : y + h, x : x + w].to(image.dtype) for x in range(2 * pixels + 1)] for y in range(2 * pixels + 1)
    ]


def test_every_picture_is_a_crop_of_its_own_and_all_crops_come_up():
    image = torch.randint(0, 256, (7, 9, 3), dtype=torch.uint8)
    shifted = random_shift(image.expand(400, -1, -1, -1), 2, torch.Generator().manual_seed(0))
    assert shifted.dtype == torch.uint8 and shifted.shape == (400, 7, 9, 3)
    found = [[sum(bool((s == c).all()) for s in shifted) for c in row] for row in crops(image, 2)]
    assert sum(map(sum, found)) == 400 and min(map(min, found)) > 3


def test_no_shift_is_the_picture_itself_and_the_generator_alone_decides():
    image = torch.randint(0, 256, (6, 8, 8, 1), dtype=torch.uint8)
    assert random_shift(image, 0, torch.Generator()) is image
    a, b = (random_shift(image, 3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, random_shift(image, 3, torch.Generator().manual_seed(2)))
