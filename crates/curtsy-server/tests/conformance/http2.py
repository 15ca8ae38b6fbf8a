"""What RFC 9113 (HTTP/2), RFC 7541 (HPACK) and RFC 8441 (extended CONNECT) ask of a server, case by
case, in raw frames. Prints `PASS name` or `FAIL name: why` for each.

Usage: http2.py HOST:PORT [PART OF A NAME]
The service answers /x, echoes on /echo, gives 1 MiB on /big, and holds /gate back without end."""

import concurrent.futures
import sys

from wire import *

CASES = []


def case(section, what, greet=True):
    """Enters a case; `section` is where its rule stands."""
    def enter(run):
        CASES.append(("%s %s" % (section, what), run, greet))
        return run
    return enter


def refuses(section, what, codes, *frames, open_stream=False, settle=()):
    """A case of frames that are an error of the connection."""
    def run(c):
        if open_stream:
            c.request(1, fields("/gate", "POST"), end=False)
        c.send(*[f(c) if callable(f) else f for f in frames])
        c.connection_error(*codes)
    CASES.append(("%s %s" % (section, what), run, True))


def malformed(section, what, pairs, end=True):
    """A case of a request that no service may see."""
    def run(c):
        c.request(1, pairs, end)
        c.malformed()
    CASES.append(("%s %s" % (section, what), run, True))


def served(section, what, pairs, status="200"):
    """A case of a request that is well-formed, however odd."""
    def run(c):
        c.request(1, pairs)
        c.answer(status=status)
    CASES.append(("%s %s" % (section, what), run, True))


def get(stream=1, path="/x", flags=END_HEADERS | END_STREAM):
    return lambda c: frame(HEADERS, flags, stream, c.block(fields(path)))


# ---- RFC 9113, section 3.4: the preface

@case("rfc9113-3.4", "the server's first frame is SETTINGS")
def _(c):
    c.alive()


@case("rfc9113-3.4", "a request may follow the preface at once", greet=False)
def _(c):
    c.send(PREFACE, settings())
    c.request(1)
    c.answer()


@case("rfc9113-3.4", "the preface may come byte by byte", greet=False)
def _(c):
    for byte in PREFACE + settings():
        c.send(bytes([byte]))
    c.request(1)
    c.answer()


@case("rfc9113-3.4", "a broken preface ends the connection", greet=False)
def _(c):
    c.send(PREFACE[:-6] + b"XX\r\n\r\n")
    while c.read(1) is not None:
        pass


for kind, first in (("HEADERS", get()), ("PING", frame(PING, payload=b"12345678")),
                    ("an acknowledgement", frame(SETTINGS, ACK))):
    @case("rfc9113-3.4", "%s in place of the first SETTINGS is refused" % kind, greet=False)
    def _(c, first=first):
        c.send(PREFACE, first(c) if callable(first) else first)
        # A GOAWAY may be left out: the client may speak something else.
        while (got := c.next()) is not None:
            if got[0] == HEADERS or got[0] == PING and got[1] & ACK:
                raise Failure("it was answered")


# ---- section 4: frames

@case("rfc9113-4.1", "unknown kinds of frames are passed over")
def _(c):
    c.send(frame(0xAA, 0xFF, 0, b"whatever"), frame(0xFE, 0, 1, b""))
    c.request(1)
    c.answer()


@case("rfc9113-4.1", "unknown flags are passed over")
def _(c):
    c.send(frame(PING, 0x5E, 0, b"12345678"))
    c.skip_to(lambda got: got[0] == PING and got[3] == b"12345678", "the PING's answer")


@case("rfc9113-4.1", "the reserved bit of a stream's number is passed over")
def _(c):
    c.send(frame(HEADERS, END_HEADERS | END_STREAM, 1 << 31 | 1, c.block(fields())))
    c.answer(1)


@case("rfc9113-4.2", "DATA of the largest size is taken")
def _(c):
    c.request(1, fields("/echo", "POST"), end=False)
    c.send(frame(DATA, END_STREAM, 1, b"x" * 16384))
    if c.answer() != b"x" * 16384:
        raise Failure("another body came back")


@case("rfc9113-4.2", "DATA over the largest size is refused")
def _(c):
    c.request(1, fields("/echo", "POST"), end=False)
    c.send(frame(DATA, END_STREAM, 1, b"x" * 16385))
    c.stream_error(1, FRAME_SIZE_ERROR)


refuses("rfc9113-4.2", "HEADERS over the largest size are refused", [FRAME_SIZE_ERROR],
        lambda c: frame(HEADERS, 0x5, 1, c.block(fields() + [("x", "x" * 16384)])))
refuses("rfc9113-4.2", "an unknown frame over the largest size is refused", [FRAME_SIZE_ERROR],
        frame(0xAA, payload=b"x" * 16385))
refuses("rfc9113-4.3", "a block that ends within a field is refused", [COMPRESSION_ERROR],
        frame(HEADERS, 0x5, 1, b"\x82\x86\x84\x40\x05ab"))
