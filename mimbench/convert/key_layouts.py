"""How other codes name the tensors of a ViT, a Swin or a ConvNet, and which code wrote a file, by its keys.

Every layout is renamed into one vocabulary: timm's names for the encoder, and for what belongs to the
pretraining method the names of that method's official code (`mask_token`, `decoder.0.weight`, `lm_head.weight`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mimbench.errors import InputError
from mimbench.text import list_first

PREFIX = re.compile(r"^(?:_orig_mod\.|module\.|model\.|backbone\.|encoder\.|body\.)+")
"""What wrappers put before the names: DDP, torch.compile, mmpretrain, SimMIM, mimbench itself."""

METHOD_PART = re.compile(
    r"^(?:mask_token$|decoder[._]|encoder_to_decoder(?:_norm)?\.|lm_head\.|cls_pt_|wfm\.|dec_norms\.|pretext_neck\.|"
    r"pred_head\.projections\.)"
)
"""Names that belong to the pretraining method, not to the encoder."""

LEFT_OUT = (
    (re.compile(r"relative_position_index$"), "an index that the encoder computes itself"),
    (re.compile(r"relative_coords_table$"), "coordinates that the encoder computes itself"),
    (re.compile(r"\brope\.freqs$"), "frequencies of rotary positions, which the encoder computes itself"),
    (re.compile(r"^hogs\.\d+\.weight_[xy]$"), "filters of the target, which the method computes itself"),
    (re.compile(r"attn_mask$"), "the mask of shifted windows, which the encoder computes itself"),
    (re.compile(r"\bk_bias$"), "adds the same to every score of a query, so the softmax cancels it"),
    (re.compile(r"^head\.(?:mlp|last_layer)"), "a projection head, which only pretraining uses"),
    (re.compile(r"^(?:head|fc|classifier|pre_logits|head_dist)\."), "a classifier, which tasks train anew"),
    (re.compile(r"^(?:target_generator|d_vae|teacher)\."), "the network that gave the targets"),
    (re.compile(r"^data_preprocessor\.|^(?:mean|std)$"), "pixel statistics, which the recipe's [input] gives"),
)

Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class KeyLayout:
    """One code's names. A file has the first layout whose patterns `signs` all match some key."""

    name: str
    kind: str
    """The kind of encoder."""
    source: str
    signs: tuple[str, ...]
    absent: str = ""
    """A pattern that no key matches, if the signs alone would suit other codes too."""
    renames: Renames = ()
    """(pattern, replacement), applied one after the other to each name."""
    merges_last: bool = False
    """Swin: a stage ends with its patch merging; in timm, the next one begins with it."""
    unfolds: bool = False
    """Swin: patches are merged by nn.Unfold, with channels outermost; in timm, innermost."""

    options: tuple[tuple[str, Any], ...] = ()
    """Options of the encoder that its tensors do not show."""
    first_blocks: str = ""
    """Beginning of the names, after `renames`, of blocks that come before `blocks.`, which count on from them."""

    def rename(self, name: str) -> str:
        """A name without prefix -> timm's name, or the official name of a method's parameter."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


_SIMMIM = "https://github.com/microsoft/SimMIM@d3e29bca"
_TIMM = "https://github.com/huggingface/pytorch-image-models"
_MMPRETRAIN = "https://github.com/open-mmlab/mmpretrain"
_SWIN_ATTENTION = r"^layers\.0\.blocks\.0\.attn\.relative_position_bias_table$"
_MERGED_LAST = r"^layers\.0\.downsample\.reduction\.weight$"
_BLOCK = r"^blocks\.0\.attn\.qkv\.weight$"
_RELATIVE = r"(?:rel_pos_bias|attn)\.relative_position_bias_table$|^blocks\.0\.(?:gamma_1|attn\.q_bias)$"
_MM_BLOCK = r"^layers\.0\.ffn\.layers\.0\.0\.weight$"
_MM_RELATIVE = r"relative_position_bias_table$|^layers\.0\.(?:gamma_1|attn\.q_bias)$"
_MM_FFN: Renames = ((r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."), (r"\.ffn\.layers\.1\.", ".mlp.fc2."))
_MM_VIT: Renames = (
    (r"^neck\.(?:ln1|decoder_norm)\.", "decoder_norm."),
    (r"^neck\.", ""),
    (r"^head\.cls_head\.", "lm_head."),
    (r"^layers\.", "blocks."),
    (r"^ln1\.", "norm."),
    (r"^ln2\.", "fc_norm."),
    (r"\.ln([12])\.", r".norm\1."),
    (r"\.attn\.gamma1\.weight$", ".gamma_1"),
    (r"\.ffn\.gamma2\.weight$", ".gamma_2"),
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    *_MM_FFN,
)
_MM_SWIN: Renames = (
    (r"^neck\.", ""),
    (r"^stages\.", "layers."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    *_MM_FFN,
)

_DATA2VEC2: Renames = (
    (r"^modality_encoders\.IMAGE\.", ""),
    (r"^local_encoder\.", "patch_embed."),
    (r"^extra_tokens$", "cls_token"),
    (r"^fixed_positional_encoder\.positions$", "pos_embed"),
    (r"^context_encoder\.norm\.", "norm_pre."),
)

_CAPI: Renames = (
    (r"^registers$", "reg_token"),
    (r"^patch_embed\.(weight|bias)$", r"patch_embed.proj.\1"),
    (r"\.residual([12])\.norm\.", r".norm\1."),
    (r"\.residual1\.fn\.", ".attn."),
    (r"\.residual2\.fn\.", ".mlp."),
)
_CAPI_OPTIONS = (("position", "edge-rope"), ("class_token", False), ("norm", "rms"), ("bias", False))

_CONVNEXT: Renames = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.(?:ln|linear)\.", "."),
    (r"\.kernel$", ".weight"),
    (r"\.grn\.gamma$", ".mlp.grn.weight"),
    (r"\.grn\.beta$", ".mlp.grn.bias"),
    (r"^norm\.", "norm_pre."),
)

LAYOUTS = (
    KeyLayout("mmpretrain-swin", "swin", _MMPRETRAIN, (r"^stages\.0\.blocks\.0\.attn\.w_msa\.qkv\.weight$",),
           renames=_MM_SWIN, merges_last=True, unfolds=True),
    KeyLayout("mmpretrain-beit", "vit", _MMPRETRAIN, (_MM_BLOCK, _MM_RELATIVE), renames=_MM_VIT),
    KeyLayout("mmpretrain-vit", "vit", _MMPRETRAIN, (_MM_BLOCK, r"^layers\.0\.ln1\.weight$"), renames=_MM_VIT),
    KeyLayout("cae", "vit", "https://github.com/lxtGH/CAE@d7259714", (_BLOCK, r"^pretext_neck\.head\.")),
    KeyLayout("maskfeat", "vit", "https://github.com/facebookresearch/SlowFast@287ec007",
           (_BLOCK, r"^pred_head\.projections\.0\."), renames=((r"^pred_head\.transforms\.0\.0\.", "norm."),)),
    KeyLayout("hpm", "vit", "https://github.com/Haochen-Wang409/HPM@c15ae907",
           (_BLOCK, r"^decoder_blocks_losspred\.0\.", r"^decoder_embed\.")),
    KeyLayout("localmim", "vit", "https://github.com/Haoqing-Wang/LocalMIM@314a6e55",
           (_BLOCK, r"^norm\.3\.weight$", r"^decoder\.3\.pred\."), renames=((r"^norm\.3\.", "norm."),)),
    KeyLayout("capi", "vit", "https://github.com/facebookresearch/capi@0145b88f",
           (r"^(?:encoder\.)?blocks\.0\.residual1\.fn\.q_proj\.weight$", r"^registers$"),
           renames=_CAPI, options=_CAPI_OPTIONS),
    KeyLayout("crossmae", "vit", "https://github.com/TonyLianLong/CrossMAE@6e1b329c",
           (_BLOCK, r"^decoder_blocks\.0\.cross_attn\.", r"^wfm\."), renames=((r"\.cross_attn\.", ".attn."),)),
    KeyLayout("dbot", "vit", "https://github.com/liuxingbin/dbot@e935478a",
           (_BLOCK, r"^decoder_blocks\.0\.", r"^decoder_predp\.")),
    KeyLayout("mae", "vit", "https://github.com/facebookresearch/mae@efb2a806",
           (_BLOCK, r"^decoder_blocks\.0\.", r"^decoder_embed\.")),
    KeyLayout("videomae", "video-vit", "https://github.com/MCG-NJU/VideoMAE@14ef8d85",
           (_BLOCK, r"^encoder_to_decoder\.weight$", r"^decoder\.blocks\.0\.")),
    KeyLayout("videomae-classifier", "video-vit", "https://github.com/MCG-NJU/VideoMAE@14ef8d85, fine-tuned",
           (_BLOCK, r"^blocks\.0\.attn\.q_bias$", r"^fc_norm\.weight$"),
           absent=r"^cls_token$|relative_position"),
    KeyLayout("simmim-vit", "vit", _SIMMIM, (_BLOCK, _RELATIVE, r"^decoder\.0\.weight$")),
    KeyLayout("beitv2", "vit", "https://github.com/microsoft/unilm/tree/768a3c87/beit2", (_BLOCK, r"^cls_pt_layers\.")),
    KeyLayout("beit", "vit", "https://github.com/microsoft/unilm/tree/768a3c87/beit", (_BLOCK, r"^lm_head\.")),
    KeyLayout("data2vec2", "vit", "https://github.com/facebookresearch/fairseq@3d262bb, examples/data2vec",
           (_BLOCK, r"^modality_encoders\.IMAGE\.extra_tokens$"), renames=_DATA2VEC2, options=(("post_norm", True),),
           first_blocks="context_encoder."),
    KeyLayout("timm-beit", "vit", f"{_TIMM}, models/beit.py", (_BLOCK, _RELATIVE)),
    KeyLayout("timm-vit", "vit", f"{_TIMM}, models/vision_transformer.py", (_BLOCK, r"^pos_embed$")),
    KeyLayout("simmim-swin", "swin", _SIMMIM, (_SWIN_ATTENTION, _MERGED_LAST, r"^decoder\.0\.weight$"),
           merges_last=True),
    KeyLayout("mixmim", "swin", "https://github.com/Sense-X/MixMIM@2b2f5a9a",
           (_SWIN_ATTENTION, _MERGED_LAST, r"^absolute_pos_embed$"), merges_last=True, options=(("shift", False),)),
    KeyLayout("greenmim", "swin", "https://github.com/LayneH/GreenMIM@b9810122",
           (_SWIN_ATTENTION, _MERGED_LAST, r"^decoder_embed\."), merges_last=True, options=(("norm_eps", 1e-6),)),
    KeyLayout("swin", "swin", "https://github.com/microsoft/Swin-Transformer, timm before 0.9",
           (_SWIN_ATTENTION, _MERGED_LAST), merges_last=True),
    KeyLayout("timm-swin", "swin", f"{_TIMM}, models/swin_transformer.py, from 0.9", (_SWIN_ATTENTION,)),
    KeyLayout("timm-convnext", "convnet", f"{_TIMM}, models/convnext.py",
           (r"^stem\.0\.weight$", r"^stages\.0\.blocks\.0\.conv_dw\.weight$"),
           renames=((r"^head\.norm\.", "norm_pre."),)),
    KeyLayout("convnext", "convnet", "https://github.com/facebookresearch/ConvNeXt and ConvNeXt-V2, sparse weights too",
           (r"^downsample_layers\.0\.0\.weight$", r"^stages\.0\.0\.dwconv\.(?:weight|kernel)$"), renames=_CONVNEXT),
    KeyLayout("timm-resnet", "convnet", f"{_TIMM}, models/resnet.py", (r"^conv1\.weight$", r"^layer1\.0\.conv1\.")),
)  # fmt: skip

_HUGGING_FACE = re.compile(r"(?:^|\.)embeddings\.patch_embeddings\.|(?:^|\.)layer\.\d+\.attention\.")


def recognise(keys: Iterable[str]) -> KeyLayout:
    """The layout of a state dict, by its keys; prefixes of wrappers do not matter.

    Raises:
        InputError: none that is known, with some of the keys.
    """
    names = sorted(PREFIX.sub("", key) for key in keys)
    for layout in LAYOUTS:
        if layout.absent and any(re.search(layout.absent, name) for name in names):
            continue
        if all(any(re.search(sign, name) for name in names) for sign in layout.signs):
            return layout
    if any(_HUGGING_FACE.search(name) for name in names):
        raise InputError(
            "the names are those of Hugging Face transformers (encoder.layer.0.attention...), which are not read; take "
            "the same weights from timm or from the official code"
        )
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise InputError(f"unknown key layout ({list_first(names) or 'no keys'}); known: {known}")
