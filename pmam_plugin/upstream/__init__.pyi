from .expert import UpstreamExpert as UpstreamExpert
from .registry import register as register
