"""The application: its verbs and what becomes of mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import leanconv
from leanconv.cli.compare import compare
from leanconv.cli.compress import compress
from leanconv.cli.console import fail, interruptible, output
from leanconv.cli.evaluate import evaluate
from leanconv.cli.export import export
from leanconv.cli.list import list_verb
from leanconv.cli.measure import measure
from leanconv.cli.optimize import optimize
from leanconv.cli.rf import rf
from leanconv.cli.train import train
from leanconv.cli.upscale import upscale
from leanconv.errors import UserError

# Typer has carried its own copy of click since 0.25 and used click itself before: the parent of the one public
# class is the right one in both.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class Verbs(TyperGroup):
    """Verbs whose mistakes end in one sentence on standard error and exit status 2, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; a Ctrl-C that the verb has no better word for ends in exit status 130."""
        with interruptible("nothing was written."):
            return super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line as click does, but with our way of reporting mistakes."""
        run = partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        try:
            status = run()
        except UsageError as error:
            status = fail(_usage_sentence(error)).exit_code
        except UserError as error:
            status = fail(str(error)).exit_code
        raise SystemExit(status if isinstance(status, int) else 0)


def _usage_sentence(error: Any) -> str:
    sentence = str(error.format_message()).rstrip(".")
    if error.ctx is None:
        return f"{sentence}."
    return f"{sentence} ({error.ctx.command_path} --help shows the usage)."


app = typer.Typer(
    name="leanconv",
    cls=Verbs,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """Convolutional networks that are small and really faster: list, measure, train and compare them."""
    if version:
        output().print(f"leanconv {leanconv.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


app.command("list")(list_verb)
app.command("measure")(measure)
app.command("train")(train)
app.command("evaluate")(evaluate)
app.command("compare")(compare)
app.command("compress")(compress)
app.command("export")(export)
app.command("rf")(rf)
app.command("optimize")(optimize)
app.command("upscale")(upscale)


def main() -> None:
    """Run the command line."""
    app()
