"""``kat demo``: simulated workers in processes of their own, one hidden fault, one named culprit.

Order of reading: :mod:`scenario` says what is simulated, :mod:`worker` is one process,
:mod:`crew` starts and ends them, :mod:`watch` follows the verdicts, :mod:`stage` runs it all.
"""
