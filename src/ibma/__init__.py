"""IBMA: Information Bottleneck-Based Multimodal Alignment, reproduced."""

__version__ = "0.1.0"
