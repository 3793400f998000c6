"""The guide: pages of text that are shipped with the package."""

import sys
from importlib.resources import files
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from prune_nas.cli.common import app
from prune_nas.errors import unknown

TOPICS = ("start", "search", "budgets", "networks", "rules", "compare", "devices", "files", "python", "words")
"""The pages, in the order in which a newcomer reads them."""


def page(topic: str) -> str:
    """The text of a page as Markdown.

    Raises:
        UsageError: there is no such page.
    """
    if topic not in TOPICS:
        raise unknown("topic of the guide", topic, TOPICS)
    return (files("prune_nas") / "guide" / f"{topic}.md").read_text(encoding="utf-8")


@app.command(epilog="Example: prune-nas guide networks")
def guide(
    topic: Annotated[
        str | None, typer.Argument(metavar="NAME", help=f"{', '.join(TOPICS)} [default: the list of topics].")
    ] = None,
) -> None:
    """Print a page of the guide."""
    if topic is None:
        width = max(map(len, TOPICS))
        for name in TOPICS:
            typer.echo(f"{name:{width}}  {page(name).splitlines()[0].removeprefix('# ')}")
        typer.echo("\nRead a page: prune-nas guide TOPIC")
    elif sys.stdout.isatty():
        Console().print(Markdown(page(topic), hyperlinks=False))
    else:
        typer.echo(page(topic), nl=False)
