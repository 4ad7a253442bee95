"""On the path of the kernels that tests start: whatever they and their programs run may speak to this machine only."""

import sys

HERE = ("127.0.0.1", "localhost", "::1")


def _watch(event: str, args: tuple[object, ...]) -> None:
    if event == "socket.connect":
        address = args[1]
        host = address[0] if isinstance(address, tuple) else HERE[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    if host is not None and host not in HERE:
        raise PermissionError(f"A notebook may not speak to {host!r}.")


sys.addaudithook(_watch)
