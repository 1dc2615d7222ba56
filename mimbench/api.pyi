# ruff: noqa: I001
"""The public names of `mimbench.api`, by topic."""

# The contracts: what a method, task, dataset or encoder defines, and what it is given
from mimbench.contract import (
    ABILITIES as ABILITIES,
    ArraySplit as ArraySplit,
    Audit as Audit,
    AuditInput as AuditInput,
    Batch as Batch,
    Config as Config,
    DataChoice as DataChoice,
    DataConfig as DataConfig,
    DataSizes as DataSizes,
    Dataset as Dataset,
    Depth as Depth,
    DepthSplit as DepthSplit,
    Encoder as Encoder,
    FeatureSource as FeatureSource,
    Features as Features,
    Fit as Fit,
    FitReport as FitReport,
    GroupedSamples as GroupedSamples,
    ImageSplit as ImageSplit,
    Golden as Golden,
    InputConfig as InputConfig,
    InputError as InputError,
    MatchedDetections as MatchedDetections,
    Measured as Measured,
    Method as Method,
    Metric as Metric,
    MissingData as MissingData,
    ModelSetup as ModelSetup,
    Monitor as Monitor,
    MonitorInput as MonitorInput,
    NotSupported as NotSupported,
    OfficialCode as OfficialCode,
    PartOptions as PartOptions,
    Pooling as Pooling,
    PlannedStep as PlannedStep,
    PretrainConfig as PretrainConfig,
    Protocol as Protocol,
    RunError as RunError,
    SampleScores as SampleScores,
    SceneSplit as SceneSplit,
    ScheduleConfig as ScheduleConfig,
    SegmentedPixels as SegmentedPixels,
    SemanticSplit as SemanticSplit,
    SplitName as SplitName,
    Stage as Stage,
    StepOutput as StepOutput,
    Task as Task,
    TaskConfig as TaskConfig,
    TaskContext as TaskContext,
    TaskResult as TaskResult,
    TrainConfig as TrainConfig,
    Trainable as Trainable,
    View as View,
    added as added,
    cosmetic as cosmetic,
    at_least_float32 as at_least_float32,
    full_precision as full_precision,
    load_protocols as load_protocols,
    require_abilities as require_abilities,
)

# Executors: what starts the workers of a run
from mimbench.contract.executor import (
    Executor as Executor,
    Workers as Workers,
)

# Masks and patches
from mimbench.masks import (
    Grid as Grid,
    MultiBlockMask as MultiBlockMask,
    block_mask as block_mask,
    cuboid_mask as cuboid_mask,
    grid_mask as grid_mask,
    guided_mask as guided_mask,
    visible_blocks_mask as visible_blocks_mask,
    inverse_block_mask as inverse_block_mask,
    mask_at_pixels as mask_at_pixels,
    mask_grid as mask_grid,
    masked_count as masked_count,
    mixed_ratio_mask as mixed_ratio_mask,
    mean_over_masked as mean_over_masked,
    multi_block_mask as multi_block_mask,
    noise_mask as noise_mask,
    patchify as patchify,
    random_mask as random_mask,
    random_order as random_order,
    repeat_per_mask as repeat_per_mask,
    replace_masked as replace_masked,
    resize_mask as resize_mask,
    square_mask as square_mask,
    stored_noise_mask as stored_noise_mask,
    tube_mask as tube_mask,
    uniform_mask as uniform_mask,
    unpatchify as unpatchify,
    visible_indices as visible_indices,
)

# Encoders: parts of decoders, and encoders with other options
from mimbench.encoders.blocks import (
    cross_blocks as cross_blocks,
    init_normal as init_normal,
    init_truncated as init_truncated,
    init_xavier as init_xavier,
    sincos_positions as sincos_positions,
    transformer_blocks as transformer_blocks,
)
from mimbench.compute.blocks import (
    mark_blocks as mark_blocks,
)
from mimbench.compute.drop_path import (
    DropPath as DropPath,
)
from mimbench.compute.dropout import (
    share_dropout as share_dropout,
)
from mimbench.encoders.convnet import (
    convnext_blocks as convnext_blocks,
)
from mimbench.encoders.video_vit import (
    sinusoid_positions as sinusoid_positions,
)
from mimbench.encoders.inverse_swin import (
    InverseSwin as InverseSwin,
)
from mimbench.encoders.towers import (
    CLIPTower as CLIPTower,
    PatchViT as PatchViT,
)
from mimbench.encoders.attention import (
    recorded_attention as recorded_attention,
)
from mimbench.encoders.rebuilding import (
    rebuild_encoder as rebuild_encoder,
)
from mimbench.convert import (
    read_weights as read_weights,
    resize_positions as resize_positions,
    to_part as to_part,
)

