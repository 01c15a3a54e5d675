"""The engine: scores of perturbed scans, as fast as the hardware allows."""

from lucency.engine.engine import Engine, Probe

__all__ = ["Engine", "Probe"]
