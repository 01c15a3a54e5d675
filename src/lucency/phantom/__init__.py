"""A simulated chest radiograph whose pleural fluid is known exactly, ray by ray."""

from lucency.phantom.parameters import PhantomParameters
from lucency.phantom.simulate import Anatomy, Phantom, simulate

__all__ = ["Anatomy", "Phantom", "PhantomParameters", "simulate"]
