"""Tables in Markdown."""


def table(heads: list[str], rows: list[list[str]]) -> str:
    """With an empty line behind it."""
    return "\n".join([_row(heads), _row(["---"] * len(heads)), *map(_row, rows), ""])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
