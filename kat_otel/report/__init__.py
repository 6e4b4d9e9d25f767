"""The report ``kat.report/v1`` for people: text for the terminal, one page for the browser.

Nothing is imported here: a page needs the detector's rooms to draw what was judged, and that takes
longer to import than ``kat top`` may take to start.
"""
