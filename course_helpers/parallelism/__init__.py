"""The parts of `course_helpers.parallel`: one model on several processes, each with its share of every large matrix."""
