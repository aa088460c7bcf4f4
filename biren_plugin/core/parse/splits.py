"""Into how many parts a GPU can be split, and the resource of the parts. Another split is one number here."""

from typing import Final

from biren_plugin.core.parse.vendor import resource_of

SPLITS: Final = (1, 2, 4)
"""Numbers of parts (SVI instances) in ascending order; 1 is the whole GPU."""
SPLITS_IN_WORDS: Final = f"{', '.join(map(str, SPLITS[:-1]))} or {SPLITS[-1]}"
RESOURCE_OF_SPLIT: Final = {parts: resource_of(parts) for parts in SPLITS}
"""Extended resource by the number of parts that its GPU is split into."""
SPLIT_OF_RESOURCE: Final = {resource: parts for parts, resource in RESOURCE_OF_SPLIT.items()}
WHOLE_GPU: Final = RESOURCE_OF_SPLIT[1]
