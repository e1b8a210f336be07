"""What integer columns are made of, and the two values in them that are no measurement."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
SmallInts = npt.NDArray[np.int16] | npt.NDArray[np.int32]
"""Values that are small as a rule: 16 bits each where they all fit, else 32."""
ABSENT = -1
"""What an integer column holds where the source did not say."""
NEVER_NS = np.iinfo(np.int64).max
"""The end of what has not ended."""
