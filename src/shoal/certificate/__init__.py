"""How far each atom can be trusted: evidence from halves and surrogates, and verdicts.

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

__all__ = ["VERDICTS", "Certificate", "Progress", "certify", "certifying"]
