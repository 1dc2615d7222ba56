"""What a training step costs."""

from __future__ import annotations

import pytest
import torch

from mimbench import registry
from mimbench.contract import Encoder
from mimbench.harness.planning import step_cost
from mimbench.harness.planning.step_cost import count_step, count_training
from mimbench.recipe.document import parse_assignments, read
from mimbench.recipe.resolve import resolve


def cost_of(method, *assignments):
    recipe = resolve("smoke", read("smoke"), method, parse_assignments(list(assignments)), None)
    return count_step(recipe, channels=len(recipe.input.mean)), recipe


def test_operations_of_a_vit_are_those_of_the_formula():
    counted, recipe = cost_of("autoencoder")
    encoder = recipe.encoder_config
    channels, patches, dim, hidden = (
        len(recipe.input.mean),
        49,
        encoder.embed_dim,
        int(encoder.embed_dim * encoder.mlp_ratio),
    )
    tokens = patches + 1  # the class token
    block = tokens * (3 * dim * dim + dim * dim + 2 * dim * hidden) + 2 * tokens * tokens * dim
    patch_pixels = channels * encoder.patch_size**2
    forward = 2 * (encoder.depth * block + patches * dim * patch_pixels + patches * dim * patch_pixels)
    # The backward pass takes twice the forward pass, but the images need no gradient.
    assert counted.flops == 3 * forward - 2 * patches * dim * patch_pixels
    assert counted.patches == patches


def test_visible_patches_and_teachers_count():
    assert cost_of("mae", "method.mask_ratio=0.75")[0].patches == 12
    assert cost_of("mae", "method.mask_ratio=0.5")[0].patches == 24
    student, teacher = cost_of("simmim")[0], cost_of("data2vec")[0]
    assert (student.patches, teacher.patches) == (49, 98)
    assert teacher.stored > 1.8 * teacher.trained
    assert student.stored == pytest.approx(student.trained, rel=0.01)


def test_visible_cells_and_mixed_images_count():
    """A Swin of 14 x 14 patches and 7 x 7 cells, of which 12 are visible."""
    assert cost_of("greenmim")[0].patches == 12 * 4
    assert cost_of("mixmim")[0].patches == 196


def test_counting_leaves_the_encoder_as_it_was(monkeypatch):
    built = []
    build = step_cost.build_method
    monkeypatch.setattr(
        step_cost, "build_method", lambda *args, **options: built.append(build(*args, **options)) or built[0]
    )
    cost_of("data2vec")
    encoders = [module for module in built[0].modules() if isinstance(module, Encoder)]
    assert len(encoders) == 2
    assert not any("forward_layers" in vars(encoder) for encoder in encoders)


def test_a_method_that_fails_is_left_out(mimbench, tmp_path):
    (tmp_path / "odd.py").write_text(
        "from mimbench.api import Method\n\n\n"
        "class Odd(Method):\n    name = 'odd'\n    version = '1'\n\n"
        "    def step(self, batch, generator):\n        raise RuntimeError('this step is odd')\n"
    )
    done = mimbench("cost", "--plugin", "odd.py", "--method", "odd,simmim", "--recipe", "smoke")
    assert done.returncode == 1
    assert "simmim" in done.stdout
    assert done.stderr.strip() == "left out: odd: this step is odd"


def test_every_method_says_what_it_predicts_and_sees():
    for name in registry.methods.names():
        method = registry.methods.load(name)
        if method.pretrains and registry.methods.owner(name).startswith("mimbench"):
            assert method.predicts, name
            assert method.sees, name


def test_the_command_prints_a_row_per_method(mimbench):
    done = mimbench("cost", "--method", "simmim,mae", "--recipe", "smoke", "--format", "markdown")
    assert done.returncode == 0, done.stderr
    head, rule, simmim, mae = done.stdout.splitlines()
    assert head.startswith("| method | encoder | predicts | sees |")
    assert rule.count("---") == head.count("|") - 1
    assert simmim.startswith("| simmim | vit | pixels of masked patches |")
    assert mae.startswith("| mae | vit |")
    wrong = mimbench("cost", "--method", "simim", "--recipe", "smoke")
    assert wrong.returncode == 2
    assert "did you mean 'simmim'" in wrong.stderr


def test_a_training_has_one_cost_unless_its_steps_differ():
    def training(*assignments, images=64 * 100):
        recipe = resolve("smoke", read("smoke"), "mae", parse_assignments(list(assignments)), None)
        state = torch.random.get_rng_state()
        counted = count_training(recipe, 1, images)
        assert torch.equal(state, torch.random.get_rng_state())
        return counted

    assert training("method.mask_ratio=0.75") == cost_of("mae", "method.mask_ratio=0.75")[0]
    assert training("method.initial_mask_ratio=0.5") is None
    assert training("pretrain.image_sizes=[[0,14],[0.5,28]]") is None
    assert training(images=640) is None  # a short training
