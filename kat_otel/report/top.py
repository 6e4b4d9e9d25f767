"""The picture that ``kat top`` draws: live incidents, then instances with their latest ranks.

The first line of an incident says who makes whom wait, what it costs, component and confidence.
What does not fit the window is counted, the least important first: evidence, then instances,
then the smallest incidents.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from textwrap import wrap
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.rule import Rule
from rich.segment import Segment
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from kat_otel.live import LateRank, Live, LiveIncident, LiveInstance
from kat_otel.report.advice import next_step
from kat_otel.report.sentences import (
    culprit_sentence,
    duration_text,
    percent_text,
    places_text,
    printable,
)

__all__ = ["Picture", "render_top"]

_PIPE_WIDTH: Final = 120
_WIDE: Final = 110
"""Columns from which on there is room for what is nice to know."""
_VERY_WIDE: Final = 150
_BARS: Final = "▏▎▍▌▋▊▉█"
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_BAR_CELLS: Final = 6
_SPARK_CELLS: Final = 32
_LATE_CELLS: Final = 4 + _BAR_CELLS + 8
_LATE_GAP: Final = 3
_FIGURES: Final = (("step time", 9), ("steps/s", 7), ("GPUs", 7), ("coverage", 8))
"""Columns of the instances, and their cells."""
_SILENT_S: Final = 30.0
"""Seconds without a step after which an instance is called silent."""
_MUCH_NS: Final = 1_000_000
"""Lateness that is drawn as alarming where the step's own time does not tell."""