# Parts of methods: teachers, predictors, heads, ramps, sparse convolution, means over ranks
from mimbench.parts.teacher import (
    Teacher as Teacher,
)
from mimbench.parts.predictor import (
    Predictor as Predictor,
)
from mimbench.parts.heads import (
    ProjectionHead as ProjectionHead,
    WeightNormLinear as WeightNormLinear,
    cancel_gradients as cancel_gradients,
)
from mimbench.parts.schedules import (
    ramp as ramp,
)
from mimbench.parts.mask_ratio import (
    MaskRatioConfig as MaskRatioConfig,
    check_mask_ratios as check_mask_ratios,
    count_visible as count_visible,
)
from mimbench.parts.sparse import (
    visible_only as visible_only,
)
from mimbench.compute.batch_norms import (
    synchronise_batch_norms as synchronise_batch_norms,
)
from mimbench.parts.rotary_predictor import (
    RotaryPredictor as RotaryPredictor,
)
from mimbench.parts.sinkhorn import (
    sinkhorn as sinkhorn,
)

# Training: schedules, parameter groups, random seeds, processes
from mimbench.optim import (
    Schedule as Schedule,
    build_optimizer as build_optimizer,
    decay_rules as decay_rules,
    encoder_layers as encoder_layers,
)
from mimbench.seeds import (
    derive_seed as derive_seed,
    fork_rng as fork_rng,
    image_seed as image_seed,
    scene_seed as scene_seed,
)
from mimbench.distributed import (
    gather_over_ranks as gather_over_ranks,
    get_rank as get_rank,
    get_world_size as get_world_size,
    mean_over_ranks as mean_over_ranks,
)

# What one batch on several processes needs: rows of what is drawn for all its images
from mimbench.shared_batch import (
    draw_once as draw_once,
    draw_rows as draw_rows,
    draws_rows as draws_rows,
    mean_over_shares as mean_over_shares,
    rows_of_views as rows_of_views,
    sharing_batch as sharing_batch,
    take_rows as take_rows,
)

# Work that several processes share: each item on one of them, or all on the first
from mimbench.engine.ranks import (
    map_over_ranks as map_over_ranks,
    on_first_rank as on_first_rank,
    own_share as own_share,
)

# Data: loaders and augmentation of images, and parts of loaders for other data
from mimbench.data import (
    DeviceTransform as DeviceTransform,
    coco_split as coco_split,
    denormalise as denormalise,
    evaluation_loader as evaluation_loader,
    open_dataset as open_dataset,
    training_loader as training_loader,
)
from mimbench.data.suite import (
    Suite as Suite,
    SuiteMember as SuiteMember,
)
from mimbench.data.pipeline.augment import (
    Erasing as Erasing,
    ImageAugment as ImageAugment,
    Mixing as Mixing,
)
from mimbench.data.pipeline.batches import BatchIndices as BatchIndices
from mimbench.data.pipeline.clip_views import (
    clip_views as clip_views,
    shuffle_frames as shuffle_frames,
)
from mimbench.data.pipeline.normalised import normalised_batches as normalised_batches
from mimbench.data.pipeline.repeated_views import repeated_views as repeated_views
from mimbench.data.pipeline.loading import (
    EpochSampler as EpochSampler,
    ignore_stop_signals as ignore_stop_signals,
    identity_collate as identity_collate,
)
from mimbench.data.pipeline.subsets import (
    held_out_indices as held_out_indices,
    planted_indices as planted_indices,
    subset as subset,
    training_indices as training_indices,
)
from mimbench.data.pipeline.transforms import (
    to_byte_scale as to_byte_scale,
    evaluation_crop as evaluation_crop,
    per_channel as per_channel,
)
from mimbench.data.files.image_sizes import (
    read_sized as read_sized,
)
from mimbench.data.sources.class_folders import (
    ClassFolders as ClassFolders,
    digest_class_folders as digest_class_folders,
    find_class_folders as find_class_folders,
    read_class_folders as read_class_folders,
)
from mimbench.data.sources.boxes import (
    BoxCount as BoxCount,
)

