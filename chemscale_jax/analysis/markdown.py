"""Tables in Markdown, which a terminal shows well too."""

from collections.abc import Sequence


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], names: int = 2
) -> str:
    """A table with aligned columns.

    Args:
        header: of each column.
        rows: cells of each row, as many as the header has.
        names: columns from the left that hold words; the others hold numbers.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = [
        "-" * width if column < names else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    ]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(header), line(rule), *map(line, rows)])
