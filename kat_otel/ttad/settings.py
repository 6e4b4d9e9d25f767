"""What TTAD can be told, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kat_otel.kernels import CollectivePattern, Semantics

if TYPE_CHECKING:
    from kat_otel.config import DetectorConfig

__all__ = ["Part", "Settings"]

Part = Literal["peers", "history", "walk"]
"""What an ablation can leave out: ranks compared with each other, a step with earlier ones, and
the walk from a late arrival back to its cause."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Thresholds of detection. A finding needs significance and size; a page also persistence.

    Attributes:
        false_alarm_rate: chance per judged step that a healthy step yields a finding; every
            test is corrected for the number of tests made in the step (Bonferroni).
        tail_freedom: degrees of freedom of the Student t tail that turns a robust deviation
            into a probability. Kernel times have heavier tails than the normal's.
        min_impact_fraction: a late arrival must cost this share of the step to be an incident.
        min_kernel_excess: a single kernel must exceed its expectation by this share.
        min_rank_excess: a whole rank must exceed its peers by this share of kernel time;
            healthy GPUs of one model differ by 1 or 2 %.
        min_transfer_excess: a group's transfers must exceed their history by this share.
        min_stage_excess: a pipeline stage must take this share longer than the other stages.
        jitter_ns: floor of any scale beside the clock's resolution (ns): scheduling noise that
            a handful of samples may not show.
        relative_jitter: the same as a share of the duration.
        min_pool: fewest residuals from which a scale is estimated.
        min_aligned: share of GPU spans that must find counterparts, else ranks are not compared.
        page_impact_fraction: share of the step an incident must cost to page.
        page_occurrences: steps an incident must have been seen in to page.
        resolve_after: steps without the incident after which it is resolved.
        history_steps: healthy steps remembered per node (bounds memory).
        min_history: healthy steps before history is used as expectation.
        max_spans_cited: spans an incident cites at most.
        max_incidents: incidents reported for one step at most, by impact.
        digests: whether steps without GPU work are judged by their digests.
        collectives: extra rows for the table of collective names.
        without: parts that are left out, to measure what each is worth; never in operation.
    """

    false_alarm_rate: float = 1e-4
    tail_freedom: float = 8.0
    min_impact_fraction: float = 0.02
    min_kernel_excess: float = 0.5
    min_rank_excess: float = 0.04
    min_transfer_excess: float = 0.2
    min_stage_excess: float = 0.2
    jitter_ns: float = 500.0
    relative_jitter: float = 0.005
    min_pool: int = 5
    min_aligned: float = 0.8
    page_impact_fraction: float = 0.02
    page_occurrences: int = 3
    resolve_after: int = 20
    history_steps: int = 32
    min_history: int = 8
    max_spans_cited: int = 64
    max_incidents: int = 20
    digests: bool = True
    collectives: tuple[CollectivePattern, ...] = ()
    without: frozenset[Part] = frozenset()

    @staticmethod
    def of(config: DetectorConfig, *, digests: bool = True) -> Settings:
        """Returns the settings that a configuration file asks for.

        Args:
            config: its section on detection.
            digests: ``digests.enabled``.
        """
        rows = config.collectives
        return Settings(
            false_alarm_rate=config.false_alarm_rate,
            min_impact_fraction=config.min_impact_fraction,
            page_impact_fraction=config.page_impact_fraction,
            page_occurrences=config.page_occurrences,
            resolve_after=config.resolve_after,
            history_steps=config.history_steps,
            digests=digests,
            collectives=tuple(
                CollectivePattern(row.pattern, Semantics[row.semantics.upper()]) for row in rows
            ),
        )
