"""Measurements on trained models."""

from sklgap.inspection._parametric import LossCurve, loss_along_line
from sklgap.inspection._plot._parametric import ParametricPlotDisplay
from sklgap.inspection._sharpness import Sharpness, sharpness

__all__ = ["LossCurve", "ParametricPlotDisplay", "Sharpness", "loss_along_line", "sharpness"]
