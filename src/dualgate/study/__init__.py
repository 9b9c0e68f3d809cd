"""The study: whether two towers together beat the better one alone; run it by the command `dualgate study`."""
