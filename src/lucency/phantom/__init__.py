"""A simulated chest radiograph with an exactly known effusion, for truth."""

from lucency.phantom.simulate import Anatomy, Phantom, PhantomParameters, simulate

__all__ = ["Anatomy", "Phantom", "PhantomParameters", "simulate"]
