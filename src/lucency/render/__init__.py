"""Pictures of an explanation: overlays, animations, reports. Needs the ``render`` extra."""

from lucency.errors import MissingExtraError

try:
    import jinja2  # noqa: F401
    import matplotlib  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        f"Pictures need {error.name}, which is not installed; run pip install 'lucency[render]'."
    ) from error

from lucency.render.animation import save_animation
from lucency.render.comparison import Compared, save_comparison
from lucency.render.overlay import overlay, save_overlay
from lucency.render.recorder import Recorder
from lucency.render.report import save_report

__all__ = [
    "Compared",
    "Recorder",
    "overlay",
    "save_animation",
    "save_comparison",
    "save_overlay",
    "save_report",
]
