"""From a request to a plan: the cells to run, checked before anything is computed.

A run has three layers. A `Request` is one `mimbench run`, parsed. `plan` expands it to `Cell`s: each is one record to
be made, a task on a `Pretraining`. Several cells share a pretraining, and several pretrainings share a training, if
they differ in `at_epoch` only.

Which hash is which (each is `store.sealing.fingerprint` of plain data, or a sha256 of a file):

| Hash | Of | Used for |
| --- | --- | --- |
| `Pretraining.fingerprint` | `Pretraining.identity`: method, encoder, image size, channels, seed, and if the method
  trains: data, input, pretrain options, precision, world size | folder of the checkpoint |
| `Pretraining.training` | the same without `at_epoch` | lock and work folder of the training |
| `Record.pretraining` | the same as the fingerprint, without the seed | grouping records over seeds |
| `Record.checkpoint.fingerprint` | copied from the checkpoint's card. It differs from `Pretraining.fingerprint` only if
  --checkpoint is used with other method, encoder or image-size settings | finding the checkpoint of a record |
| `Record.checkpoint.weights_sha256` | the file encoder.safetensors | noticing that weights were replaced |
| `Record.protocol_fingerprint` | the task's protocol: task options, dataset content, input, precision | deciding which
  records may be compared |
| `Record.id` | method, task and seed in words, then 12 digits of the hash of (Pretraining.fingerprint, protocol, seed)
  | name of the record's file, lock and work folder of the cell |

A seal (`store.sealing.seal_card`) is something else: it is the hash of a file's content, written into that file to
detect damage.
"""
