"""`mimbench parity`: golden vectors of the official implementations, of these sizes and of others."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.official_values import convnext_name
from mimbench.cli.parity import compare_files
from mimbench.contract import Golden
from mimbench.errors import InputError
from mimbench.harness.planning.build import build
from mimbench.parity.comparison import compare
from mimbench.parity.golden import read_golden, setup_of
from mimbench.parity.replay import run_step

NORM = re.compile(r"^param/.*(?:\.norm1?|\.bn1|\.norm\.ln)\.weight$")
"""The norm of an encoder's block."""
FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = sorted(FOLDER.glob("*_tiny*.npz"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_official_numbers(path):
    result = compare(read_golden(path))
    assert [row.quantity for row in result.rows if not row.passed] == []
    quantities = " ".join(row.quantity for row in result.rows)
    stored = [name for name in np.load(path).files if name not in ("out/loss", "out/loss_f64")]
    assert all(f"gradient {name.removeprefix('grad/')}" in quantities for name in stored if name.startswith("grad/"))
    assert all(f"output {name.removeprefix('out/')}" in quantities for name in stored if name.startswith("out/"))
    assert {"loss (fp32)", "loss (fp64)", "gradient norm (fp32)", "gradient norm (fp64)"} <= {
        row.quantity for row in result.rows
    }
    assert [name for name, reason in result.skipped.items() if not reason] == []


REFUSED = {
    "videomae_classifier.npz": "of method 'videomae-finetune', which no method here is compared with",
    "maskfeat_hog_8bit.npz": "holds no weights",
    "mask_exact.npz": "holds no weights",
    "mask_exact_a.npz": "holds no weights",
    "mask_exact_b.npz": "holds no weights",
}
"""Golden files without a method's model -> what is said of them. Of a file that is no .npz: that it is none."""


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_each_golden_file_passes_or_gets_one_line(path, capsys):
    code = compare_files([path])
    printed = capsys.readouterr()
    if path in GOLDEN:
        assert (code, printed.err) == (0, "")
        return
    reason = REFUSED[path.name] if path.suffix == ".npz" else "it is no .npz of plain arrays"
    assert code == 2
    assert len(printed.err.splitlines()) == 1
    assert f"golden file {path} " in printed.err
    assert reason in printed.err


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_deviation_fails_with_exit_code_1(path, tmp_path, capsys):
    arrays = dict(np.load(path))
    name = next(name for name in arrays if NORM.search(name) and "decoder" not in name)
    arrays[name] = arrays[name] * np.float32(1.001)
    np.savez(tmp_path / "off.npz", **arrays)
    assert compare_files([path, tmp_path / "off.npz"]) == 1
    out = capsys.readouterr().out
    assert f"{path}: passed" in out
    assert "off.npz: FAILED" in out


@pytest.mark.parametrize(
    "quantity",
    ["out/loss_f64", "grad_norm", "grad_norm_f64", "grad_norm_each", "grad/encoder.blocks.0.gamma_1", "out/z"],
)
def test_each_stored_number_counts(quantity, tmp_path):
    arrays = dict(np.load(next(path for path in GOLDEN if path.stem == "simmim_vit_tiny")))
    arrays[quantity] = arrays[quantity] * (1 + 1e-4)
    np.savez(tmp_path / "off.npz", **arrays)
    assert [row.passed for row in compare(read_golden(tmp_path / "off.npz")).rows].count(False) == 1


BEIT = {
    "img_size": 30,
    "patch_size": 5,
    "in_chans": 1,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 3,
    "mlp_ratio": 2,
    "qkv_bias": True,
    "init_values": None,
    "use_abs_pos_emb": False,
    "use_rel_pos_bias": False,
    "use_shared_rel_pos_bias": True,
}
CELLS = {
    "img_size": 64,
    "patch_size": 2,
    "in_chans": 1,
    "embed_dim": 12,
    "depths": [1, 3, 2],
    "num_heads": [1, 2, 3],
    "mlp_ratio": 3,
    "qkv_bias": True,
    "patch_norm": True,
    "decoder_embed_dim": 24,
    "decoder_dim": 24,
    "decoder_depth": 2,
    "decoder_num_heads": 3,
    "norm_pix_loss": False,
    "mask_ratio": 0.3,
    "drop_path": 0.0,
}
OTHER_SIZES = {
    "SimMIM ViT": ("SimMIM", BEIT | {"init_values": 0.5}, {"mask_patch_size": 10}),
    "SimMIM Swin": (
        "SimMIM",
        {
            "img_size": 48,
            "patch_size": 2,
            "in_chans": 3,
            "embed_dim": 12,
            "depths": [1, 2, 2],
            "num_heads": [2, 3, 6],
            "window_size": 3,
            "mlp_ratio": 3.0,
            "qkv_bias": True,
            "ape": False,
            "patch_norm": True,
        },
        {"mask_patch_size": 8},
    ),
    "MAE": (
        "mae",
        {
            "img_size": 30,
            "patch_size": 5,
            "in_chans": 1,
            "embed_dim": 24,
            "depth": 1,
            "num_heads": 2,
            "decoder_embed_dim": 16,
            "decoder_depth": 3,
            "decoder_num_heads": 4,
            "mlp_ratio": 4,
            "norm_pix_loss": True,
            "mask_ratio": 0.5,
        },
        {},
    ),
    "BEiT": ("unilm/beit", BEIT | {"vocab_size": 17}, {}),
    "SparK ResNet": (
        "SparK",
        {
            "encoder": "resnet",
            "block": "BasicBlock",
            "expansion": 1,
            "layers": [2, 1],
            "planes": [6, 10],
            "stem_out": 64,
            "img_size": 40,
            "downsample": 8,
            "dec_width": 20,
            "mask_ratio": 0.7,
            "densify_norm": "ln",
        },
        {},
    ),
    "FCMAE": (
        "ConvNeXt-V2",
        {
            "dims": [6, 10, 14],
            "depths": [1, 2, 1],
            "img_size": 48,
            "in_chans": 1,
            "patch_size": 16,
            "decoder_embed_dim": 12,
            "decoder_depth": 2,
            "mask_ratio": 0.4,
            "norm_pix_loss": False,
        },
        {},
    ),
    "SparK ConvNeXt": (
        "SparK",
        {
            "encoder": "convnext",
            "dims": [6, 10, 16],
            "depths": [1, 2, 1],
            "layer_scale_init_value": 0.1,
            "img_size": 64,
            "downsample": 16,
            "dec_width": 16,
            "mask_ratio": 0.5,
            "densify_norm": "bn",
        },
        {},
    ),
    "GreenMIM": ("GreenMIM", CELLS | {"window_size": 4, "norm_eps": 1e-6, "ape": False, "final_patch": 8}, {}),
    "MixMIM": ("MixMIM", CELLS | {"window_size": [8, 4, 2], "norm_eps": 1e-4, "encoder_stride": 8}, {}),
}


@pytest.mark.parametrize("case", OTHER_SIZES)
def test_nothing_depends_on_the_sizes(case, tmp_path):
    repo, config, more = OTHER_SIZES[case]
    path = _self_made({"repo": repo, "config": config, **more}, tmp_path / "other.npz")
    rows = compare(read_golden(path)).rows
    assert [row.quantity for row in rows if not row.passed] == []
    assert compare_files([path]) == 0


def test_bad_files_are_exit_code_2_and_do_not_stop_the_others(tmp_path, capsys):
    (tmp_path / "text.npz").write_text("nothing")
    arrays = dict(np.load(GOLDEN[0]))
    np.savez(tmp_path / "nomask.npz", **{name: value for name, value in arrays.items() if name != "input/mask"})
    meta = json.loads(str(arrays["meta"]))
    for name, changed in {
        "repo": meta | {"repo": "other"},
        "option": meta | {"config": meta["config"] | {"use_abs_pos_emb": True}},
        "size": meta | {"config": meta["config"] | {"embed_dim": 64}},
        "incomplete": meta | {"config": {}},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **(arrays | {"meta": json.dumps(changed)}))
    bad = [tmp_path / f"{name}.npz" for name in ("none", "text", "nomask", "repo", "option", "size", "incomplete")]
    assert compare_files([*bad, GOLDEN[0]]) == 2
    printed = capsys.readouterr()
    assert f"{GOLDEN[0]}: passed" in printed.out
    lines = printed.err.splitlines()
    assert len(lines) == len(bad)
    for line, word in zip(
        lines,
        (
            "exist",
            "cannot be read",
            "input/mask",
            "known: ",
            "use_abs_pos_emb",
            "in the file",
            "incomplete",
        ),
        strict=True,
    ):
        assert word in line


def test_a_file_may_name_its_own_plugins():
    setup = {"method": "simmim", "encoder": "vit", "image_size": 32, "channels": 3}
    golden = Golden(Path("own.npz"), {"config": {}, "setup": setup}, {}, {})
    assert setup_of(golden)[0].image_size == 32
    with pytest.raises(InputError, match="incomplete"):
        setup_of(Golden(Path("own.npz"), {"config": {}, "setup": {"what": 1}}, {}, {}))


def test_the_method_of_a_file_counts_more_than_its_repository():
    meta = {"config": {}, "repo": "MCG-NJU/VideoMAE", "method": "no-such-method"}
    with pytest.raises(InputError, match=r"of method 'no-such-method', .* known: .*maskfeat"):
        setup_of(Golden(Path("own.npz"), meta, {}, {}))


def test_a_teacher_without_weights_is_refused(tmp_path):
    arrays = dict(np.load(next(path for path in GOLDEN if path.stem == "data2vec_vit_tiny")))
    np.savez(tmp_path / "a.npz", **{name: value for name, value in arrays.items() if not name.startswith("teacher/")})
    with pytest.raises(InputError, match="has no arrays teacher/"):
        compare(read_golden(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", **{name: value for name, value in arrays.items() if name != "teacher/cls_token"})
    with pytest.raises(InputError, match=r"gives no 'teacher.module.body.cls_token'"):
        compare(read_golden(tmp_path / "b.npz"))


def test_an_update_that_deviates_fails(tmp_path):
    arrays = dict(np.load(next(path for path in GOLDEN if path.stem == "data2vec_vit_tiny")))
    name = "after/teacher/blocks.0.mlp.fc1.weight"
    arrays[name] = arrays[name] * np.float32(1.001)
    np.savez(tmp_path / "off.npz", **arrays)
    (row,) = (row for row in compare(read_golden(tmp_path / "off.npz")).rows if not row.passed)
    assert row.quantity == "after/teacher/: 51 tensors, worst: teacher.module.body.blocks.0.mlp.fc1.weight"


def _self_made(meta, path):
    """A file of the golden format whose numbers mimbench itself computed, under the official names."""
    setup, code = setup_of(Golden(path, meta, {}, {}))
    method = build(setup)
    generator = torch.Generator().manual_seed(0)
    for name, value in method.named_parameters():
        if value.requires_grad:
            value.data = torch.randn(value.shape, generator=generator) * 0.1 + name.endswith("norm.weight")
    names = {name: _official_name(name, method, meta) for name in method.state_dict()}
    names = {name: official for name, official in names.items() if official}
    side = meta["config"]["img_size"]
    images = torch.randn(2, setup.channels, side, side, generator=generator)
    mask = method.sample_mask(2, generator)
    arrays = {f"param/{names[name]}": value for name, value in method.state_dict().items() if name in names}
    arrays |= {"input/image": images, "input/mask": mask.long() if mask.ndim == 3 else mask}
    if meta["repo"] == "SparK":
        arrays["input/active"] = ~mask
    if mask.ndim == 3 and not mask.stride(0):  # one mask for the batch
        arrays |= {"input/mask": method.masked_cells(mask)[0].long(), "input/ids_restore": mask[0].flatten()}
    if meta["repo"] == "mae":
        arrays["param/decoder_pos_embed"] = torch.zeros(1, 1, 1)
    if "vocab_size" in meta["config"]:
        tokens = torch.randint(meta["config"]["vocab_size"], (2, mask[0].numel()), generator=generator)
        arrays["input/token_ids"] = tokens
    result = run_step(Golden(path, meta, arrays, {}), code, method, torch.float32)
    outputs = {name: value for name, value in result.outputs.items() if name.startswith("out/")}
    arrays |= outputs | {"grad_norm": result.norm}
    arrays |= {f"grad/{names[name]}": value for name, value in result.gradients.items()}
    arrays["grad_norm_each"] = torch.stack([value.norm() for value in result.gradients.values()])
    np.savez(
        path,
        meta=json.dumps(meta),
        grad_norm_names=np.array([names[name] for name in result.gradients]),
        **{name: value.numpy() for name, value in arrays.items()},
    )
    return path


def _official_name(name, method, meta):
    if name.startswith("encoder.body.norm_pre."):
        return None
    if meta["repo"] == "ConvNeXt-V2" and name.startswith(("encoder.", "decoder.")):
        return convnext_name(name.replace("body.", "")).replace("encoder.stem", "encoder.downsample_layers.0")
    if name.startswith("encoder.body."):
        name = name.removeprefix("encoder.body.")
        if meta["repo"] == "SparK":
            return f"sparse_encoder.sp_cnn.{convnext_name(name) if 'dims' in meta['config'] else name}"
        if "depths" in meta["config"] and ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}.", f"layers.{stage - 1}.", 1)
        return f"encoder.{name}" if meta["repo"] in ("SimMIM", "GreenMIM") else name
    if name.split(".")[0] == "tokenizer":
        return None
    if name == "mask_token" and meta["repo"] == "SimMIM":
        return "encoder.mask_token"
    back = {our_name: official for official, our_name in method.official.names.items() if our_name}
    start = max((start for start in back if name.startswith(start)), key=len, default="")
    return back.get(start, start) + name.removeprefix(start)
