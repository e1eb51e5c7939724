"""Each in a process of its own: what is imported and declared cannot be taken back."""

import subprocess
import sys

# What a C extension that fits would have done: declare the operators. Declaring one twice is an error in torch.
DECLARE = """
import torch
library = torch.library.Library("torchvision", "DEF")
for name in {names}:
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
IMPORT = """
from raypruning.models.torchvision_import import import_torchvision
torchvision = import_torchvision()
assert import_torchvision() is torchvision
assert torchvision.models.resnet18 and torchvision.transforms
"""


def run(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def test_nothing_is_declared_that_is_there_already():
    result = run(DECLARE.format(names=("nms", "qnms")) + IMPORT)
    assert result.returncode == 0, result.stderr


def test_only_the_operator_that_is_missing_is_declared():
    result = run(DECLARE.format(names=("nms",)) + IMPORT)
    assert result.returncode == 0, result.stderr


def test_import_works_in_threads_at_once_and_a_later_call_gives_the_same_module():
    threads = """
from concurrent.futures import ThreadPoolExecutor
from raypruning.models.torchvision_import import import_torchvision
with ThreadPoolExecutor(4) as pool:
    modules = [future.result() for future in [pool.submit(import_torchvision) for _ in range(4)]]
assert len(set(modules)) == 1
"""
    result = run(threads + IMPORT + "assert modules[0] is torchvision")
    assert result.returncode == 0, result.stderr
