"""Self-supervised and semi-supervised sound event detection for SpeechBrain, s3prl and the Hugging Face Hub."""

import os

import lazy_loader

# Read once, when torch is first imported. By default OpenMP's waiting threads spin for milliseconds, and a second
# process on the same cores slows training fivefold and more (benchmarks/busy.py); asleep at once they cost it what
# sharing costs, but waking them makes training on small tensors a third slower. So they spin for microseconds first.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if os.environ["OMP_WAIT_POLICY"].lower() == "passive":
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"

# On first use: importing the package stays light.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
