"""CPython's tests of ``multiprocessing`` with start method ``forkserver``, as its own package of that name has them."""

from test import _test_multiprocessing

_test_multiprocessing.install_tests_in_module_dict(globals(), "forkserver")
