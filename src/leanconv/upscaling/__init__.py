"""Enlarging pictures with a network: any size in bounded memory, files in and out."""

from leanconv.upscaling.files import Upscaled, upscale
from leanconv.upscaling.network import load_network
from leanconv.upscaling.upscaler import Upscaler

__all__ = ["Upscaled", "Upscaler", "load_network", "upscale"]
