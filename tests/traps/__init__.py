"""The traps of this trade: silent mistakes that others have made, each put into our code, and the check that sees it.

`python -m tests.traps` lists them. The numbers are those of the page of facts that the course was written from.
"""

from tests.traps import experts, loading, norms, parts, rotary, visibility

TRAPS = tuple(trap for topic in (rotary, visibility, norms, parts, experts, loading) for trap in topic.TRAPS)
