"""What a plugin author has to read: the contracts of methods, tasks, datasets and encoders, and their options."""

from mimbench.contract.abilities import ABILITIES, require_abilities
from mimbench.contract.audit import Audit, AuditInput
from mimbench.contract.config import Config, Depth, added, cosmetic
from mimbench.contract.data_choice import DataChoice
from mimbench.contract.dataset import (
    ArraySplit,
    DataConfig,
    Dataset,
    DepthSplit,
    ImageSplit,
    SceneSplit,
    SemanticSplit,
    SplitName,
)
from mimbench.contract.detections import MatchedDetections
from mimbench.contract.encoder import Encoder
from mimbench.contract.features import Features, Pooling
from mimbench.contract.input import InputConfig, View
from mimbench.contract.method import Method
from mimbench.contract.monitor import Monitor, MonitorInput
from mimbench.contract.official import Golden, OfficialCode
from mimbench.contract.planned import DataSizes, PlannedStep
from mimbench.contract.precision import at_least_float32, full_precision
from mimbench.contract.pretrain_config import PretrainConfig
from mimbench.contract.protocol import Protocol, load_protocols
from mimbench.contract.sample_values import GroupedSamples, SegmentedPixels
from mimbench.contract.schedule_config import ScheduleConfig
from mimbench.contract.scores import SampleScores
from mimbench.contract.setup import ModelSetup
from mimbench.contract.stage import Stage
from mimbench.contract.task import (
    FeatureSource,
    Fit,
    Measured,
    Metric,
    Task,
    TaskConfig,
    TaskContext,
    TaskResult,
)
from mimbench.contract.train_config import TrainConfig
from mimbench.contract.training import Batch, FitReport, PartOptions, StepOutput, Trainable
from mimbench.errors import InputError, MissingData, NotSupported, RunError

__all__ = [
    "ABILITIES",
    "ArraySplit",
    "Audit",
    "AuditInput",
    "Batch",
    "Config",
    "DataChoice",
    "DataConfig",
    "DataSizes",
    "Dataset",
    "Depth",
    "DepthSplit",
    "Encoder",
    "FeatureSource",
    "Features",
    "Fit",
    "FitReport",
    "Golden",
    "GroupedSamples",
    "ImageSplit",
    "InputConfig",
    "InputError",
    "MatchedDetections",
    "Measured",
    "Method",
    "Metric",
    "MissingData",
    "ModelSetup",
    "Monitor",
    "MonitorInput",
    "NotSupported",
    "OfficialCode",
    "PartOptions",
    "PlannedStep",
    "Pooling",
    "PretrainConfig",
    "Protocol",
    "RunError",
    "SampleScores",
    "SceneSplit",
    "ScheduleConfig",
    "SegmentedPixels",
    "SemanticSplit",
    "SplitName",
    "Stage",
    "StepOutput",
    "Task",
    "TaskConfig",
    "TaskContext",
    "TaskResult",
    "TrainConfig",
    "Trainable",
    "View",
    "added",
    "at_least_float32",
    "cosmetic",
    "full_precision",
    "load_protocols",
    "require_abilities",
]
