"""Measurements on trained models: sharpness, curvature, gradient noise, and the loss along paths and planes."""

from sklgap.inspection._adaptive_sharpness import adaptive_sharpness
from sklgap.inspection._average_sharpness import average_sharpness
from sklgap.inspection._ball_sharpness import ball_sharpness
from sklgap.inspection._diffusion import DiffusionFit, fit_diffusion
from sklgap.inspection._fisher_sharpness import fisher_sharpness
from sklgap.inspection._fisher_trace import fisher_trace
from sklgap.inspection._flatness import FlatnessTable, flatness
from sklgap.inspection._flatness_record import Flatness
from sklgap.inspection._gradient_noise import GradientNoise, gradient_noise_scale
from sklgap.inspection._gradient_standard_error import GradientStandardError, gradient_standard_error
from sklgap.inspection._hessian import HessianEigenvalues, hessian_eigenvalues
from sklgap.inspection._hessian_trace import HessianTrace, hessian_trace
from sklgap.inspection._m_sharpness import m_sharpness
from sklgap.inspection._parametric import LossCurve, loss_along_arc, loss_along_line
from sklgap.inspection._plot._learning_curves import LearningCurvesDisplay
from sklgap.inspection._plot._parametric import ParametricPlotDisplay
from sklgap.inspection._plot._sharpness_trajectory import SharpnessTrajectoryDisplay
from sklgap.inspection._plot._spectrum import SpectrumDisplay
from sklgap.inspection._plot._stability_trajectory import StabilityTrajectoryDisplay
from sklgap.inspection._plot._surface import LossSurfaceDisplay
from sklgap.inspection._plot._weight_distance import WeightDistanceDisplay
from sklgap.inspection._records import recorded
from sklgap.inspection._rescaling import rescale_layers
from sklgap.inspection._ritz_values import RitzValues, ritz_values
from sklgap.inspection._sharpness import Sharpness, sharpness
from sklgap.inspection._spectral_density import SpectralDensity, hessian_spectral_density
from sklgap.inspection._stability import StabilityMeasurement
from sklgap.inspection._stability_threshold import StabilityThreshold, stability_threshold
from sklgap.inspection._surface import LossSurface, loss_on_plane
from sklgap.inspection._weight_distance import weight_distance

__all__ = [
    "DiffusionFit",
    "Flatness",
    "FlatnessTable",
    "GradientNoise",
    "GradientStandardError",
    "HessianEigenvalues",
    "HessianTrace",
    "LearningCurvesDisplay",
    "LossCurve",
    "LossSurface",
    "LossSurfaceDisplay",
    "ParametricPlotDisplay",
    "RitzValues",
    "Sharpness",
    "SharpnessTrajectoryDisplay",
    "SpectralDensity",
    "SpectrumDisplay",
    "StabilityMeasurement",
    "StabilityThreshold",
    "StabilityTrajectoryDisplay",
    "WeightDistanceDisplay",
    "adaptive_sharpness",
    "average_sharpness",
    "ball_sharpness",
    "fisher_sharpness",
    "fisher_trace",
    "fit_diffusion",
    "flatness",
    "gradient_noise_scale",
    "gradient_standard_error",
    "hessian_eigenvalues",
    "hessian_spectral_density",
    "hessian_trace",
    "loss_along_arc",
    "loss_along_line",
    "loss_on_plane",
    "m_sharpness",
    "recorded",
    "rescale_layers",
    "ritz_values",
    "sharpness",
    "stability_threshold",
    "weight_distance",
]
