"""One thread and no network for every test, and the planted problem that several share."""

import ipaddress
import socket
import sys

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

settings.register_profile("patient", deadline=None)  # how long an example takes is the machine's matter
settings.load_profile("patient")

LOOPBACK = "loopback"  # mark of tests that reach this machine by its network, such as a Dask cluster
marked = set()  # of the test that runs


def refuse_network(event, args):
    """Audit hook that refuses connections and look-ups of names, of this process and all its threads.

    Sockets of this machine's file system are not the network, and this machine itself is none for tests so marked.
    """
    looks_up = event in ("socket.getaddrinfo", "socket.gethostbyname")
    if not looks_up and (event not in ("socket.connect", "socket.sendto") or not isinstance(args[1], tuple)):
        return
    host = str(args[0] if looks_up else args[1][0])
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        asks = (
            event == "socket.connect" and args[0].type == socket.SOCK_DGRAM
        )  # Dask, for its own address: sends nothing
        refused = not looks_up and not (LOOPBACK in marked and (address.is_loopback or asks))
    except ValueError:  # a name
        refused = host not in ("None", "")
    if refused:
        raise RuntimeError(f"{event}: a test reaches for {host}. Tests are off line; mark one that needs a cluster.")


def pytest_configure(config):
    config.addinivalue_line("markers", f"{LOOPBACK}: reaches this machine by its network")
    sys.addaudithook(refuse_network)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    marked.clear()
    marked.update(mark.name for mark in item.iter_markers())


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Keep torch and BLAS to one thread: small problems, and whatever else runs on the machine."""
    import torch

    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


class Planted:
    """A regime decided by two columns, a noise level announced by two others, a linear rule for each regime.

    Columns: 0, 1 place the row in one of four regimes; 2 to 7 are what the experts need; 8 to 13 are their errors,
    one of two levels. The measured columns are the true ones plus noise of that size, so that a noisy row wants
    smaller coefficients.
    """

    flux, error, levels = slice(0, 8), slice(8, 16), (0.1, 1.5)

    def __init__(self, n_samples, seed):
        rng = np.random.default_rng(seed)
        place = rng.uniform(-1, 1, size=(n_samples, 2))
        self.regimes = 2 * (place[:, 0] > 0) + (place[:, 1] > 0)
        true = rng.normal(size=(n_samples, 6))
        self.rules = np.random.default_rng(99).normal(size=(4, 6))
        self.y = np.einsum("ij,ij->i", true, self.rules[self.regimes]) + 3.0 * self.regimes
        self.level = rng.integers(0, 2, n_samples)
        error = np.broadcast_to(np.array(self.levels)[self.level][:, None], (n_samples, 6))
        measured = true + error * rng.normal(size=true.shape)
        tiny = np.full((n_samples, 2), 1e-3)  # the place is measured well at either level
        self.X = np.hstack([3 * place, measured, tiny, error])

    def bayes(self):
        """The best linear prediction of each row, its regime and noise level known."""
        shrunk = self.X[:, 2:8] / (1 + np.array(self.levels)[self.level, None] ** 2)
        return np.einsum("ij,ij->i", shrunk, self.rules[self.regimes]) + 3.0 * self.regimes


@pytest.fixture(scope="session")
def planted():
    """Training and test rows of the planted problem."""
    return Planted(4000, seed=0), Planted(2000, seed=1)
