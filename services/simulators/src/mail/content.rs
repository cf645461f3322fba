//! The content of a mail as it comes in after DATA: where it ends, and the dots the client added.

/// Decodes the dot transparency of RFC 5321 section 4.5.2, byte by byte, so that it does not matter how the content is
/// cut into reads. Only CRLF `.` CRLF ends a mail: taking a bare LF for a line break is how mails are smuggled inside
/// mails.
pub(super) struct Content {
    state: State,
    bytes: Vec<u8>,
    limit: usize,
    size: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    /// A dot at the start of a line: the end, or one the client added.
    Dot,
    DotCr,
    Inside,
    Cr,
    End,
}

impl Content {
    pub(super) fn new(limit: usize) -> Self {
        Self { state: State::LineStart, bytes: Vec::new(), limit, size: 0 }
    }

    /// Takes what was read and returns how much of it belongs to this mail.
    pub(super) fn take(&mut self, read: &[u8]) -> usize {
        for (position, byte) in read.iter().enumerate() {
            self.step(*byte);
            if self.is_complete() {
                return position + 1;
            }
        }
        read.len()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// The mail, unless it was larger than the limit.
    pub(super) fn into_bytes(self) -> Option<Vec<u8>> {
        (self.size <= self.limit).then_some(self.bytes)
    }

    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::LineStart, b'.') => State::Dot,
            (State::Dot, b'\r') => State::DotCr,
            (State::DotCr, b'\n') => State::End,
            (State::DotCr, byte) => {
                self.keep(b'\r');
                self.state = State::Cr;
                return self.step(byte);
            }
            (State::Cr, b'\n') => self.keep_then(byte, State::LineStart),
            (_, b'\r') => self.keep_then(byte, State::Cr),
            (_, byte) => self.keep_then(byte, State::Inside),
        };
    }

    fn keep_then(&mut self, byte: u8, next: State) -> State {
        self.keep(byte);
        next
    }

    /// Beyond the limit bytes are counted and no longer kept: the client is told at the end, as the protocol demands.
    fn keep(&mut self, byte: u8) {
        self.size += 1;
        if self.size <= self.limit {
            self.bytes.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Content;

    fn decode(stream: &[u8], piece: usize) -> (Vec<u8>, usize) {
        let mut content = Content::new(1_000);
        let mut used = 0;
        for piece in stream.chunks(piece) {
            used += content.take(piece);
            if content.is_complete() {
                break;
            }
        }
        assert!(content.is_complete(), "no end found");
        (content.into_bytes().unwrap(), used)
    }

    #[test]
    fn added_dots_are_removed_however_the_stream_is_cut() {
        let stream = b"..\r\n...two\r\n.one\r\na.b\r\n\r\n.\r\nQUIT\r\n";
        for piece in 1..=stream.len() {
            let (mail, used) = decode(stream, piece);
            assert_eq!(mail, b".\r\n..two\r\none\r\na.b\r\n\r\n", "read {piece} bytes at a time");
            assert_eq!(&stream[used..], b"QUIT\r\n");
        }
    }

    #[test]
    fn a_bare_line_feed_around_the_dot_does_not_end_the_mail() {
        let stream = b"a\n.\nb\n.\r\nc\r\n.\nd\r\n.\r\r\n.\r\n";
        let (mail, used) = decode(stream, 3);
        assert_eq!(used, stream.len());
        assert_eq!(mail, b"a\n.\nb\n.\r\nc\r\n\nd\r\n\r\r\n");
    }

    #[test]
    fn an_empty_mail_is_a_mail() {
        assert_eq!(decode(b".\r\n", 1), (Vec::new(), 3));
    }

    #[test]
    fn a_mail_over_the_limit_is_read_to_its_end_and_not_kept() {
        let mut content = Content::new(4);
        assert_eq!(content.take(b"12345\r\n.\r\nNOOP"), 10);
        assert!(content.is_complete());
        assert_eq!(content.into_bytes(), None);
    }
}
