"""How far atoms can be trusted, each and as a whole: evidence from halves and surrogates.

>>> from shoal.certificate import VERDICTS
>>> list(VERDICTS)
['certified', 'doubtful', 'mixture', 'noise']
"""

from shoal.certificate.certificate import (
    VERDICTS,
    Certificate,
    Progress,
    certify,
    certifying,
)
from shoal.certificate.whole import Curve, Spread, Whole

__all__ = [
    "VERDICTS",
    "Certificate",
    "Curve",
    "Progress",
    "Spread",
    "Whole",
    "certify",
    "certifying",
]
