"""Tests are off line: the fixture that sees to it works."""

import socket
import urllib.request

import pytest

FAR = "192.0.2.1"  # kept for documentation: nobody has it


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


BOTH = [pytest.param(False, id="plain"), pytest.param(True, id="loopback", marks=pytest.mark.loopback)]


@pytest.mark.parametrize("near", BOTH)
def test_the_network_is_refused(near):
    with socket.socket() as plain, pytest.raises(RuntimeError, match=f"reaches for {FAR}"):
        plain.connect((FAR, 80))
    with socket.socket(type=socket.SOCK_DGRAM) as plain, pytest.raises(RuntimeError, match=f"reaches for {FAR}"):
        plain.sendto(b"x", (FAR, 53))
    with pytest.raises(RuntimeError, match=r"reaches for example\.org"):
        socket.getaddrinfo("example.org", 80)
    with pytest.raises(RuntimeError, match=r"reaches for example\.org"):
        urllib.request.urlopen("http://example.org/")


def test_this_machine_is_refused_too(server):
    with socket.socket() as plain, pytest.raises(RuntimeError, match="mark one"):
        plain.connect(server.getsockname())


@pytest.mark.loopback
def test_a_test_that_is_marked_reaches_this_machine(server):
    with socket.create_connection(server.getsockname()) as near:
        assert near.getpeername() == server.getsockname()
