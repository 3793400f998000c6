"""Tests of `prune_nas.nets`."""
