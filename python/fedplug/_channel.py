"""The worker's end of the connection to the plugin in Rust.

A message is the length of its JSON in 8 bytes, little-endian, and the JSON. Memory travels beside it. With shared memory a
piece is `[lease, offset, length]`: a lease is a segment of memory for as long as its content is the same. What comes is
mapped privately, so that writing into it changes nothing for others; what goes is written into a segment that the plugin
lends. Without shared memory a piece is its place in the list `pieces` of lengths, and the bytes follow the JSON.
"""
from __future__ import annotations

import array
import json
import mmap
import os
import select
import socket
import threading
import weakref
from typing import Any


ALIGNMENT = 64
Json = dict[str, Any]


class Channel:
    def __init__(self, sock: socket.socket, shared: bool):
        self._sock = sock
        self.shared = shared
        # Segments by their number: the descriptor and the size; and those that are mapped to be written.
        self._segments: dict[int, tuple[int, int]] = {}
        self._writable: dict[int, mmap.mmap] = {}
        # Leases that nothing here uses any more, told with the next answer.
        self.released: list[int] = []
        # The call that was asked to stop.
        self._stopped: int | None = None
        # Threads of the user's may print, and a process that the user forks must not.
        self._process = os.getpid()
        self._sending = threading.Lock()
        self._receiving = threading.RLock()

    @property
    def usable(self) -> bool:
        """Whether this is the process that the connection is of, and not one forked from it."""
        return os.getpid() == self._process

    def receive(self) -> tuple[Json, Incoming]:
        """The next message. Raises EOFError if there is none."""
        fds: list[int] = []
        head = b""
        while len(head) < 8:
            data, ancillary, _, _ = self._sock.recvmsg(8 - len(head), socket.CMSG_SPACE(64 * 4), getattr(socket, "MSG_CMSG_CLOEXEC", 0))
            if not data:
                raise EOFError
            head += data
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    found = array.array("i")
                    found.frombytes(content[: len(content) - len(content) % found.itemsize])
                    fds += found
        message = json.loads(self._exactly(int.from_bytes(head, "little")))
        for number, size in message.get("segments", ()):
            self._segments[number] = (fds.pop(0), size)
        for number in message.get("forget", ()):
            self._writable.pop(number, None)
            os.close(self._segments.pop(number)[0])
        pieces = [self._exactly(length) for length in message.get("pieces", ())]
        return message, Incoming(self, dict(message.get("leases", ())), pieces)

    def _exactly(self, length: int) -> bytearray:
        found = bytearray(length)
        view = memoryview(found)
        while view:
            read = self._sock.recv_into(view)
            if not read:
                raise EOFError
            view = view[read:]
        return found

    def send(self, message: Json, pieces: list[Any] = ()) -> None:  # type: ignore[assignment]
        if pieces:
            message["pieces"] = [piece.nbytes for piece in pieces]
        text = json.dumps(message, separators=(",", ":"), allow_nan=False, default=_number).encode()
        with self._sending:
            self._sock.sendall(len(text).to_bytes(8, "little") + text)
            for piece in pieces:
                if piece.nbytes:
                    self._sock.sendall(memoryview(piece.reshape(-1)).cast("B"))

    def ask(self, question: Json) -> Json:
        """Sends a question and waits for the answer. A request to stop may come before it."""
        with self._receiving:
            self.send(question)
            while True:
                answer, _ = self.receive()
                if "stop" not in answer:
                    return answer
                self._stopped = answer["stop"]

    def stopped(self, call: int) -> bool:
        """Whether this call is to stop."""
        with self._receiving:
            while self._stopped != call and select.select([self._sock], [], [], 0)[0]:
                message, _ = self.receive()
                self._stopped = message.get("stop", self._stopped)
            return self._stopped == call

    def map_private(self, lease: int, segment: int) -> mmap.mmap:
        fd, size = self._segments[segment]
        found = mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        weakref.finalize(found, self.released.append, lease).atexit = False
        return found

    def writable(self, segment: int) -> mmap.mmap:
        if segment not in self._writable:
            fd, size = self._segments[segment]
            self._writable[segment] = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        return self._writable[segment]


def _number(value: Any) -> Any:
    """A number of NumPy or torch as JSON has it."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"JSON has no value for {value!r}")


class Incoming:
    """The memory of a message."""

    def __init__(self, channel: Channel, leases: dict[int, int], pieces: list[bytearray]):
        self._channel = channel
        self._leases = leases
        self._pieces = pieces
        self._mapped: dict[int, mmap.mmap] = {}

    def piece(self, at: Any) -> tuple[Any, int, int]:
        """A buffer, and where in it the piece is."""
        if isinstance(at, int):
            return self._pieces[at], 0, len(self._pieces[at])
        lease, offset, length = at
        if not length:
            return b"", 0, 0
        if lease not in self._mapped:
            self._mapped[lease] = self._channel.map_private(lease, self._leases[lease])
        return self._mapped[lease], offset, length

    def close(self) -> None:
        """After this, arrays alone hold the memory."""
        self._channel.released += [lease for lease in self._leases if lease not in self._mapped]
        self._leases, self._pieces, self._mapped = {}, [], {}


class Outgoing:
    """The memory of an answer."""

    def __init__(self) -> None:
        self._pieces: list[Any] = []
        self._size = 0
        self._places: list[list[int]] = []

    def add(self, piece: Any) -> Any:
        """Takes a contiguous array of NumPy. Returns where it will be: filled in by `send`."""
        self._pieces.append(piece)
        place = [0, self._size, piece.nbytes]
        self._size += -(-piece.nbytes // ALIGNMENT) * ALIGNMENT
        self._places.append(place)
        return place

    def send(self, channel: Channel, message: Json) -> None:
        message["released"], channel.released[:] = list(channel.released), []
        if not self._size:
            # All are empty.
            channel.send(message)
        elif channel.shared:
            import numpy as np

            granted = channel.ask({"need": self._size})
            into = np.frombuffer(channel.writable(granted["segment"]), np.uint8)
            for piece, (_, offset, length) in zip(self._pieces, self._places):
                if length:
                    np.copyto(into[offset : offset + length].view(piece.dtype).reshape(piece.shape), piece)
            del into
            for place in self._places:
                place[0] = granted["lease"]
            channel.send(message)
        else:
            for number, place in enumerate(self._places):
                place[:] = [number]
            channel.send(message, self._pieces)
