"""
From and to the arrays of other libraries: one module each, which imports its library when called.

Everything here stands on the ``shape``, ``dtype`` and ``blocks()`` of arrays.
"""
