"""A client that says exactly the frames it is told to, and judges what comes back."""

import os
import socket
import struct
import time

import hpack
from hyperframe.frame import Frame

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
CODES = {
    0: "NO_ERROR", 1: "PROTOCOL_ERROR", 2: "INTERNAL_ERROR", 3: "FLOW_CONTROL_ERROR",
    4: "SETTINGS_TIMEOUT", 5: "STREAM_CLOSED", 6: "FRAME_SIZE_ERROR", 7: "REFUSED_STREAM",
    8: "CANCEL", 9: "COMPRESSION_ERROR", 10: "CONNECT_ERROR", 11: "ENHANCE_YOUR_CALM",
}

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
(HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE,
 MAX_HEADER_LIST_SIZE, ENABLE_CONNECT_PROTOCOL) = 1, 2, 3, 4, 5, 6, 8

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# How long a case may take altogether, in seconds: the machine may be busy.
PATIENCE = float(os.environ.get("CURTSY_CONFORMANCE_PATIENCE", 30))


class Failure(Exception):
    """The server did not do what it must."""


def frame(kind, flags=0, stream=0, payload=b""):
    """A frame, legal or not."""
    length = len(payload)
    return struct.pack(">BHBBL", length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def settings(*pairs):
    return frame(SETTINGS, payload=b"".join(struct.pack(">HL", *pair) for pair in pairs))


def window(stream, more):
    return frame(WINDOW_UPDATE, stream=stream, payload=struct.pack(">L", more))


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, stream=stream, payload=struct.pack(">L", code))


def fields(path="/x", method="GET", *more, **pseudo):
    """The fields of a request."""
    own = {":method": method, ":scheme": "http", ":path": path, ":authority": "localhost"}
    own.update((":" + name, value) for name, value in pseudo.items())
    return [pair for pair in own.items() if pair[1] is not None] + list(more)


