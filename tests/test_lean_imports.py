"""What the command line leaves out of large libraries comes back whole when something uses it."""

from __future__ import annotations

import subprocess
import sys

import pytest

IS_WHOLE = "\nprint('torch._dynamo.utils' in sys.modules)"
START = "import sys\nfrom mimbench.lean_imports import install\ninstall()\n"


def output_of(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_marks_of_uncompiled_functions_do_not_import_the_compiler():
    code = (
        "import torch, torchvision, timm.layers, mmengine.runner\n"
        "weight = torch.nn.Parameter(torch.ones(3))\n"
        "optimizer = torch.optim.SGD([weight], lr=0.5)\n"
        "weight.sum().backward()\n"
        "optimizer.step()\n"
        "print(weight.detach().tolist() == [0.5] * 3)\n"
        "print(torch.compiler.disable(lambda x: x + 1)(2))\n"
        "print('torch.distributed.fsdp' in sys.modules)"
    )
    assert output_of(code + IS_WHOLE) == ["True", "3", "False", "False"]


def test_compiling_imports_the_compiler_and_leaves_marked_functions_out():
    code = (
        "import torch, timm.layers\n"
        "graphs = []\n"
        "def backend(graph, inputs):\n"
        "    graphs.append([node.name for node in graph.graph.nodes if node.op == 'call_function'])\n"
        "    return graph.forward\n"
        "@torch.compiler.disable\n"
        "def marked(x):\n"
        "    return x.cos()\n"
        "compiled = torch.compile(lambda x: marked(x + 1) * 2, backend=backend)\n"
        "print(torch.equal(compiled(torch.ones(2)), (torch.ones(2) + 1).cos() * 2))\n"
        "print('-'.join(name for graph in graphs for name in graph))\n"
        "import torch._dynamo\n"
        "print(torch._dynamo is sys.modules['torch._dynamo'], hasattr(torch._dynamo, '__file__'))"
    )
    assert output_of(code + IS_WHOLE) == ["True", "add-mul", "True", "True", "True"]


@pytest.mark.parametrize("statement", ["import torch._dynamo.config as config", "from torch._dynamo import config"])
def test_a_part_of_the_compiler_is_imported_once(statement):
    code = (
        "import torch, torchvision\n"
        "torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.5)\n"
        f"{statement}\n"
        "import torch._dynamo\n"
        "print(config is torch._dynamo.config, config is sys.modules['torch._dynamo.config'])\n"
        "print(config.__spec__.origin[-9:])"
    )
    assert output_of(code) == ["True", "True", "config.py"]


def test_an_operation_of_torchvision_that_asks_the_compiler_gets_its_answer():
    code = (
        "import torch, torchvision\n"
        "module = sys.modules['torchvision.ops.roi_align']\n"
        "print(module.is_compile_supported('cpu') in (True, False))\n"
        "boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])\n"
        "print(torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), [boxes], 2).shape[-1])"
    )
    assert output_of(code) == ["True", "2"]


def test_a_class_that_is_left_out_says_so():
    code = (
        "from mmengine.model import MMFullyShardedDataParallel\n"
        "try:\n    MMFullyShardedDataParallel(None)\n"
        "except Exception as error:\n    print('leaves out' in str(error))"
    )
    assert output_of(code) == ["True"]


def test_who_imports_mimbench_gets_the_libraries_whole():
    code = "import sys, mimbench.cli\nprint([type(finder).__module__ for finder in sys.meta_path])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("["), done.stderr
    assert "mimbench.lean_imports" not in done.stdout


def test_imported_libraries_are_left_out_of_garbage_collections_of_the_command_line_only():
    code = """
import gc
from mimbench.lean_imports import install, keep_imports
keep_imports()
assert gc.get_freeze_count() == 0
install()
keep_imports()
kept = gc.get_freeze_count()
assert kept > 1000
later = [[] for _ in range(1000)]
keep_imports()
assert gc.get_freeze_count() == kept
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
