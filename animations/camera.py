"""A camera that remembers outlines: most of a frame is what was there in the frame before."""

import cairo
from manim import Camera, VMobject

#: Outlines that are kept at most; a frame has some hundred, and one of a long line takes 100 KB.
MOST = 800


class RememberingCamera(Camera):
    """Manim walks along every curve of every letter in Python, frame after frame. Here only once for each outline."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.outlines: dict[tuple[int, int], cairo.Path] = {}

    def set_cairo_context_path(self, ctx: cairo.Context, vmobject: VMobject) -> "RememberingCamera":
        """Set the context's path to a mobject's outline."""
        key = len(vmobject.points), hash(vmobject.points.tobytes())
        if key in self.outlines:
            ctx.new_path()
            ctx.append_path(self.outlines[key])
            return self
        super().set_cairo_context_path(ctx, vmobject)
        if len(vmobject.points):
            if len(self.outlines) >= MOST:
                self.outlines.clear()
            self.outlines[key] = ctx.copy_path()
        return self
