//! The streams that are open on the wire of one connection. The wire alone has them.

/// For how many open streams room is kept while there are none.
const FEW: usize = 64;

#[derive(Debug)]
pub(crate) struct Open {
    /// In the order in which they were opened, which is that of their numbers.
    streams: Vec<Opened>,
    newest: u32,
    /// What the last GOAWAY said: streams beyond it are not served.
    last: u32,
}

/// A stream that is open.
#[derive(Clone, Copy, Debug)]
struct Opened {
    number: u32,
    /// The client sends nothing more on it.
    half_closed: bool,
}

impl Open {
    /// Of a connection whose last stream so far had that number.
    pub(crate) fn after(newest: u32) -> Self {
        Self {
            streams: Vec::new(),
            newest,
            last: u32::MAX,
        }
    }

    /// The client sent HEADERS on that stream; whether they opened it.
    pub(crate) fn headers(&mut self, stream: u32, ends_stream: bool) -> bool {
        // Trailers come on streams that were opened before.
        if stream <= self.newest || stream > self.last {
            if ends_stream {
                self.half_close(stream);
            }
            return false;
        }
        self.newest = stream;
        self.streams.push(Opened {
            number: stream,
            half_closed: ends_stream,
        });
        true
    }

    /// The client sends nothing more on it.
    pub(crate) fn half_close(&mut self, stream: u32) {
        if let Ok(place) = self.place(stream) {
            self.streams[place].half_closed = true;
        }
    }

    /// Whether the client has ended a stream that we have not ended.
    pub(crate) fn is_half_closed(&self, stream: u32) -> bool {
        (self.place(stream)).is_ok_and(|place| self.streams[place].half_closed)
    }

    /// It is over; whether it was the last that was open.
    pub(crate) fn close(&mut self, stream: u32) -> bool {
        let Ok(place) = self.place(stream) else {
            return false;
        };
        self.streams.remove(place);
        let was_last = self.streams.is_empty();
        if was_last && self.streams.capacity() > FEW {
            self.streams = Vec::new();
        }
        was_last
    }

    /// Streams beyond `last` are not served; whether all that were open are beyond it.
    pub(crate) fn go_away(&mut self, last: u32) -> bool {
        self.last = last;
        let before = self.streams.len();
        self.streams.retain(|stream| stream.number <= last);
        before > 0 && self.streams.is_empty()
    }

    fn place(&self, stream: u32) -> Result<usize, usize> {
        // Most often they end in the order in which they began.
        match self.streams.first() {
            Some(first) if first.number == stream => Ok(0),
            _ => self
                .streams
                .binary_search_by_key(&stream, |stream| stream.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Open;

    #[test]
    fn streams_open_in_order_and_close_in_any() {
        let mut open = Open::after(3);
        assert!(!open.headers(3, true) && !open.close(3));
        assert!(open.headers(5, false) && open.headers(7, true) && open.headers(9, false));
        assert!(!open.is_half_closed(5) && open.is_half_closed(7));
        // Trailers.
        assert!(!open.headers(5, true) && open.is_half_closed(5));
        open.half_close(9);
        assert!(open.is_half_closed(9));
        assert!(!open.close(7) && !open.close(7) && !open.is_half_closed(7));
        assert!(!open.close(5) && open.close(9) && !open.close(9));
    }

    #[test]
    fn those_beyond_a_goaway_are_not_served() {
        let mut open = Open::after(0);
        assert!(open.headers(1, true) && open.headers(3, true));
        assert!(!open.go_away(1) && !open.is_half_closed(3));
        assert!(!open.headers(5, true));
        assert!(open.go_away(0));
        assert!(!open.go_away(0));
    }
}
