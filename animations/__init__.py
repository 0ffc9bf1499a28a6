"""The course's two films, made with Manim: how weights are loaded, and how one family takes another's place."""
