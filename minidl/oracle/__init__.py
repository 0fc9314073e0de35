"""The correctness oracle: Keras's real training, recorded, against minidl and against error bounds."""

from minidl.oracle.checking import check, record
from minidl.oracle.recorder import CannotCheck
from minidl.oracle.report import Report
from minidl.oracle.testing import assert_matches_reference

__all__ = ["CannotCheck", "Report", "assert_matches_reference", "check", "record"]
