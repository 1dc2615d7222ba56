"""How the blocks of a network are computed: called, recomputed, compiled once per kind, and with which attention.

| Module | Content |
| --- | --- |
| `blocks.py` | which modules are blocks, and how they are called |
| `kinds.py` | blocks that one compiled graph can serve; one graph per kind, mode and shape of the inputs |
| `drop_path.py` | drop path whose random factors are drawn before a block runs |
| `batch_norms.py` | batch norms that take the statistics of all processes |
| `compiling.py` | compiles the blocks of a model within a context |
| `attention.py` | the forms of attention with a relative position bias |
"""
