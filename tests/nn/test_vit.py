from functools import partial

import pytest
import torch
from torch import nn

from pmam_plugin.nn.vit import Block, DropPath

timm = pytest.importorskip("timm.models.vision_transformer")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_a_block_is_timms_with_the_same_names_start_and_answers(bias, masked):
    blocks = []
    for kind in (Block, partial(timm.Block, norm_layer=partial(nn.LayerNorm, eps=1e-6))):
        torch.manual_seed(0)
        blocks.append(kind(12, 3, qkv_bias=bias))
    ours, theirs = (block.state_dict() for block in blocks)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    tokens = torch.randn(2, 7, 12)
    mask = torch.ones(7, 7).tril().bool() if masked else None
    expected = blocks[1](tokens) if mask is None else blocks[1](tokens, attn_mask=mask)
    assert torch.allclose(blocks[0](tokens, mask), expected, atol=1e-6)


def test_dropped_paths_keep_the_mean():
    path = DropPath(0.25).train()
    torch.manual_seed(0)
    branch = path(torch.ones(4000, 1, 1))
    assert branch.mean().item() == pytest.approx(1.0, abs=0.05)
    assert (branch == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(path.eval()(torch.ones(5, 1)), torch.ones(5, 1))
