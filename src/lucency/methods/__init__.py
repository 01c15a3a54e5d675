"""The methods, one file each; a new file here is a new method."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lucency.methods.base import Method, Step, Trials, methods
from lucency.parameters import Found, import_files, kinds, pairs, replaced

if TYPE_CHECKING:
    # What editors complete; a test holds it complete.
    from lucency.methods.blur_integrated_gradients import BlurIntegratedGradients as BlurIntegratedGradients
    from lucency.methods.cam import Cam as Cam
    from lucency.methods.cam import GradCam as GradCam
    from lucency.methods.cam import GradCamPlusPlus as GradCamPlusPlus
    from lucency.methods.cam import LayerCam as LayerCam
    from lucency.methods.deconvnet import Deconvnet as Deconvnet
    from lucency.methods.expected_gradients import ExpectedGradients as ExpectedGradients
    from lucency.methods.extremal_perturbation import ExtremalPerturbation as ExtremalPerturbation
    from lucency.methods.gradient import Gradient as Gradient
    from lucency.methods.gradient import GradientXInput as GradientXInput
    from lucency.methods.gradient import GuidedBackprop as GuidedBackprop
    from lucency.methods.guided_gradcam import GuidedGradCam as GuidedGradCam
    from lucency.methods.guided_occlusion import GuidedOcclusion as GuidedOcclusion
    from lucency.methods.igos_pp import IGOSpp as IGOSpp
    from lucency.methods.instant import Instant as Instant
    from lucency.methods.integrated_gradients import IntegratedGradients as IntegratedGradients
    from lucency.methods.kernel_shap import KernelShap as KernelShap
    from lucency.methods.lime import Lime as Lime
    from lucency.methods.meaningful_perturbation import MeaningfulPerturbation as MeaningfulPerturbation
    from lucency.methods.occlusion import Occlusion as Occlusion
    from lucency.methods.rise import Rise as Rise
    from lucency.methods.smoothgrad import SmoothGrad as SmoothGrad

import_files(__name__, __path__)

METHODS: Mapping[str, type[Method]] = Found(methods)
"""Every method by the name it has on the command line, with those of outside packages."""

globals().update({cls.__name__: cls for cls in kinds(Method).values()})


def method_named(name: str, settings: Iterable[str] = (), **parameters: Any) -> Method:
    """The method of that name, its paper's defaults replaced by ``key=value`` settings and by parameters.

    Args:
        name: its name or title, in any case, with hyphens, underscores or blanks: ``"Grad-CAM"`` is ``"gradcam"``.
        settings: as on the command line: ``"patch=24"``, ``"removal=blur"``, ``"removal.sigma=20"``.
        parameters: the same as keyword arguments.

    Raises:
        ParameterError: when the method, a parameter or a value does not exist, naming those that do.
    """
    how = Method.from_word(name)
    return replaced(how, [*pairs(settings), *parameters.items()], f"The method {how.name}")


__all__ = [
    "METHODS",
    "BlurIntegratedGradients",
    "Cam",
    "Deconvnet",
    "ExpectedGradients",
    "ExtremalPerturbation",
    "GradCam",
    "GradCamPlusPlus",
    "Gradient",
    "GradientXInput",
    "GuidedBackprop",
    "GuidedGradCam",
    "GuidedOcclusion",
    "IGOSpp",
    "Instant",
    "IntegratedGradients",
    "KernelShap",
    "LayerCam",
    "Lime",
    "MeaningfulPerturbation",
    "Method",
    "Occlusion",
    "Rise",
    "SmoothGrad",
    "Step",
    "Trials",
    "method_named",
]
