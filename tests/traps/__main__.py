"""Every trap, where it comes from, and the check that sees it."""

from tests.traps import TRAPS

rows = [("facts", "trap", "the check that sees it"), *((t.facts, t.name, t.check.__doc__) for t in TRAPS)]
widths = [max(len(row[column]) for row in rows) for column in range(2)]
for facts, name, title in rows:
    print(f"{facts:<{widths[0]}}  {name:<{widths[1]}}  {title}")
