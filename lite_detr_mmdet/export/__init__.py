"""Export of detectors: ONNX for ONNX Runtime, OpenVINO and TensorRT, and ``torch.export`` packages."""

from .attention import ATTENTION_FORMS
from .compare import BOUNDS
from .detector import ExportableDetector
from .load import load_detector
from .onnx_model import ImageFormat
from .pipeline import export_onnx
from .verification import VerificationError, verify

__all__ = [
    'ATTENTION_FORMS',
    'BOUNDS',
    'ExportableDetector',
    'ImageFormat',
    'VerificationError',
    'export_onnx',
    'load_detector',
    'verify',
]
