"""Direct synthesis of stellar spectra, from which `tools/build_emulator.py` makes the emulator of `make_spectra`.

`atoms`, `molecules` and `opacity` hold the data and the microphysics, `atmosphere` the layers of a star, `spectrum` the
line formation. With this directory's parent on the path: ``from synthesis import synthesize``.
"""

from synthesis.spectrum import synthesize

__all__ = ["synthesize"]
