"""Runs by several workers that share a results folder: on this machine, or through a cluster's scheduler.

`command` submits a run, or follows one that was submitted before; `worker` is what each job runs; `submission` is the
folder in the results folder that both share; `status` reads it from any machine. `local` and `slurm` start workers.
Others are entry points of the group `mimbench.executors`.
"""
