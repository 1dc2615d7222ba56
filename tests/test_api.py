"""The public names: what plugins may import."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from mimbench import api, contract

PUBLIC = """
ABILITIES repeat_per_mask replace_masked require_abilities
ArraySplit Batch BatchIndices BoxCount Colour Config DataConfig Dataset Depth DepthSplit DeviceTransform Encoder
EpochSampler Erasing FeatureSource Features Fit FitReport FollowsModelDevice FrozenFeaturesConfig FrozenFeaturesTask
Grid Golden IndependentHeads ImageAugment ImageSplit InputConfig InputError InverseSwin LEAST_TEXT Measured Method
Metric MissingData Mixing ModelSetup
OfficialCode at_least_float32
BACKGROUND Confusion IGNORED Panel constant_score draw_predictions per_class semantic_split train_and_test
NotSupported PartOptions Pooling PretrainConfig PretrainedModule ProbeAugmentation ProbeTraining Protocol
Regression RegressionConfig RegressionTask RunError SceneSplit Schedule ScheduleConfig SemanticSplit SplitName Stage
StepOutput Task
TaskConfig TaskContext TaskResult TrainConfig Trainable TrainedProbe View adapt_encoder added block_mask
build_optimizer check_position check_probe_training class_colours class_probabilities coco_split compose_transforms
convnext_blocks copy_weights synchronise_batch_norms
cosmetic decay_rules denormalise derive_seed encoder_layers evaluation_crop evaluation_loader fit_regression
fit_standardised fork_rng full_precision get_rank get_world_size grid_mask guided_mask identity_collate
ignore_stop_signals
image_grid image_seed image_split init_truncated init_xavier ink_on labelled_split load_protocols
majority_accuracy mask_at_pixels mask_grid masked_count mean_over_masked missing_masks_note mm_step_output nearest
patchify per_channel pick_attribute quiet_mmengine random_mask random_order read_sized rebuild_encoder require_classes
require_grey_or_rgb resize_mask resize_positions scale_to_bytes scene_seed scene_split shade_masked sincos_positions
square_mask subset to_byte_scale top_k_accuracy train_probe training_loader transformer_blocks unpatchify
CLIPTower PatchViT read_weights to_part
visible_indices without_weights write_atomic DropPath mark_blocks
MultiBlockMask Predictor ProjectionHead Teacher WeightNormLinear cancel_gradients cross_blocks mean_over_ranks
MaskRatioConfig check_mask_ratios count_visible init_normal mixed_ratio_mask multi_block_mask noise_mask ramp
stored_noise_mask tube_mask
uniform_mask visible_only
SampleScores GroupedSamples SegmentedPixels
classification_scores visible_blocks_mask Audit AuditInput DataChoice planted_indices training_indices
RotaryPredictor inverse_block_mask sinkhorn Executor Workers cuboid_mask sinusoid_positions
DataSizes PlannedStep planned_probe
clip_views open_dataset shuffle_frames
Monitor MonitorInput normalised_batches recorded_attention map_over_images sample_images
sample_positions bootstrap_intervals
repeated_views top_k_hits MatchedDetections
ClassFolders digest_class_folders find_class_folders read_class_folders Suite SuiteMember
Candidate Choice HeadScores HeadSweep LastLayersConfig choose count_fitted held_out_indices hold_out_images
LinearSweep find_listed make_candidates needs_choice planned_heads
gather_over_ranks draw_once draw_rows draws_rows mean_over_shares rows_of_views sharing_batch take_rows
Solver encoder_depends_on_processes map_over_ranks on_first_rank own_share pick_solver share_dropout solver_protocol
""".split()  # noqa: SIM905
"""Adding a name here is a promise to plugin authors; removing one breaks their code and belongs in the changelog."""


def test_the_public_names_are_these():
    assert set(api.__all__) == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_is_the_object_of_its_module(name):
    module = importlib.import_module(api._MODULES[name])
    assert getattr(api, name) is getattr(module, name)
    assert not name.startswith("_")


def test_the_whole_contract_is_public():
    assert set(contract.__all__) <= set(PUBLIC)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Recipe'"):
        _ = api.Recipe


def test_a_name_loads_nothing_but_its_own_module():
    code = (
        "import sys; from mimbench.api import InputError, Method, random_mask; "
        "print([name for name in ('sklearn', 'torchvision', 'timm', 'mmengine') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