refuses("rfc9113-4.3", "a block of an unknown index is refused", [COMPRESSION_ERROR],
        frame(HEADERS, 0x5, 1, b"\x82\x86\x84\xfe"))


@case("rfc9113-4.3", "blocks of a refused stream count for the compression")
def _(c):
    # Enters a field into the table on a stream that is malformed, and uses it on another.
    c.request(1, fields("/x", "GET", ("x-kept", "value"), ("connection", "close")))
    c.malformed()
    c.request(3, fields("/x", "GET", ("x-kept", "value")))
    c.answer(3)


for what, between in (("PING", frame(PING, payload=b"12345678")),
                      ("PRIORITY", frame(PRIORITY, 0, 1, b"\0\0\0\0\1")),
                      ("WINDOW_UPDATE", window(0, 1)),
                      ("SETTINGS", settings()),
                      ("RST_STREAM", reset(1)),
                      ("DATA", frame(DATA, END_STREAM, 1, b"x")),
                      ("an unknown frame", frame(0xAA, 0, 0, b"x")),
                      ("another stream's HEADERS", get(3)),
                      ("another stream's CONTINUATION", frame(CONTINUATION, END_HEADERS, 3))):
    refuses("rfc9113-4.3", "%s within a header block is refused" % what, [PROTOCOL_ERROR],
            lambda c: frame(HEADERS, END_STREAM, 1, c.block(fields())), between)

# ---- section 5.1: the states of streams

refuses("rfc9113-5.1", "idle: DATA is refused", [PROTOCOL_ERROR, STREAM_CLOSED],
        frame(DATA, END_STREAM, 1, b"x"))
refuses("rfc9113-5.1", "idle: RST_STREAM is refused", [PROTOCOL_ERROR], reset(1))
refuses("rfc9113-5.1", "idle: WINDOW_UPDATE is refused", [PROTOCOL_ERROR], window(1, 100))
refuses("rfc9113-5.1", "idle: CONTINUATION is refused", [PROTOCOL_ERROR],
        lambda c: frame(CONTINUATION, 0x5, 1, c.block(fields())))


@case("rfc9113-5.1", "idle: PRIORITY is taken")
def _(c):
    c.send(frame(PRIORITY, 0, 5, b"\0\0\0\3\x10"))
    c.request(7)
    c.answer(7)


@case("rfc9113-5.1", "half closed: DATA is refused")
def _(c):
    c.request(1, fields("/gate"))
    c.send(frame(DATA, END_STREAM, 1, b"x"))
    c.stream_error(1, STREAM_CLOSED)


@case("rfc9113-5.1", "half closed: HEADERS are refused")
def _(c):
    c.request(1, fields("/gate"))
    c.request(1, fields("/gate"))
    c.stream_error(1, STREAM_CLOSED)


@case("rfc9113-5.1", "half closed: CONTINUATION is refused")
def _(c):
    c.request(1, fields("/gate"))
    c.send(frame(CONTINUATION, END_HEADERS, 1, b"\x82"))
    c.stream_error(1, STREAM_CLOSED, PROTOCOL_ERROR)


@case("rfc9113-5.1", "half closed: WINDOW_UPDATE and PRIORITY are taken")
def _(c):
    c.request(1, fields("/gate"))
    c.send(window(1, 100), frame(PRIORITY, 0, 1, b"\0\0\0\0\1"))
    c.alive()


@case("rfc9113-5.1", "half closed: RST_STREAM is taken")
def _(c):
    c.request(1, fields("/gate"))
    c.send(reset(1))
    if [got for got in c.alive() if got[2] == 1]:
        raise Failure("something was said of a stream that was cancelled")


@case("rfc9113-5.1", "closed: DATA is refused")
def _(c):
    c.request(1)
    c.answer()
    c.send(frame(DATA, END_STREAM, 1, b"x"))
    c.stream_error(1, STREAM_CLOSED)


@case("rfc9113-5.1", "closed: HEADERS are refused")
def _(c):
    c.request(1)
    c.answer()
    c.request(1)
    c.connection_error(STREAM_CLOSED, PROTOCOL_ERROR)


@case("rfc9113-5.1", "closed: WINDOW_UPDATE, RST_STREAM and PRIORITY are passed over")
def _(c):
    c.request(1)
    c.answer()
    c.send(window(1, 100), reset(1), frame(PRIORITY, 0, 1, b"\0\0\0\0\1"))
    c.request(3)
    c.answer(3)


@case("rfc9113-5.1", "reset by the client: DATA is refused")
def _(c):
    c.request(1, fields("/gate", "POST"), end=False)
    c.send(reset(1))
    c.alive()
    c.send(frame(DATA, END_STREAM, 1, b"x"))
    c.stream_error(1, STREAM_CLOSED)


@case("rfc9113-5.1", "reset by the client: HEADERS are refused")
def _(c):
    c.request(1, fields("/gate", "POST"), end=False)
    c.send(reset(1))
    c.alive()
    c.request(1)
    c.stream_error(1, STREAM_CLOSED, PROTOCOL_ERROR)


