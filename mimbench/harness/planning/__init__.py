"""From a request to a plan: the cells to run, checked before anything is computed.

A run has three layers. A `Request` is one `mimbench run`, parsed. `plan` expands it to `Cell`s: each is one record to
be made, a task on a `Pretraining`. Several cells share a pretraining, and several pretrainings share a training, if
they differ in `at_epoch` only.

docs/concepts.md lists all hashes and what each is for. `Record.checkpoint.fingerprint` is copied from the checkpoint's
card. It differs from `Pretraining.fingerprint` only if --checkpoint is used with other method, encoder or image-size
settings.
"""
