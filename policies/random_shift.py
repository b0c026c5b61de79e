"""Pictures shifted by a few pixels, each on its own: the augmentation of DrQ (Yarats et al. 2021, arXiv 2004.13649).

A picture is padded with its border and cropped at a random place. A value that depends on where exactly things are in
the picture is then noise, and the encoder stops fitting it.

Legend: B batch, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def random_shift(image: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """`image` (B, height, width, C), each moved by up to `pixels` along both sides, its border repeated."""
    if pixels == 0:
        return image
    rows, height, width, channels = image.shape
    shift = torch.randint(-pixels, pixels + 1, (2, rows, 1), generator=generator, device=image.device)
    y = (torch.arange(height, device=image.device) + shift[0]).clamp_(0, height - 1)  # (B, height)
    x = (torch.arange(width, device=image.device) + shift[1]).clamp_(0, width - 1)
    # whole lines first, then pixels within them: memory is read in runs
    start = torch.arange(rows, device=image.device)[:, None]
    lines = image.reshape(rows * height, width * channels).index_select(0, (start * height + y).flatten())
    index = x.repeat_interleave(height, 0)[..., None].expand(-1, -1, channels)
    return lines.view(rows * height, width, channels).gather(1, index).view_as(image)