@case("rfc9113-5.1", "reset by the server: what was on its way is passed over")
def _(c):
    c.request(1, fields("/echo", "POST", ("content-length", "1")), end=False)
    c.send(frame(DATA, 0, 1, b"xx"))
    c.send(frame(DATA, 0, 1, b"xx"), window(1, 1), frame(DATA, END_STREAM, 1))
    c.malformed()
    c.request(3)
    c.answer(3)


# ---- section 5.1.1: the numbers of streams

refuses("rfc9113-5.1.1", "an even number is refused", [PROTOCOL_ERROR], get(2))
refuses("rfc9113-5.1.1", "HEADERS on stream 0 are refused", [PROTOCOL_ERROR], get(0))


@case("rfc9113-5.1.1", "a lower number than before is refused")
def _(c):
    c.request(5)
    c.answer(5)
    c.request(3)
    c.connection_error(PROTOCOL_ERROR, STREAM_CLOSED)


@case("rfc9113-5.1.1", "numbers may be left out")
def _(c):
    c.request(9)
    c.answer(9)
    c.request(1001)
    c.answer(1001)


@case("rfc9113-5.1.1", "the largest number is taken")
def _(c):
    c.request(2**31 - 1)
    c.answer(2**31 - 1)


@case("rfc9113-5.1.2", "streams over the limit are refused, and can be tried again")
def _(c):
    most = c.server_settings[MAX_CONCURRENT_STREAMS]
    for n in range(most + 1):
        c.request(2 * n + 1, fields("/gate"))
    c.stream_error(2 * most + 1, REFUSED_STREAM, PROTOCOL_ERROR)


@case("rfc9113-5.1.2", "streams that ended make room")
def _(c):
    most = c.server_settings[MAX_CONCURRENT_STREAMS]
    for n in range(most):
        c.request(2 * n + 1, fields("/gate"))
    c.alive()
    c.send(reset(1))
    c.alive()
    c.request(2 * most + 1)
    c.answer(2 * most + 1)


@case("rfc9113-5.4.1", "a GOAWAY names the last stream that was taken")
def _(c):
    c.request(5)
    c.answer(5)
    c.send(window(0, 0))
    last = c.connection_error(PROTOCOL_ERROR)
    if last != 5:
        raise Failure("it named %d" % last)


# ---- section 6.1: DATA

refuses("rfc9113-6.1", "DATA on stream 0 is refused", [PROTOCOL_ERROR], frame(DATA, 1, 0, b"x"))
for what, payload in (("as much padding as payload", b"\5abcd"), ("more padding", b"\xffabcd"),
                      ("no byte for the padding's length", b"")):
    @case("rfc9113-6.1", "DATA with %s is refused" % what)
    def _(c, payload=payload):
        c.request(1, fields("/echo", "POST"), end=False)
        c.send(frame(DATA, END_STREAM | PADDED, 1, payload))
        c.connection_error(PROTOCOL_ERROR, FRAME_SIZE_ERROR)


@case("rfc9113-6.1", "padding is taken off")
def _(c):
    c.request(1, fields("/echo", "POST"), end=False)
    c.send(frame(DATA, PADDED, 1, b"\3body\0\0\0"), frame(DATA, 0x9, 1, b"\4\0\0\0\0"))
    if c.answer() != b"body":
        raise Failure("another body came back")


@case("rfc9113-6.1", "empty DATA may end a body")
def _(c):
    c.request(1, fields("/echo", "POST"), end=False)
    c.send(frame(DATA, 0, 1, b"body"), frame(DATA, END_STREAM, 1))
    if c.answer() != b"body":
        raise Failure("another body came back")


# ---- section 6.2: HEADERS

refuses("rfc9113-6.2", "HEADERS with more padding than payload are refused", [PROTOCOL_ERROR],
        lambda c: frame(HEADERS, 0x5 | PADDED, 1, b"\xff" + c.block(fields())))
refuses("rfc9113-6.2", "HEADERS too short for their priority are refused",
        [PROTOCOL_ERROR, FRAME_SIZE_ERROR], frame(HEADERS, 0x5 | PRIORITIZED, 1, b"\0\0\0"))


@case("rfc9113-6.2", "HEADERS may have padding and a priority")
def _(c):
    payload = b"\2\0\0\0\0\xff" + c.block(fields()) + b"\0\0"
    c.send(frame(HEADERS, 0x5 | PADDED | PRIORITIZED, 1, payload))
    c.answer()


# ---- sections 6.3 and 6.4: PRIORITY, RST_STREAM

refuses("rfc9113-6.3", "PRIORITY on stream 0 is refused", [PROTOCOL_ERROR],
        frame(PRIORITY, 0, 0, b"\0\0\0\1\0"))


@case("rfc9113-6.3", "PRIORITY of another length than 5 is refused")
def _(c):
    c.request(1, fields("/gate"))
    c.send(frame(PRIORITY, 0, 1, b"\0\0\0\0"))
    c.stream_error(1, FRAME_SIZE_ERROR)


