"""CPython's tests of ``multiprocessing`` with start method ``spawn``, as its own package of that name has them.

Some installations keep the tests and leave out that package, so the same two lines stand here.
"""

from test import _test_multiprocessing

_test_multiprocessing.install_tests_in_module_dict(globals(), "spawn")
