"""Training loops, built on mmengine's Runner.

`fit.fit` trains any `Trainable` (a module with `training_step`). Everything around it is a module of this package.

What is used of mmengine:

- Runner and EpochBasedTrainLoop: the order of hooks, and the loop itself (`loop.py` ends epochs at whole steps).
- OptimWrapper: gradient accumulation, clipping, autocast.
- MMDistributedDataParallel and `mmengine.dist`: several GPUs or processes.
- The model and data loader formats that mmdetection and mmsegmentation models expect, so that they train here too.
- Visualizer and its backends: scalars for TensorBoard, W&B, MLflow or Aim, if `track` names them.

What is switched off or replaced, and why:

- Checkpoints (CheckpointHook, load_or_resume): mmengine unpickles whatever it finds, keeps weights that do not match,
  and resumes at epochs only. `resume.py` and `state_files.py` check a hash, load with `weights_only`, and resume at
  any optimizer step.
- Learning-rate schedulers (ParamSchedulerHook): `StepHook` computes each rate from the step number alone, so a
  resumed training cannot drift.
- Logging (LoggerHook, RuntimeInfoHook, IterTimerHook, log file, config file, description of the machine):
  `progress.py` prints, records hold the provenance, and mmengine would keep a log file open per training until the
  process ends.
- Seeding: Runner seeds once. `StepHook` seeds each step from (seed, rank, step), which makes resuming exact. Ranks that
  share a batch have one seed.
- Initialisation (`init_weights`): it would overwrite the weights that a task has loaded.
- Device placement (`wrap_model`): Runner picks a GPU itself, and its wrapping names one even on a CPU.
- The global registries of runs: a process may run hundreds of trainings, so `release_run` drops each one's entries.

| Module | Content |
| --- | --- |
| `fit.py` | the training itself |
| `pretrain.py` | a method as a Trainable |
| `adapter.py` | a Trainable as an mmengine model; the Runner with the parts above switched off |
| `loop.py` | epochs of whole optimizer steps, which can start at any step |
| `hooks.py` | seeds and learning rate per step, loss history, checks for non-finite values |
| `resume.py`, `state_files.py` | the state of an unfinished training: what it holds, and its files |
| `saving.py` | after which steps the state is saved, and when to stop |
| `stopping.py` | signals and a time limit: stop after the current step |
| `monitoring.py` | measurements of the model on the way, which leave the training as it is |
| `trackers.py`, `tracking.py` | trackers such as TensorBoard: their names and checks, and how they get the curves |
| `progress.py` | the progress bar |
| `ranks.py` | several processes: rank 0 decides and writes, and all fail together |
| `sharing.py` | drop paths and batch norms of a batch that processes share |
| `device.py` | device and precision |
| `bare_step.py` | optimizer steps without a training around them, for measurements |
"""
