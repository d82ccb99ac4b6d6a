"""Laws as shipped checks: of an index, a detector, a family of maps, and a network at its sites.

Each function returns a list of `Law`. Call a law to check it, for example as a parameter of a test:

>>> @pytest.mark.parametrize("law", suture.testing.index_laws(my_index), ids=repr)
... def test_my_index(law):
...     law()
"""

from suture.testing.detectors import detector_laws as detector_laws
from suture.testing.families import family_laws as family_laws
from suture.testing.indices import index_laws as index_laws
from suture.testing.laws import Law as Law
from suture.testing.laws import verify as verify
from suture.testing.sites import site_laws as site_laws