class Client:
    """A connection whose frames are the case's own."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.until = time.monotonic() + PATIENCE
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.buffer = b""
        self.pending = []
        self.server_settings = {}

    def close(self):
        self.socket.close()

    # ---- speaking

    def send(self, *frames):
        try:
            self.socket.sendall(b"".join(frames))
        except OSError:
            pass  # It is seen by what is read.

    def block(self, pairs):
        return self.encoder.encode(pairs, huffman=False)

    def request(self, stream, pairs=None, end=True, flags=END_HEADERS):
        pairs = fields() if pairs is None else pairs
        flags |= END_STREAM if end else 0
        self.send(frame(HEADERS, flags, stream, self.block(pairs)))

    def greet(self, *pairs):
        """The preface and settings of both sides."""
        self.send(PREFACE, settings(*pairs))
        first = self.next()
        if first is None or first[0] != SETTINGS or first[1] & ACK:
            raise Failure("the first frame is no SETTINGS: %s" % name(first))
        self.note_settings(first)
        self.send(frame(SETTINGS, ACK))
        self.skip_to(lambda got: got[0] == SETTINGS and got[1] & ACK, "an acknowledgement")
        return self

    def note_settings(self, got):
        for at in range(0, len(got[3]), 6):
            key, value = struct.unpack(">HL", got[3][at:at + 6])
            self.server_settings[key] = value

    # ---- hearing

    def read(self, count):
        while len(self.buffer) < count:
            left = self.until - time.monotonic()
            if left <= 0:
                raise Failure("nothing more came in time")
            self.socket.settimeout(left)
            try:
                part = self.socket.recv(65536)
            except socket.timeout:
                raise Failure("nothing more came in time")
            except OSError:
                part = b""
            if not part:
                return None
            self.buffer += part
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def next(self):
        """The next frame as (kind, flags, stream, payload); None at the end."""
        if self.pending:
            return self.pending.pop(0)
        head = self.read(9)
        if head is None:
            return None
        length = head[0] << 16 | head[1] << 8 | head[2]
        kind, flags, stream = head[3], head[4], struct.unpack(">L", head[5:])[0]
        payload = self.read(length)
        if payload is None:
            raise Failure("closed within a frame")
        if kind <= CONTINUATION:
            # Whatever the server says is well-formed.
            parsed, _ = Frame.parse_frame_header(memoryview(head))
            parsed.parse_body(memoryview(payload))
        return kind, flags, stream, payload

    def skip_to(self, wanted, what):
        while True:
            got = self.next()
            if got is None:
                raise Failure("closed instead of %s" % what)
            if wanted(got):
                return got
            if got[0] == GOAWAY:
                raise Failure("%s instead of %s" % (name(got), what))
            if got[0] == HEADERS:
                self.decoder.decode(got[3])

    # ---- judging

    def connection_error(self, *codes):
        """GOAWAY with one of the codes, then the end."""
        while True:
            got = self.next()
            if got is None:
                raise Failure("closed without a GOAWAY")
            if got[0] == GOAWAY:
                last, code = struct.unpack(">LL", got[3][:8])
                if code not in codes:
                    raise Failure("%s, not %s" % (name(got), names(codes)))
                while self.next() is not None:
                    pass
                return last
            if got[0] == RST_STREAM:
                raise Failure("%s, not a GOAWAY" % name(got))

    def stream_error(self, stream, *codes):
        """RST_STREAM with one of the codes; or GOAWAY with one: a stream's error may be taken for
        the connection's (RFC 9113, section 5.4.1)."""
        while True:
            got = self.next()
            if got is None:
                raise Failure("closed without a word")
            if got[0] == RST_STREAM and got[2] == stream:
                code, = struct.unpack(">L", got[3])
                if code not in codes:
                    raise Failure("%s, not %s" % (name(got), names(codes)))
                return self.alive()
            if got[0] == GOAWAY:
                code, = struct.unpack(">L", got[3][4:8])
                if code not in codes:
                    raise Failure("%s, not %s" % (name(got), names(codes)))
                return None
            if got[0] == HEADERS and got[2] == stream:
                raise Failure("answered %s" % self.decoder.decode(got[3])[0][1])

    def malformed(self, stream=1):
        """A stream error, or an answer that says 4xx (section 8.1.1)."""
        while True:
            got = self.next()
            if got is None:
                raise Failure("closed without a word")
            if got[0] == HEADERS and got[2] == stream:
                status = dict(self.decoder.decode(got[3]))[":status"]
                if not status.startswith("4"):
                    raise Failure("answered %s" % status)
                return
            if got[0] in (RST_STREAM, GOAWAY) and got[2] in (stream, 0):
                code = struct.unpack(">L", got[3][-4:] if got[0] == RST_STREAM else got[3][4:8])[0]
                if code != PROTOCOL_ERROR:
                    raise Failure("%s, not PROTOCOL_ERROR" % name(got))
                return

    def answer(self, stream=1, status="200"):
        """The whole answer to a request: its body."""
        body = b""
        while True:
            got = self.next()
            if got is None:
                raise Failure("closed instead of an answer")
            kind, flags, on, payload = got
            if kind == HEADERS:
                pairs = dict(self.decoder.decode(payload))
                if on == stream and pairs.get(":status", status) != status:
                    raise Failure("answered %s, not %s" % (pairs[":status"], status))
            if on == 0 and kind == GOAWAY or on == stream and kind == RST_STREAM:
                raise Failure("%s instead of an answer" % name(got))
            if on == stream and kind == DATA:
                body += payload
                if payload:
                    self.send(window(0, len(payload)))
            if on == stream and kind in (DATA, HEADERS) and flags & END_STREAM:
                return body

    def alive(self):
        """The connection is as it was: a PING is answered. What came before is kept."""
        self.send(frame(PING, payload=b"alive? !"))
        kept = []
        while True:
            got = self.next()
            if got is None or got[0] == GOAWAY:
                raise Failure("%s: the connection should go on" % name(got))
            if got[0] == PING and got[1] & ACK and got[3] == b"alive? !":
                self.pending = kept
                return kept
            kept.append(got)


def name(got):
    if got is None:
        return "the end"
    kind, _, stream, payload = got
    if kind == GOAWAY:
        return "GOAWAY " + CODES.get(struct.unpack(">L", payload[4:8])[0], "?")
    if kind == RST_STREAM:
        return "RST_STREAM " + CODES.get(struct.unpack(">L", payload)[0], "?")
    return "frame of kind %d on stream %d" % (kind, stream)


def names(codes):
    return " or ".join(CODES[code] for code in codes)
