"""What jobs print: one pipe for each child, cut at the marks between jobs, each job's output bounded in size.

A handler that prints a gigabyte costs a little time and a bounded file: the beginning and the end are kept. Used by the agent; reads
file descriptors without blocking.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Final

TOKEN_SIZE: Final = 8
READ_SIZE: Final = 64 * 1024
MEMORY: Final = 64 * 1024


class JobLog:
    """The output of one job: a head on disk (the first octets in memory), a tail in memory.

    Parameters
    ----------
    path : Path
        Where the file is made when it is needed.
    limit : int
        Most octets kept, one half from the beginning and one from the end.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self._half = limit // 2
        self._buffer = bytearray()
        self._file: FileIO | None = None
        self._trouble: OSError | None = None
        self._head = 0
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self.size = 0

    def write(self, data: bytes) -> None:
        """Take output in. Trouble with the disk is told by `finish`: whoever hears a child has other things to do."""
        self.size += len(data)
        room = self._half - self._head if self._trouble is None else 0
        if room > 0:
            head, data = data[:room], data[room:]
            self._head += len(head)
            self._buffer += head
            if len(self._buffer) > MEMORY:
                try:
                    self._to_file()
                except OSError as error:
                    self._forgo_head(error)
        if data:
            self._to_tail(data)

    def _to_tail(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail and self._tail_size - len(self._tail[0]) >= self._half:
            self._tail_size -= len(self._tail.popleft())

    def _to_file(self) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w+b", buffering=0)  # else what the disk has not taken would fail whoever reads
        data = bytes(self._buffer)
        while data:
            data = data[self._file.write(data) :]
        self._buffer.clear()

    def _forgo_head(self, error: OSError) -> None:
        """The disk does not take the beginning: what is in memory and what follows is kept there, as far as the tail reaches."""
        self._trouble = error
        with contextlib.suppress(OSError):
            self.close()
        self._head = 0
        self._to_tail(bytes(self._buffer))
        self._buffer.clear()

    def tail(self, octets: int) -> str:
        """The end of the output, as text."""
        start = max(self.size - octets, 0)
        _, data = self.read(start, octets)
        return data.decode(errors="replace")

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """Output from an offset on, or from the next octet that was kept; return where it begins, and the octets."""
        if offset < self._head:
            data = self._read_head(offset, min(limit, self._head - offset))
            if len(data) == limit or not self._tail or self._head + self._tail_size != self.size:
                return offset, data
            return offset, data + b"".join(self._tail)[: limit - len(data)]
        start = self.size - self._tail_size
        offset = max(offset, start)
        return offset, b"".join(self._tail)[offset - start : offset - start + limit]

    def _read_head(self, offset: int, limit: int) -> bytes:
        flushed = self._head - len(self._buffer)
        data = b""
        if offset < flushed and self._file is not None:
            self._file.seek(offset)
            data = self._file.read(min(limit, flushed - offset))
            self._file.seek(0, os.SEEK_END)
        first = max(offset - flushed, 0)
        return data + bytes(self._buffer[first : first + limit - len(data)])

    def finish(self) -> None:
        """Write the file as it stays: head, a line that says how much is left out, tail.

        Raises
        ------
        OSError
            When the disk did not take it, now or before.
        """
        if self._trouble is not None:
            raise self._trouble
        if self._tail:
            missing = self.size - self._head - self._tail_size
            if missing:
                self._buffer += f"\n[... {missing:,} octets left out ...]\n".encode()
            self._buffer += b"".join(self._tail)
        try:
            self._to_file()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class LogPipe:
    """The read end of a child's output.

    Parameters
    ----------
    fd : int
        Non-blocking; closed by `close`.
    mark : bytes
        After it and a token of 8 octets, output belongs to the next job.
    make : callable
        Makes the log of a job, given its token, when its first output comes.
    """

    def __init__(self, fd: int, mark: bytes, make: Callable[[int], JobLog]) -> None:
        self.fd = fd
        self.current: JobLog | None = None
        self._mark = mark
        self._make = make
        self._rest = b""
        self._cut: dict[int, JobLog] = {}
        self._seen: set[int] = set()
        self._order: deque[int] = deque()

    def expect(self, token: int) -> None:
        """A job was given to the child; its output follows that of the jobs before it."""
        self._order.append(token)

    def unexpect(self, token: int) -> None:
        """The child has left a job out."""
        if token in self._order:
            self._order.remove(token)

    def pump(self, rounds: int = 16) -> bool:
        """Read what is there, within bounds; False at the end of the stream."""
        for _ in range(rounds):
            try:
                data = os.read(self.fd, READ_SIZE)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._feed(data)
            if len(data) < READ_SIZE:  # that was all; asking again would only raise an exception
                break
        return True

    def take(self, token: int) -> JobLog | None:
        """The complete log of a job whose mark has been written; None if it printed nothing."""
        while token not in self._seen and self._more():
            pass
        self._seen.discard(token)
        return self._cut.pop(token, None)

    def rest(self) -> JobLog | None:
        """After the child's death: the log of the job that was running."""
        while self._more():
            pass
        self._write(self._rest)
        self._rest = b""
        log, self.current = self.current, None
        return log

    def _more(self) -> bool:
        """Read once; False where nothing is there, or nothing more will be."""
        try:
            data = os.read(self.fd, READ_SIZE)
        except OSError:
            return False
        if data:
            self._feed(data)
        return bool(data)

    def _feed(self, data: bytes) -> None:
        data = self._rest + data
        size = len(self._mark) + TOKEN_SIZE
        start = 0
        while (found := data.find(self._mark, start)) >= 0 and found + size <= len(data):
            self._write(data[start:found])
            token = int.from_bytes(data[found + len(self._mark) : found + size], "big")
            self._seen.add(token)
            self.unexpect(token)
            if self.current is not None:
                self._cut[token] = self.current
                self.current = None
            start = found + size
        hold = data.find(self._mark[:1], max(start, len(data) - size + 1)) if found < 0 else found
        end = hold if hold >= 0 else len(data)
        self._write(data[start:end])
        self._rest = data[end:]

    def _write(self, data: bytes) -> None:
        if not data:
            return
        if self.current is None and self._order:
            self.current = self._make(self._order[0])
        if self.current is not None:
            self.current.write(data)

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
