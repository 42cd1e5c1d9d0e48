"""Kernels: one plain form, and faster ones that equal it."""