refuses("rfc9113-6.4", "RST_STREAM on stream 0 is refused", [PROTOCOL_ERROR], reset(0))
refuses("rfc9113-6.4", "RST_STREAM of another length than 4 is refused", [FRAME_SIZE_ERROR],
        frame(RST_STREAM, 0, 1, b"\0\0\0"), open_stream=True)

# ---- section 6.5: SETTINGS

refuses("rfc9113-6.5", "SETTINGS on a stream are refused", [PROTOCOL_ERROR],
        frame(SETTINGS, 0, 1))
refuses("rfc9113-6.5", "an acknowledgement with settings is refused", [FRAME_SIZE_ERROR],
        frame(SETTINGS, ACK, 0, b"\0\3\0\0\0\1"))
refuses("rfc9113-6.5", "SETTINGS of a length that 6 does not divide are refused",
        [FRAME_SIZE_ERROR], frame(SETTINGS, 0, 0, b"\0\3\0"))
for what, pair, codes in (
        ("ENABLE_PUSH of 2", (ENABLE_PUSH, 2), [PROTOCOL_ERROR]),
        ("INITIAL_WINDOW_SIZE of 2^31", (INITIAL_WINDOW_SIZE, 2**31), [FLOW_CONTROL_ERROR]),
        ("MAX_FRAME_SIZE of 16383", (MAX_FRAME_SIZE, 16383), [PROTOCOL_ERROR]),
        ("MAX_FRAME_SIZE of 2^24", (MAX_FRAME_SIZE, 2**24), [PROTOCOL_ERROR])):
    refuses("rfc9113-6.5.2", "%s is refused" % what, codes, settings(pair))


@case("rfc9113-6.5.2", "unknown settings are passed over")
def _(c):
    c.send(settings((0xFFFF, 1), (0x0A0A, 0)))
    c.skip_to(lambda got: got[0] == SETTINGS and got[1] & ACK, "an acknowledgement")


@case("rfc9113-6.5.3", "of two values for a setting the last one counts")
def _(c):
    c.send(settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)))
    c.skip_to(lambda got: got[0] == SETTINGS and got[1] & ACK, "an acknowledgement")
    c.request(1)
    got = c.skip_to(lambda got: got[0] == DATA, "DATA")
    if len(got[3]) != 1:
        raise Failure("%d bytes in a window of 1" % len(got[3]))


@case("rfc9113-6.5.3", "each SETTINGS is acknowledged")
def _(c):
    c.send(*[settings((MAX_CONCURRENT_STREAMS, n)) for n in range(5)])
    for _ in range(5):
        c.skip_to(lambda got: got[0] == SETTINGS and got[1] & ACK, "an acknowledgement")


@case("rfc9113-6.5.2", "frames are no larger than asked for")
def _(c):
    c.send(settings((INITIAL_WINDOW_SIZE, 2**20)), window(0, 2**20))
    c.request(1, fields("/big"))
    largest, total = 0, 0
    while total < 2**20:
        got = c.skip_to(lambda got: got[0] == DATA, "DATA")
        largest, total = max(largest, len(got[3])), total + len(got[3])
    if largest > 16384:
        raise Failure("a frame of %d bytes" % largest)


# ---- sections 6.6 to 6.8: PUSH_PROMISE, PING, GOAWAY

refuses("rfc9113-6.6", "a client's PUSH_PROMISE is refused", [PROTOCOL_ERROR],
        lambda c: frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + c.block(fields())),
        open_stream=True)


@case("rfc9113-6.7", "a PING is answered with its own payload")
def _(c):
    c.send(frame(PING, payload=b"\0\1\2\3\xfc\xfd\xfe\xff"))
    got = c.skip_to(lambda got: got[0] == PING, "the PING's answer")
    if got[1:] != (ACK, 0, b"\0\1\2\3\xfc\xfd\xfe\xff"):
        raise Failure("another answer")


@case("rfc9113-6.7", "the answer to a PING is not answered")
def _(c):
    c.send(frame(PING, ACK, 0, b"unasked."))
    if [got for got in c.alive() if got[0] == PING]:
        raise Failure("it was answered")


refuses("rfc9113-6.7", "PING on a stream is refused", [PROTOCOL_ERROR],
        frame(PING, 0, 1, b"12345678"))
for size in (0, 7, 9):
    refuses("rfc9113-6.7", "PING of %d bytes is refused" % size, [FRAME_SIZE_ERROR],
            frame(PING, payload=b"x" * size))
refuses("rfc9113-6.8", "GOAWAY on a stream is refused", [PROTOCOL_ERROR],
        frame(GOAWAY, 0, 1, b"\0" * 8))
refuses("rfc9113-6.8", "GOAWAY of 7 bytes is refused", [FRAME_SIZE_ERROR, PROTOCOL_ERROR],
        frame(GOAWAY, 0, 0, b"\0" * 7))


