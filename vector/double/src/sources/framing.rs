//! Messages out of a stream: octet counting (`123 <134>1 …`) and newlines, also mixed, as Vector's decoder takes them.
//!
//! What is longer than the bound is thrown away up to its end; memory is bounded by it.

/// A decoder of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    max_length: usize,
    skip: Skip,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Skip {
    Nothing,
    Bytes(usize),
    ToNewline,
}

/// What came out.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    Message(Vec<u8>),
    Error(&'static str),
}

const TOO_LONG: &str = "Frame length limit exceeded";

impl Frames {
    pub(super) fn new(max_length: usize) -> Self {
        Self { buffer: Vec::new(), max_length, skip: Skip::Nothing }
    }

    /// Adds bytes; returns what is complete now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.buffer.extend_from_slice(bytes);
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The stream is over: a last line needs no newline.
    pub(super) fn finish(mut self) -> Option<Frame> {
        let counted = self.buffer.first().is_some_and(u8::is_ascii_digit);
        let rest = std::mem::take(&mut self.buffer);
        (!rest.is_empty() && !counted && self.skip == Skip::Nothing).then_some(Frame::Message(rest))
    }

    fn next(&mut self) -> Option<Frame> {
        match self.skip {
            Skip::Bytes(count) => {
                let now = count.min(self.buffer.len());
                self.buffer.drain(..now);
                self.skip = if now == count { Skip::Nothing } else { Skip::Bytes(count - now) };
                return (now == count).then_some(Frame::Error(TOO_LONG));
            }
            Skip::ToNewline => {
                let end = self.buffer.iter().position(|b| *b == b'\n');
                self.buffer.drain(..end.map_or(self.buffer.len(), |at| at + 1));
                end?;
                self.skip = Skip::Nothing;
                return Some(Frame::Error(TOO_LONG));
            }
            Skip::Nothing => {}
        }
        match self.buffer.first()? {
            b'1'..=b'9' => self.counted(),
            _ => self.line(),
        }
    }

    fn counted(&mut self) -> Option<Frame> {
        let Some(space) = self.buffer.iter().position(|b| *b == b' ') else {
            // No length is that long.
            if self.buffer.len() > self.max_length {
                self.skip = Skip::ToNewline;
                return self.next();
            }
            return None;
        };
        let length =
            std::str::from_utf8(&self.buffer[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(length) = length else {
            self.buffer.drain(..=space);
            return Some(Frame::Error("Unable to decode message len as number"));
        };
        if length > self.max_length {
            self.buffer.drain(..=space);
            self.skip = Skip::Bytes(length);
            return self.next();
        }
        let end = space + 1 + length;
        if self.buffer.len() < end {
            return None;
        }
        let message = self.buffer[space + 1..end].to_vec();
        self.buffer.drain(..end);
        Some(if std::str::from_utf8(&message).is_ok() {
            Frame::Message(message)
        } else {
            Frame::Error("Unable to decode message as UTF8")
        })
    }

    fn line(&mut self) -> Option<Frame> {
        match self.buffer.iter().position(|b| *b == b'\n') {
            Some(end) if end <= self.max_length => {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                Some(Frame::Message(line))
            }
            Some(end) => {
                self.buffer.drain(..=end);
                Some(Frame::Error(TOO_LONG))
            }
            None if self.buffer.len() > self.max_length => {
                self.skip = Skip::ToNewline;
                self.next()
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Frame {
        Frame::Message(text.into())
    }

    #[test]
    fn mixed_in_pieces_of_every_size() {
        let stream = b"5 <1> a<2> b\n7 <3> c\nd<4> e\r\n3 \xff\xff\xff4 <5>f";
        let whole = Frames::new(16).push(stream);
        assert_eq!(
            whole,
            [
                message("<1> a"),
                message("<2> b"),
                message("<3> c\nd"),
                message("<4> e"),
                Frame::Error("Unable to decode message as UTF8"),
                message("<5>f"),
            ]
        );
        for size in 1..stream.len() {
            let mut frames = Frames::new(16);
            let out: Vec<Frame> = stream.chunks(size).flat_map(|chunk| frames.push(chunk)).collect();
            assert_eq!(out, whole, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_too_long_is_skipped_and_takes_no_memory() {
        let mut frames = Frames::new(8);
        assert_eq!(frames.push(b"1000000 "), []);
        for _ in 0..999 {
            assert_eq!(frames.push(&[b'x'; 1000]), []);
            assert!(frames.buffer.len() <= 8);
        }
        assert_eq!(frames.push(&[b'x'; 1000]), [Frame::Error(TOO_LONG)]);
        assert_eq!(frames.push(b"<1>\n"), [message("<1>")]);
        for _ in 0..100 {
            assert_eq!(frames.push(&[b'y'; 1000]), []);
            assert!(frames.buffer.len() <= 8);
        }
        assert_eq!(frames.push(b"y\n<2>\n"), [Frame::Error(TOO_LONG), message("<2>")]);
        assert_eq!(
            frames.push(b"9x <3>\n"),
            [Frame::Error("Unable to decode message len as number"), message("<3>")]
        );
    }

    #[test]
    fn the_last_line_needs_no_newline() {
        let mut frames = Frames::new(8);
        assert_eq!(frames.push(b"<1>"), []);
        assert_eq!(frames.finish(), Some(message("<1>")));
        let mut frames = Frames::new(8);
        assert_eq!(frames.push(b"5 <1>"), []);
        assert_eq!(frames.finish(), None, "a counted message that is not complete is lost");
    }
}
