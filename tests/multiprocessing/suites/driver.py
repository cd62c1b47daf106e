"""Runs test modules under ``unittest`` and writes how each test has ended; itself run as an engine is.

Usage: ``driver OUTPUT CHOICE``; see ``main``.
"""

import faulthandler
import fnmatch
import json
import sys
import time
import unittest

#: Seconds after which a test that hangs ends all, with the stacks of its threads.
PATIENCE = 120


class Result(unittest.TextTestResult):
    """Collects each test's end under its id."""

    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        self.ends = {}

    def startTest(self, test):
        faulthandler.dump_traceback_later(PATIENCE, exit=True, file=sys.__stderr__)
        self.began = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        self.ends.setdefault(test.id(), ["passed", "", round(time.monotonic() - self.began, 2)])
        super().stopTest(test)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error:
            self.ends[test.id()] = ["failed", self._exc_info_to_string(error, subtest), 0]

    def addError(self, test, error):
        super().addError(test, error)
        self.ends[test.id()] = ["failed", self._exc_info_to_string(error, test), 0]

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.ends[test.id()] = ["failed", self._exc_info_to_string(error, test), 0]

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.ends[test.id()] = ["skipped", reason, 0]


def wanted(suite, skips, only):
    """Return the tests of a suite that are to run."""
    found = unittest.TestSuite()
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            found.addTest(wanted(test, skips, only))
        elif any(fnmatch.fnmatchcase(test.id(), pattern) for pattern in only) and not any(
            fnmatch.fnmatchcase(test.id(), pattern) for pattern in skips
        ):
            found.addTest(test)
    return found


def main(output, choice):
    """Run what ``choice`` asks for, as JSON: ``modules``, and patterns of test ids ``only`` and ``skips``."""
    choice = json.loads(choice)
    suite = unittest.defaultTestLoader.loadTestsFromNames(choice["modules"])
    runner = unittest.TextTestRunner(resultclass=Result, verbosity=2)
    result = runner.run(wanted(suite, choice["skips"], choice["only"]))
    faulthandler.cancel_dump_traceback_later()
    with open(output, "w") as file:
        json.dump(result.ends, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
