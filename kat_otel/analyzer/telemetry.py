"""What calls to a model leave in traces and metrics: OpenTelemetry's own GenAI instrumentation.

``opentelemetry-instrumentation-genai-openai`` makes a span ``chat MODEL`` and the metrics of tokens
and duration of each request, by the GenAI semantic conventions, without a word of what was said.
``opentelemetry-instrument kat explain ...`` finds it by itself; a program calls this.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from kat_otel.errors import MissingDependencyError

__all__ = ["instrument", "uninstrument"]


def instrument(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Has each request of this process to a model make a span and metrics, once.

    Args:
        tracer_provider: takes the spans; the global one if None.
        meter_provider: takes the metrics; the global one if None.

    Raises:
        MissingDependencyError: the instrumentation is not installed.
    """
    instrumentor = _instrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)


def uninstrument() -> None:
    """Undoes :func:`instrument`."""
    _instrumentor().uninstrument()


def _instrumentor() -> Any:
    try:
        # an extra, which has no types either
        module = import_module("opentelemetry.instrumentation.genai.openai")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "spans of calls to a model need opentelemetry-instrumentation-genai-openai, which is "
            "not installed: pip install 'kat-otel[processor,analyzer]'"
        ) from error
    return module.OpenAIInstrumentor()
