"""Published methods, small re-implementations of each, to stand beside TTAD in one run.

None is its authors' code, and none has its authors' data. Each file says which paper or program it
follows and what it leaves out. All see the same steps, aligned by TTAD: none loses by alignment.
"""