# Pictures and files
from mimbench.drawing import (
    LEAST_TEXT as LEAST_TEXT,
    Colour as Colour,
    class_colours as class_colours,
    image_grid as image_grid,
    ink_on as ink_on,
    shade_masked as shade_masked,
)
from mimbench.files import (
    write_atomic as write_atomic,
)
from mimbench.errors import (
    nearest as nearest,
)

# Parts of tasks: splits by kind, scores, linear probes, fine-tuning, models of mmdet and mmseg
from mimbench.toolkit.splits import (
    image_split as image_split,
    labelled_split as labelled_split,
    missing_masks_note as missing_masks_note,
    pick_attribute as pick_attribute,
    require_classes as require_classes,
    require_grey_or_rgb as require_grey_or_rgb,
    scene_split as scene_split,
)
from mimbench.toolkit.semantic_splits import (
    BACKGROUND as BACKGROUND,
    semantic_split as semantic_split,
    train_and_test as train_and_test,
)
from mimbench.toolkit.class_confusion import (
    IGNORED as IGNORED,
    Confusion as Confusion,
    constant_score as constant_score,
    per_class as per_class,
)
from mimbench.toolkit.class_figure import (
    Panel as Panel,
    draw_predictions as draw_predictions,
)
from mimbench.toolkit.accuracy import (
    classification_scores as classification_scores,
    majority_accuracy as majority_accuracy,
    top_k_accuracy as top_k_accuracy,
    top_k_hits as top_k_hits,
)
from mimbench.toolkit.bootstrap import (
    bootstrap_intervals as bootstrap_intervals,
)
from mimbench.toolkit.image_pass import (
    map_over_images as map_over_images,
    sample_images as sample_images,
    sample_positions as sample_positions,
)
from mimbench.toolkit.frozen_features import (
    FrozenFeaturesConfig as FrozenFeaturesConfig,
    FrozenFeaturesTask as FrozenFeaturesTask,
    LastLayersConfig as LastLayersConfig,
    class_probabilities as class_probabilities,
)
from mimbench.toolkit.regression import (
    Regression as Regression,
    RegressionConfig as RegressionConfig,
    RegressionTask as RegressionTask,
    Solver as Solver,
    fit_regression as fit_regression,
    fit_standardised as fit_standardised,
    pick_solver as pick_solver,
    solver_protocol as solver_protocol,
)
from mimbench.toolkit.trained_probe import (
    ProbeAugmentation as ProbeAugmentation,
    ProbeTraining as ProbeTraining,
    TrainedProbe as TrainedProbe,
    check_probe_training as check_probe_training,
    planned_probe as planned_probe,
    train_probe as train_probe,
)
from mimbench.toolkit.head_candidates import (
    Candidate as Candidate,
    Choice as Choice,
    choose as choose,
    count_fitted as count_fitted,
    hold_out_images as hold_out_images,
    make_candidates as make_candidates,
    needs_choice as needs_choice,
)
from mimbench.toolkit.head_sweep import (
    HeadScores as HeadScores,
    HeadSweep as HeadSweep,
)
from mimbench.toolkit.head_training import (
    planned_heads as planned_heads,
)
from mimbench.toolkit.independent_heads import (
    IndependentHeads as IndependentHeads,
)
from mimbench.toolkit.label_lists import (
    find_listed as find_listed,
)
from mimbench.toolkit.linear_sweep import (
    LinearSweep as LinearSweep,
)
from mimbench.toolkit.fine_tuning import (
    adapt_encoder as adapt_encoder,
    check_position as check_position,
    copy_weights as copy_weights,
    encoder_depends_on_processes as encoder_depends_on_processes,
    without_weights as without_weights,
)
from mimbench.toolkit.mm import (
    FollowsModelDevice as FollowsModelDevice,
    PretrainedModule as PretrainedModule,
    compose_transforms as compose_transforms,
    mm_step_output as mm_step_output,
    quiet_mmengine as quiet_mmengine,
    scale_to_bytes as scale_to_bytes,
)
