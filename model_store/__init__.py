"""The model as data: the artifact format, the versioned store and the mathematics that the data itself defines.

This package is the kernel that `training` writes with and `service` reads with. It needs numpy and numba alone.
"""
