"""A stand-in with the names that hooks look at; torch itself is never needed to test them."""

from torch import cuda, distributed, nn