class Picture:
    """One moment, drawn to the size of the window.

    Args:
        live: what the processor said last; None if it never said anything.
        source: its endpoint.
        away: why it does not answer now, ``""`` if it does.
        now_ns: Unix ns of whoever looks.
        seen_ns: when ``live`` came, by the same clock.
    """

    def __init__(
        self, live: Live | None, source: str, *, away: str = "", now_ns: int = 0, seen_ns: int = 0
    ) -> None:
        self._live = live
        self._source = source
        self._away = away
        self._old_s = max(0.0, (now_ns - seen_ns) / 1e9) if live else 0.0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws it in as many lines as there are; all of it if nobody says how many."""
        height = options.height or (options.max_height if console.is_terminal else 100_000)
        lines: list[RenderableType] = [*self._head(options.max_width)]
        if self._live is not None:
            left = height - len(lines)
            body = Group(*_body(self._live, console, options.max_width, left))
            lines.append(Styled(body, "dim") if self._away else body)
        # A window of a few columns may still wrap what was made to fit.
        drawn = console.render_lines(Group(*lines), options.update(height=None), pad=False)
        for number, segments in enumerate(drawn[:height]):
            yield from [Segment.line(), *segments] if number else segments
        yield Segment.line()

    def _head(self, width: int) -> list[Text]:
        live = self._live
        title = Text.assemble(("kat top", "bold"), (f"  {printable(self._source)}", "dim"))
        if live is None:
            return [title, *_away(self._away or "asking", "", width)]
        if width >= _WIDE:
            title.append(f"  kat {printable(live.version)}", style="dim")
        failed = [one for one in live.conditions if not one.ok]
        if self._away:
            state = Text("○ away", style="bold red")
        elif failed:
            state = Text(f"✗ {', '.join(printable(one.name) for one in failed)}", style="bold red")
        else:
            state = Text("● well", style="green")
        state.append(f"  {_clock(live.at_unix_nano)} UTC", style="not bold dim")
        lines = [_between(title, state, width), _summary(live)]
        lines[1].truncate(width, overflow="ellipsis")
        if self._away:
            lines += _away(self._away, f"below: {_ago(self._old_s)}", width)
        for one in failed if not self._away else []:
            lines.append(_cut(f"{printable(one.name)}: {printable(one.detail)}", width, "red"))
        return lines


def render_top(live: Live, source: str, *, width: int = _PIPE_WIDTH) -> str:
    """Returns all of it as plain text, for files and pipes."""
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False)
    console.print(Picture(live, source))
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def _body(live: Live, console: Console, width: int, height: int) -> list[RenderableType]:
    blocks = [_Block(one, live, console, width) for one in live.incidents]
    # Instances get what they need, but no more than a half if incidents want the rest.
    instances = 2 + len(live.instances) + bool(live.left_out.instances)
    incidents = 1 + max(2, sum(len(block.lines) for block in blocks))
    room = min(instances, max(3, height - incidents, height // 2))
    return [
        _rule("incidents"),
        *_incidents(blocks, live, max(1, height - room - 1)),
        _rule("instances"),
        *_instances(live, width, max(2, room - 1)),
    ]


class _Block:
    """An incident's lines, in the order of their use.

    The sentence; where and since when; what proves it; what to do.

    Attributes:
        lines: all of them.
        stages: how many of them are of use together.
    """

    def __init__(self, live: LiveIncident, whole: Live, console: Console, width: int) -> None:
        tag = _tag(live)
        indent = cell_len(tag.plain) + 1
        head = _sentence(live).wrap(console, width - indent, tab_size=1)
        self.lines = [
            Text.assemble(" " * (indent - 1) if number else tag, " ", part)
            for number, part in enumerate(head)
        ]
        self.stages = [len(self.lines)]
        self._add(_flow(_facts(live, whole), width - indent), console, width, indent, "dim")
        if live.silence is None:
            for evidence in live.report.evidence[: 3 if width >= _WIDE else 1]:
                self._add(f"- {printable(evidence.text)}", console, width, indent, "")
            self._add(f"next: {printable(next_step(live.report))}", console, width, indent, "cyan")

    def _add(self, text: str, console: Console, width: int, indent: int, style: str) -> None:
        hanging = 2 if text.startswith("- ") else 0
        found = Text(text).wrap(console, max(20, width - indent - hanging), tab_size=1)
        for number, part in enumerate(found):
            part.rstrip()
            margin = " " * (indent + (hanging if number else 0))
            self.lines.append(Text.assemble(margin, (part.plain, style)))
        self.stages.append(len(self.lines))


def _incidents(blocks: list[_Block], live: Live, room: int) -> list[Text]:
    """Returns what there is room for: all sentences, then all facts, then proof from the top."""
    if not blocks:
        if live.instances:
            return [Text(" ✓ no incident", style="green"), Text("")]
        return [Text(" · no step was judged yet", style="dim"), Text("")]
    taken: list[int] = []
    for block in blocks:
        more = len(taken) + 1 < len(blocks) or live.left_out.incidents
        if sum(taken) + block.stages[0] + bool(more) > room:
            break
        taken.append(block.stages[0])
    left = len(blocks) - len(taken) + live.left_out.incidents
    spare = room - sum(taken) - bool(left)
    # The second stage of all before the third of any; proof and advice of one after the other.
    turns = [(1, at) for at in range(len(taken))]
    turns += [(n, at) for at in range(len(taken)) for n in range(2, len(blocks[at].stages))]
    for stage, at in turns:
        wanted = blocks[at].stages[stage] - taken[at]
        if wanted <= spare and taken[at] == blocks[at].stages[stage - 1]:
            taken[at] += wanted
            spare -= wanted
    lines = [line for block, n in zip(blocks, taken, strict=False) for line in block.lines[:n]]
    if left:
        lines.append(Text(f"   and {left:,} more incident{'' if left == 1 else 's'}", style="dim"))
    return lines


def _tag(incident: LiveIncident) -> Text:
    if incident.silence is not None:
        return Text(" mute ", style="dim reverse")
    if incident.page:
        return Text(" PAGE ", style="bold white on red")
    return Text(" seen ", style="black on yellow")


def _sentence(incident: LiveIncident) -> Text:
    report = incident.report
    style = "dim" if incident.silence else "bold red" if incident.page else "bold"
    said = Text(printable(culprit_sentence(report)), style=style)
    said.append(f": {report.component} {100 * report.component_confidence:.0f} %", style=style)
    return said


def _facts(incident: LiveIncident, live: Live) -> list[str]:
    """Returns what stands in the second line: what is most worth reading first."""
    report = incident.report
    said: list[str] = []
    if incident.silence is not None:
        silence = incident.silence
        who = f" by {printable(silence.by)}" if silence.by else ""
        why = f", {printable(silence.reason)}" if silence.reason else ""
        said.append(f"silenced for {_span(silence.end_unix_nano - live.at_unix_nano)}{who}{why}")
    if incident.feedback is not None:
        said.append(f"called {incident.feedback}")
    said.append(printable(incident.id))
    if incident.instance:
        said.append(printable(incident.instance))
    said.append(report.kind)
    if places := places_text(report.culprit):
        said.append(places)
    steps = {one.instance: one.step_ns for one in live.instances}
    if step_ns := steps.get(incident.instance, 0):
        said.append(f"{percent_text(report.impact_ns, step_ns)} of a step")
    said.append(f"{incident.occurrences:,} step{'' if incident.occurrences == 1 else 's'}")
    said.append(f"for {_span(incident.last_seen_ns - incident.first_seen_ns)}")
    if not report.culprit.sure:
        said.append("not sure which side")
    return said


def _flow(facts: Sequence[str], width: int) -> str:
    """Returns the facts in lines that end between two of them."""
    lines: list[str] = []
    for fact in facts:
        if lines and cell_len(lines[-1]) + 3 + cell_len(fact) <= width:
            lines[-1] += f" · {fact}"
        else:
            lines.append(fact)
    return "\n".join(lines)


def _instances(live: Live, width: int, room: int) -> list[RenderableType]:
    if not live.instances:
        return [Text(" · none", style="dim")]
    fits = room - 1  # below the column's names
    more = len(live.instances) > fits or live.left_out.instances > 0
    shown = live.instances[: max(1, fits - more)]
    wide = width >= _WIDE
    gap = 3 if wide else 2
    names = [_name(one, live) for one in shown]
    sparks = _SPARK_CELLS if width >= _VERY_WIDE else _SPARK_CELLS // 2
    taken = sum(cells + gap for _, cells in _FIGURES) + (sparks + gap if wide else 0)
    longest_name = max(cell_len(name.plain) for name in names)
    first = max(8, min(longest_name, width - taken - gap - _LATE_CELLS))
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    table.add_column("instance", no_wrap=True, overflow="ellipsis", width=first, header_style="dim")
    if wide:
        table.add_column("last steps", no_wrap=True, header_style="dim", width=sparks)
    for name, cells in _FIGURES:
        table.add_column(name, justify="right", no_wrap=True, header_style="dim", width=cells)
    table.add_column("latest ranks", no_wrap=True, overflow="crop", header_style="dim")
    count = max(1, (width - first - gap - taken + _LATE_GAP) // (_LATE_CELLS + _LATE_GAP))
    longest = max((late.late_ns for one in shown for late in one.worst_ranks), default=0)
    for name, one in zip(names, shown, strict=True):
        table.add_row(
            name,
            *([_spark(one.last_steps_ns[-sparks:])] if wide else []),
            Text(duration_text(one.step_ns), style="bold"),
            Text("-" if one.steps_per_s is None else f"{one.steps_per_s:,.1f}"),
            _ranks(one),
            _coverage(one),
            _late(one.worst_ranks[:count], longest, one),
        )
    lines: list[RenderableType] = [table]
    left = len(live.instances) - len(shown) + live.left_out.instances
    if left:
        lines.append(Text(f"   and {left:,} more instance{'' if left == 1 else 's'}", style="dim"))
    return lines


def _name(instance: LiveInstance, live: Live) -> Text:
    name = Text(printable(instance.instance) or "(no name)", style="bold")
    silent_s = (live.at_unix_nano - instance.judged_unix_nano) / 1e9
    if silent_s > _SILENT_S:
        return Text.assemble((f"silent {_span(silent_s * 1e9)} ", "yellow"), name)
    if instance.abstained:
        name.append(f"  not judged: {printable(instance.abstained)}", style="not bold yellow")
    elif more := " ".join(filter(None, (instance.model, instance.engine))):
        name.append(f"  {printable(more)}", style="not bold dim")
    return name


def _ranks(instance: LiveInstance) -> Text:
    if not instance.world_size:
        return Text(f"{instance.ranks:,}")
    style = "yellow" if instance.missing_ranks or instance.ranks < instance.world_size else ""
    return Text(f"{instance.ranks:,}/{instance.world_size:,}", style=style)


def _coverage(instance: LiveInstance) -> Text:
    """Says which share of the steps was judged, by the kernels compared where they came whole."""
    share = instance.judged_share * (
        1.0 if instance.aligned_share is None else instance.aligned_share
    )
    return Text(f"{100 * share:.0f} %", style="yellow" if share < 0.9 else "")


def _late(ranks: Sequence[LateRank], longest: int, instance: LiveInstance) -> Text:
    if not ranks:
        return Text("-", style="dim")
    text = Text()
    for number, late in enumerate(ranks):
        alarming = late.late_ns > (0.02 * instance.step_ns if instance.step_ns else _MUCH_NS)
        style = "red" if alarming else "green"
        text.append(" " * _LATE_GAP if number else "")
        text.append(f"{late.rank:>3} ", style="bold" if alarming else "")
        text.append(_bar(late.late_ns / longest if longest else 0.0), style=style)
        text.append(f" {duration_text(late.late_ns):>7}")
    return text


def _bar(share: float) -> str:
    eighths = max(1, round(min(1.0, share) * _BAR_CELLS * 8))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BARS[rest - 1] if rest else "")).ljust(_BAR_CELLS)


def _spark(values: Sequence[int]) -> Text:
    """Draws durations from zero up: a step twice as long is twice as high."""
    most = max(values, default=0)
    if most <= 0:
        return Text("")
    last = len(_SPARKS) - 1
    return Text("".join(_SPARKS[round(v / most * last)] for v in values), style="blue")


def _summary(live: Live) -> Text:
    silenced = sum(one.silence is not None for one in live.incidents)
    pages = sum(one.page for one in live.incidents)
    count = len(live.incidents) + live.left_out.incidents
    ranks = sum(one.ranks for one in live.instances)
    instances = len(live.instances) + live.left_out.instances
    text = Text(
        f"{instances:,} instance{'' if instances == 1 else 's'}, {ranks:,} GPUs   ", style="dim"
    )
    if not count:
        return text.append("no incident", style="not dim green")
    text.append(f"{count:,} incident{'' if count == 1 else 's'}", style="not dim bold")
    if pages:
        text.append(f"  {pages:,} page{'' if pages == 1 else 's'}", style="not dim bold red")
    if silenced:
        text.append(f"  {silenced:,} silenced", style="dim")
    return text


def _away(why: str, below: str, width: int) -> list[Text]:
    lines = [Text(line, style="bold red") for line in wrap(printable(why), width)]
    tail = "trying again; the picture comes back by itself"
    return [*lines, _cut(f"{below + '; ' if below else ''}{tail}", width, "yellow")]


def _rule(title: str) -> Rule:
    return Rule(Text(title, style="dim"), align="left", style="dim")


def _between(left: Text, right: Text, width: int) -> Text:
    gap = width - cell_len(left.plain) - cell_len(right.plain)
    if gap < 1:
        left.truncate(max(1, width - cell_len(right.plain) - 1), overflow="ellipsis")
        gap = max(1, width - cell_len(left.plain) - cell_len(right.plain))
    return Text.assemble(left, " " * gap, right)


def _cut(text: str, width: int, style: str) -> Text:
    line = Text(text, style=style)
    line.truncate(width, overflow="ellipsis")
    return line


def _span(nanoseconds: float) -> str:
    """Returns how long something lasts, in one unit: ``3 min``."""
    seconds = max(0.0, nanoseconds / 1e9)
    for limit, factor, unit in ((90, 1, "s"), (5_400, 60, "min"), (129_600, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _ago(seconds: float) -> str:
    return f"as it was {_span(seconds * 1e9)} ago"


def _clock(unix_ns: int) -> str:
    seconds = unix_ns // 1_000_000_000 % 86_400
    return f"{seconds // 3_600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
