"""A group of commands, one of which goes without saying: ``kat feedback 3fa9 --false``."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["Unspoken"]


class Unspoken(click.Group):
    """Takes what is no command's name as the first argument of one.

    Args:
        unspoken: name of the command that goes without saying.
    """

    def __init__(self, *args: Any, unspoken: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unspoken = unspoken

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the unspoken command before what is none."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [self._unspoken, *args]
        return super().parse_args(ctx, args)
