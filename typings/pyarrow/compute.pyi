# Its functions are made when it is loaded.
from typing import Any

def __getattr__(name: str) -> Any: ...
