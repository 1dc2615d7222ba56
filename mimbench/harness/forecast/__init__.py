"""What a run will need, from shapes alone: memory, operations, time and disk, before anything is paid for.

| Module | What it does |
| --- | --- |
| `forecast.py` | the stages of a recipe: tokenizer, pretraining, tasks; and what each needs |
| `stages.py` | the training steps of these stages, built without values |
| `tracing.py` | the peak memory of a step, and the largest micro-batch that fits |
| `memory.py` | the memory that tensors without values would take |
| `kernels.py` | attention and mixed precision as a GPU computes them |
| `gpus.py` | memory and peak rates of GPUs |
| `sizes.py` | numbers of images and classes, of a dataset that may be absent |
| `describe.py` | a forecast as text and as JSON |
"""
