"""A network is made quick: PyTorch programs, CUDA graphs, ONNX Runtime, OpenVINO, export."""

from pcnn.engines.select import ENGINES, PRECISIONS, choose_engine

__all__ = ["ENGINES", "PRECISIONS", "choose_engine"]
