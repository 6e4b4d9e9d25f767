"""What the report's outputs cost: Perfetto per span, the page's drawing in a real Chromium.

python bench/report.py
"""

from __future__ import annotations

import io
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kat_otel.report.html import render_html
from kat_otel.report.perfetto import write_perfetto
from kat_otel.report.stage import stage_of
from tests.report import samples
from tests.report.browser import chromium, executable

REDRAWS = """new Promise((done) => { const t = performance.now(); let n = 0;
  (function again() { redraws.forEach((redraw) => redraw());
    requestAnimationFrame(() => requestAnimationFrame(() =>
      ++n < 10 ? again() : done((performance.now() - t) / 10))); })(); })"""


class Counted(io.RawIOBase):
    """Takes bytes and forgets them."""

    size = 0

    def write(self, data: bytes, /) -> int:
        self.size += len(data)
        return len(data)


def perfetto(layers: int) -> None:
    spans = samples.table(layers=layers)
    report = samples.report(spans, samples.late_launch(spans))
    begin = time.perf_counter()
    stage_of(spans, 12)
    aligning = time.perf_counter() - begin
    out = Counted()
    begin = time.perf_counter()
    write_perfetto(report, spans, out)
    whole = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"perfetto  {len(spans):>9,} spans  {whole:6.2f} s  {whole / len(spans) * 1e6:5.2f} µs/span"
        f" ({aligning / len(spans) * 1e6:.2f} of it aligning)  {out.size / len(spans):.0f} B/span"
        f"  peak {peak:,.0f} MiB"
    )


def page(layers: int) -> None:
    program = executable()
    if program is None:
        print("page      no Chromium: apt-get install -y chromium")
        return
    spans = samples.table(layers=layers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        begin = time.perf_counter()
        html = render_html(samples.report(spans, samples.late_launch(spans)), spans)
        made = time.perf_counter() - begin
        path.write_text(html, "utf-8")
        loads: list[float] = []
        draws: list[float] = []
        with chromium(program, Path(folder) / "profile") as browser:
            for _ in range(5):
                browser.open(path)
                entry = "performance.getEntriesByType('navigation')[0]"
                loads.append(browser.js(f"{entry}.loadEventEnd"))
                browser.js("document.querySelector('[data-do=all]').click()")
                draws.append(browser.js(REDRAWS))
            data = "JSON.parse(document.querySelector('script.data').textContent)"
            drawn = browser.js(f"{data}.spans.lane.length")
            nodes = browser.js("document.querySelectorAll('*').length")
    print(
        f"page      {len(spans):>9,} spans  made in {made:.2f} s, {len(html) / 1e6:.2f} MB,"
        f" {drawn:,} drawn, {nodes:,} elements; ready after {min(loads):.0f} to"
        f" {max(loads):.0f} ms; a redraw of the whole step {min(draws):.0f} to {max(draws):.0f} ms"
    )


if __name__ == "__main__":
    for count in (260, 2_600, 26_000):
        perfetto(count)
    page(260)
    page(2_600)
