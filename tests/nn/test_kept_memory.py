"""A process that trains does not fetch the memory of every large tensor anew."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from pmam_plugin.nn.cpu import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.set_num_threads(1)
for _ in range(10):
    torch.ones(2**24)
begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin)
"""


def faults(keep: str) -> int:
    command = [sys.executable, "-c", FAULTS, keep]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's way")
def test_large_tensors_reuse_what_was_freed() -> None:
    usual = faults("")
    if usual < 1000:
        pytest.skip("this allocator keeps memory by itself")
    assert faults("keep") < usual / 100