@case("rfc9113-6.8", "what was asked for before a client's GOAWAY is answered")
def _(c):
    c.request(1, fields("/echo", "POST"), end=False)
    c.alive()
    c.send(frame(GOAWAY, 0, 0, b"\0" * 8), frame(DATA, END_STREAM, 1, b"body"))
    if c.answer() != b"body":
        raise Failure("another body came back")


# ---- section 6.9: WINDOW_UPDATE and flow control

refuses("rfc9113-6.9", "a window's increment of 0 is refused for the connection",
        [PROTOCOL_ERROR], window(0, 0))
for size in (3, 5):
    refuses("rfc9113-6.9", "WINDOW_UPDATE of %d bytes is refused" % size, [FRAME_SIZE_ERROR],
            frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1\1"[:size]))
refuses("rfc9113-6.9.1", "a connection's window over 2^31-1 is refused", [FLOW_CONTROL_ERROR],
        window(0, 2**31 - 1), window(0, 2**31 - 1))


@case("rfc9113-6.9", "a window's increment of 0 is refused for a stream")
def _(c):
    c.request(1, fields("/gate"))
    c.send(window(1, 0))
    c.stream_error(1, PROTOCOL_ERROR)


@case("rfc9113-6.9.1", "a stream's window over 2^31-1 is refused")
def _(c):
    c.request(1, fields("/gate"))
    c.send(window(1, 2**31 - 1), window(1, 2**31 - 1))
    c.stream_error(1, FLOW_CONTROL_ERROR)


@case("rfc9113-6.9.1", "nothing is sent into a shut window")
def _(c):
    c.send(settings((INITIAL_WINDOW_SIZE, 0)))
    c.request(1)
    c.skip_to(lambda got: got[0] == HEADERS, "the answer's head")
    if [got for got in c.alive() if got[0] == DATA and got[3]]:
        raise Failure("DATA in a shut window")
    c.send(window(1, 3))
    got = c.skip_to(lambda got: got[0] == DATA, "DATA")
    if len(got[3]) != 3:
        raise Failure("%d bytes in a window of 3" % len(got[3]))
    c.send(window(1, 1000))
    c.answer()


@case("rfc9113-6.9.1", "the connection's window bounds all streams together")
def _(c):
    c.send(settings((INITIAL_WINDOW_SIZE, 2**20)))
    c.request(1, fields("/big"))
    c.request(3, fields("/big"))
    total = 0
    while total < 65535:
        total += len(c.skip_to(lambda got: got[0] == DATA, "DATA")[3])
    total += sum(len(got[3]) for got in c.alive() if got[0] == DATA)
    if total != 65535:
        raise Failure("%d bytes in a window of 65535" % total)


@case("rfc9113-6.9.2", "a larger initial window holds for open streams")
def _(c):
    c.send(settings((INITIAL_WINDOW_SIZE, 0)))
    c.request(1)
    c.skip_to(lambda got: got[0] == HEADERS, "the answer's head")
    c.send(settings((INITIAL_WINDOW_SIZE, 5)))
    got = c.skip_to(lambda got: got[0] == DATA, "DATA")
    if len(got[3]) != 5:
        raise Failure("%d bytes in a window of 5" % len(got[3]))


@case("rfc9113-6.9.2", "a window may become negative")
def _(c):
    c.send(settings((INITIAL_WINDOW_SIZE, 5)))
    c.request(1)
    c.skip_to(lambda got: got[0] == DATA and got[3], "DATA")
    c.send(settings((INITIAL_WINDOW_SIZE, 2)), window(1, 3))
    if [got for got in c.alive() if got[0] == DATA and got[3]]:
        raise Failure("DATA in a window of 0")
    c.send(window(1, 1))
    got = c.skip_to(lambda got: got[0] == DATA, "DATA")
    if len(got[3]) != 1:
        raise Failure("%d bytes in a window of 1" % len(got[3]))


@case("rfc9113-6.9.2", "an initial window that takes a stream's over 2^31-1 is refused")
def _(c):
    c.request(1, fields("/gate"))
    c.send(window(1, 2**31 - 1 - 65535), settings((INITIAL_WINDOW_SIZE, 65536)))
    c.connection_error(FLOW_CONTROL_ERROR)


@case("rfc9113-6.9.1", "a body over its window is refused")
def _(c):
    c.request(1, fields("/gate", "POST"), end=False)
    size = c.server_settings.get(INITIAL_WINDOW_SIZE, 65535)
    c.send(*[frame(DATA, 0, 1, b"x" * 16384)] * (size // 16384 + 1))
    c.stream_error(1, FLOW_CONTROL_ERROR)


@case("rfc9113-6.9", "windows open again for what was read, and for what was not")
def _(c):
    total = 3 * 2**20
    for stream in (1, 3):
        c.request(stream, fields("/x" if stream == 1 else "/echo", "POST"), end=False)
    # The first stream's handler does not read its body.
    sent, conn, own = 0, 65535, c.server_settings.get(INITIAL_WINDOW_SIZE, 65535)
    c.send(window(0, 2**30), window(3, 2**30), window(1, 2**30))
    c.send(frame(DATA, END_STREAM, 1, b"x" * 16000))
    conn -= 16000
    while sent < total:
        part = min(16384, conn, own, total - sent)
        if part:
            c.send(frame(DATA, 0, 3, b"x" * part))
            sent, conn, own = sent + part, conn - part, own - part
            continue
        got = c.next()
        if got is None or got[0] in (GOAWAY, RST_STREAM) and got[2] in (0, 3):
            raise Failure("%s amid the body" % name(got))
        if got[0] == WINDOW_UPDATE:
            more, = struct.unpack(">L", got[3])
            conn, own = conn + more * (got[2] == 0), own + more * (got[2] == 3)
        elif got[0] == HEADERS:
            c.decoder.decode(got[3])
    c.send(frame(DATA, END_STREAM, 3))


# ---- section 6.10: CONTINUATION

@case("rfc9113-6.10", "a header block may come in pieces")
def _(c):
    block = c.block(fields())
    # Not too many: that would be a flood.
    c.send(frame(HEADERS, END_STREAM, 1, block[:1]), frame(CONTINUATION, 0, 1, block[1:2]),
           frame(CONTINUATION, 0, 1, block[2:5]), frame(CONTINUATION, END_HEADERS, 1, block[5:]))
    c.answer()


@case("rfc9113-6.10", "a piece of a header block may be empty")
def _(c):
    c.send(frame(HEADERS, END_STREAM, 1), frame(CONTINUATION, 0, 1, c.block(fields())),
           frame(CONTINUATION, END_HEADERS, 1))
    c.answer()


refuses("rfc9113-6.10", "CONTINUATION on stream 0 is refused", [PROTOCOL_ERROR],
        lambda c: frame(HEADERS, END_STREAM, 1, c.block(fields())),
        frame(CONTINUATION, END_HEADERS, 0, b"\x82"))
refuses("rfc9113-6.10", "CONTINUATION after the block's end is refused", [PROTOCOL_ERROR],
        lambda c: frame(HEADERS, END_HEADERS, 1, c.block(fields("/gate", "POST"))),
        frame(CONTINUATION, END_HEADERS, 1, b"\x82"))
refuses("rfc9113-6.10", "CONTINUATION after DATA is refused", [PROTOCOL_ERROR],
        frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, b"\x82"), open_stream=True)

# ---- section 8.1: messages

@case("rfc9113-8.1", "trailers end a request")
def _(c):
    c.request(1, fields("/echo", "POST"), end=False)
    c.send(frame(DATA, 0, 1, b"body"))
    c.request(1, [("x-trailer", "1")])
    if c.answer() != b"body":
        raise Failure("another body came back")


@case("rfc9113-8.1", "trailers that do not end the stream are refused")
def _(c):
    c.request(1, fields("/echo", "POST"), end=False)
    c.request(1, [("x-trailer", "1")], end=False)
    c.malformed()


@case("rfc9113-8.1", "trailers with a pseudo field are refused")
def _(c):
    c.request(1, fields("/echo", "POST"), end=False)
    c.request(1, [(":method", "GET"), ("x-trailer", "1")])
    c.malformed()


@case("rfc9113-8.1", "DATA after trailers is refused")
def _(c):
    c.request(1, fields("/gate", "POST"), end=False)
    c.request(1, [("x-trailer", "1")])
    c.send(frame(DATA, END_STREAM, 1, b"x"))
    c.stream_error(1, STREAM_CLOSED)


@case("rfc9113-8.1", "HEAD is answered without a body")
def _(c):
    c.request(1, fields("/x", "HEAD"))
    if c.answer() != b"":
        raise Failure("there was a body")


for what, length, body in (("less", "5", b"four"), ("more", "3", b"four"), ("nothing", "1", b"")):
    @case("rfc9113-8.1.1", "a body of %s than its content-length is refused" % what)
    def _(c, length=length, body=body):
        c.request(1, fields("/echo", "POST", ("content-length", length)), end=False)
        c.send(frame(DATA, END_STREAM, 1, body))
        c.malformed()


@case("rfc9113-8.1.1", "a body in pieces must come to its content-length")
def _(c):
    c.request(1, fields("/echo", "POST", ("content-length", "4")), end=False)
    c.send(frame(DATA, 0, 1, b"fo"), frame(DATA, END_STREAM, 1, b"u"))
    c.malformed()


malformed("rfc9113-8.1.1", "a content-length without a body is refused",
          fields("/x", "POST", ("content-length", "1")))
malformed("rfc9113-8.1.1", "a content-length that is no number is refused",
          fields("/x", "POST", ("content-length", "four")))
malformed("rfc9113-8.1.1", "a negative content-length is refused",
          fields("/x", "POST", ("content-length", "-1")))
malformed("rfc9113-8.1.1", "two content-lengths that differ are refused",
          fields("/x", "POST", ("content-length", "0"), ("content-length", "1")))

# ---- section 8.2: fields

for what, pair in (
        ("an upper-case letter in a name", ("X-Upper", "1")),
        ("a blank in a name", ("x y", "1")),
        ("a control character in a name", ("x\x01", "1")),
        ("a colon in a name", ("x:y", "1")),
        ("a byte over 127 in a name", ("x\xe9", "1")),
        ("an empty name", ("", "1")),
        ("NUL in a value", ("x", "a\0b")),
        ("CR in a value", ("x", "a\rb")),
        ("LF in a value", ("x", "a\nb")),
        ("a blank before a value", ("x", " a")),
        ("a blank after a value", ("x", "a ")),
        ("a tab after a value", ("x", "a\t"))):
    malformed("rfc9113-8.2.1", "%s is refused" % what, fields("/x", "GET", pair))
for pair in (("connection", "close"), ("proxy-connection", "close"), ("keep-alive", "timeout=5"),
             ("transfer-encoding", "chunked"), ("upgrade", "h2c"), ("te", "gzip"),
             ("te", "trailers, deflate")):
    malformed("rfc9113-8.2.2", "%s: %s is refused" % pair, fields("/x", "GET", pair))
served("rfc9113-8.2.2", "te: trailers is taken", fields("/x", "GET", ("te", "trailers")))
served("rfc9113-8.2.3", "a cookie may come in crumbs",
       fields("/x", "GET", ("cookie", "a=b"), ("cookie", "c=d")))

# ---- section 8.3: pseudo fields

for what, pairs in (
        ("a pseudo field after another", fields()[:3] + [("x", "y"), (":authority", "a")]),
        ("an unknown pseudo field", fields() + [(":unknown", "x")]),
        (":status in a request", fields() + [(":status", "200")]),
        ("two :method", [(":method", "GET")] + fields()),
        ("two :scheme", [(":scheme", "http")] + fields()),
        ("two :path", [(":path", "/")] + fields()),
        ("two :authority", [(":authority", "a")] + fields()),
        ("no :method", fields(method=None)),
        ("no :scheme", fields(scheme=None)),
        ("no :path", fields(path=None)),
        ("an empty :path", fields(path="")),
        ("an empty :method", fields(method="")),
        ("a :path that does not begin with /", fields(path="x")),
        ("a :path of * without OPTIONS", fields(path="*")),
        ("an :authority with a user", fields(authority="user@localhost")),
        ("an :authority that is no host", fields(authority="local host")),
        ("a host that differs from :authority", fields("/x", "GET", ("host", "other.test"))),
        ("neither :authority nor host", fields(authority=None))):
    malformed("rfc9113-8.3.1", "%s is refused" % what, pairs)
served("rfc9113-8.3.1", "host may stand in for :authority",
       fields("/x", "GET", ("host", "localhost"), authority=None))
served("rfc9113-8.3.1", "a host that is :authority is taken",
       fields("/x", "GET", ("host", "localhost")))
served("rfc9113-8.3.1", "OPTIONS may have a :path of *", fields("*", "OPTIONS"))
for what, pairs in (
        ("a :path", fields("/x", "CONNECT", scheme=None)),
        ("a :scheme", fields(None, "CONNECT")),
        ("no :authority", fields(None, "CONNECT", scheme=None, authority=None))):
    malformed("rfc9113-8.5", "CONNECT with %s is refused" % what, pairs)

# ---- RFC 8441: extended CONNECT

SOCKET = [("sec-websocket-version", "13"), ("origin", "http://localhost")]


def connect(path="/ws", protocol="websocket", **pseudo):
    return fields(path, "CONNECT", *SOCKET, protocol=protocol, **pseudo)


@case("rfc8441-3", "the setting says that WebSockets can be opened")
def _(c):
    if c.server_settings.get(ENABLE_CONNECT_PROTOCOL) != 1:
        raise Failure("it does not")


refuses("rfc8441-3", "ENABLE_CONNECT_PROTOCOL of 2 is refused", [PROTOCOL_ERROR],
        settings((ENABLE_CONNECT_PROTOCOL, 2)))


@case("rfc8441-5", "a WebSocket is opened with 200, echoes and closes")
def _(c):
    c.request(1, connect(), end=False)
    got = c.skip_to(lambda got: got[0] == HEADERS, "the answer's head")
    pairs = dict(c.decoder.decode(got[3]))
    if pairs[":status"] != "200" or got[1] & END_STREAM:
        raise Failure("answered %s" % pairs)
    if {"connection", "upgrade", "sec-websocket-accept"} & set(pairs):
        raise Failure("fields of HTTP/1.1: %s" % pairs)
    c.send(frame(DATA, 0, 1, b"\x82\x84\0\0\0\0echo"))
    got = c.skip_to(lambda got: got[0] == DATA and got[3], "the echo")
    if got[3] != b"\x82\x04echo":
        raise Failure("%r came back" % got[3])
    c.send(frame(DATA, END_STREAM, 1, b"\x88\x82\0\0\0\0\x03\xe8"))
    c.skip_to(lambda got: got[0] == DATA and got[1] & END_STREAM, "the end")
    c.alive()


@case("rfc8441-4", "a protocol that is not known is refused")
def _(c):
    c.request(1, connect(protocol="carrier-pigeon"), end=False)
    got = c.skip_to(lambda got: got[0] == HEADERS, "the answer's head")
    status = dict(c.decoder.decode(got[3]))[":status"]
    if status != "501":
        raise Failure("answered %s" % status)


malformed("rfc8441-4", ":protocol without CONNECT is refused", fields("/x", protocol="websocket"))
malformed("rfc8441-4", ":protocol without :path is refused", connect(path=None), end=False)
malformed("rfc8441-4", ":protocol without :scheme is refused", connect(scheme=None), end=False)

# ---- RFC 7541: HPACK

START = b"\x82\x86\x84\x41\x09localhost"
for section, what, block in (
        ("2.3.3", "an index beyond both tables", START + b"\xff\x80\x01"),
        ("4.2", "a table larger than allowed", b"\x3f\xe2\x1f" + START),
        ("4.2", "a change of the table's size after a field", START + b"\x20"),
        ("5.1", "an integer of too many bytes", START + b"\xff" + b"\x80" * 20 + b"\x01"),
        ("5.1", "an integer that overflows", START + b"\x40\x7f\xff\xff\xff\xff\xff\xff\x0f"),
        ("5.2", "a string longer than the block", START + b"\x40\x7fx"),
        ("5.2", "Huffman padding of 8 bits", START + b"\x40\x01x\x82\x1f\xff"),
        ("5.2", "Huffman padding of zeroes", START + b"\x40\x01x\x81\x18"),
        ("5.2", "the end of string within one", START + b"\x40\x01x\x84\xff\xff\xff\xff"),
        ("6.1", "index 0", START + b"\x80"),
        ("6.2.1", "a literal of an unknown name's index", START + b"\x7f\x80\x01\x01x")):
    refuses("rfc7541-" + section, "%s is refused" % what, [COMPRESSION_ERROR],
            frame(HEADERS, 0x5, 1, block))

for section, what, block in (
        ("5.1", "an integer may have leading zeroes", START + b"\x40\x01x\x7f\x80\x00" + b"y" * 127),
        ("5.2", "strings may be Huffman-coded", b"\x82\x86\x84\x41\x86\xa0\xe4\x1d\x13\x9d\x09"),
        ("6.2.2", "a literal may be left out of the table", START + b"\x00\x01x\x01y"),
        ("6.2.3", "a literal may never be indexed", START + b"\x10\x01x\x01y"),
        ("6.3", "the table may be emptied and made large again", b"\x20\x3f\xe1\x1f" + START)):
    @case("rfc7541-" + section, what)
    def _(c, block=block):
        c.send(frame(HEADERS, 0x5, 1, block))
        c.answer()


@case("rfc7541-2.3.2", "fields of earlier requests are found in the table")
def _(c):
    c.send(frame(HEADERS, 0x5, 1, START + b"\x40\x07content\x05value"))
    c.answer()
    # The newest entry, 62, is `content: value`; 63 the authority.
    c.send(frame(HEADERS, 0x5, 3, b"\x82\x86\x84\xbf\xbe"))
    c.answer(3)


@case("rfc7541-4.3", "a table made smaller forgets")
def _(c):
    c.send(frame(HEADERS, 0x5, 1, START))
    c.answer()
    c.send(frame(HEADERS, 0x5, 3, b"\x20\x82\x86\x84\xbe"))
    c.connection_error(COMPRESSION_ERROR)


@case("rfc7541-4.2", "the server keeps to a table of size 0")
def _(c):
    c.send(settings((HEADER_TABLE_SIZE, 0)))
    c.skip_to(lambda got: got[0] == SETTINGS and got[1] & ACK, "an acknowledgement")
    c.decoder.max_allowed_table_size = 0
    for stream in (1, 3, 5):
        c.request(stream)
        c.answer(stream)
    if len(c.decoder.header_table.dynamic_entries):
        raise Failure("it used the table")


# ---- running them

def attempt(address, run, greet):
    client = Client(address)
    try:
        if greet:
            client.greet()
        run(client)
        return None
    except Failure as failure:
        return str(failure)
    except Exception as error:
        return "%s: %s" % (type(error).__name__, error)
    finally:
        client.close()


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    part = sys.argv[2] if len(sys.argv) > 2 else ""
    chosen = [case for case in CASES if part in case[0]]
    assert len({case[0] for case in CASES}) == len(CASES), "two cases of one name"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(attempt, (host, int(port)), run, greet) for _, run, greet in chosen]
        for (title, _, _), run in zip(chosen, runs):
            why = run.result()
            print("PASS %s" % title if why is None else "FAIL %s: %s" % (title, why), flush=True)


if __name__ == "__main__":
    main()
