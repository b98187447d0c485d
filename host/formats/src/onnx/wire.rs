//! The encoding of Protocol Buffers, field by field and without copies.

/// One field's value, as it lies on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed32,
    Fixed64,
    Bytes(&'a [u8]),
}

/// Why there is no next field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No encoding of a field.
    Malformed,
    /// Field `number` would end behind the input, at byte `needs`.
    Cut { number: u32, needs: u64 },
}

/// The fields of one message, in their order.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    pub(super) message: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) const fn of(message: &'a [u8]) -> Self {
        Self { message, rest: message }
    }

    /// The number of the next field and its value; `None` at the end of the message.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        // A number of more than 29 bits does not exist.
        let tag = self.varint().and_then(|tag| u32::try_from(tag).ok()).ok_or(Fault::Malformed)?;
        let number = tag >> 3;
        let value = match tag & 7 {
            0 => self.varint().map(Value::Varint).ok_or(Fault::Malformed)?,
            1 => self.take(number, 8).map(|_| Value::Fixed64)?,
            2 => {
                let length = self.varint().ok_or(Fault::Malformed)?;
                Value::Bytes(self.take(number, length)?)
            }
            5 => self.take(number, 4).map(|_| Value::Fixed32)?,
            // Groups (3 and 4) are of 2008, and ONNX never had any.
            _ => return Err(Fault::Malformed),
        };
        Ok(Some((number, value)))
    }

    fn take(&mut self, number: u32, length: u64) -> Result<&'a [u8], Fault> {
        let parts = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let at = (self.message.len() - self.rest.len()) as u64;
        let (body, rest) = parts.ok_or(Fault::Cut { number, needs: at.saturating_add(length) })?;
        self.rest = rest;
        Ok(body)
    }

    fn varint(&mut self) -> Option<u64> {
        // A 64-bit number takes at most ten bytes of seven bits.
        let length = self.rest.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
        let (number, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(number.iter().rev().fold(0, |n, byte| n << 7 | u64::from(byte & 0x7f)))
    }
}

/// The fields of `message` that are bytes and have this number, as far as the message can be read.
pub(super) fn bodies(message: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    let mut fields = Fields::of(message);
    std::iter::from_fn(move || fields.next().ok().flatten()).filter_map(move |field| match field {
        (number, Value::Bytes(body)) if number == wanted => Some(body),
        _ => None,
    })
}

/// The last value of a text field.
pub(super) fn text(message: &[u8], wanted: u32) -> &[u8] {
    bodies(message, wanted).last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Fault> {
        let mut fields = Fields::of(message);
        let mut all = Vec::new();
        while let Some(field) = fields.next()? {
            all.push(field);
        }
        Ok(all)
    }

    #[test]
    fn each_wire_type_is_read() {
        let message = [&[0x08, 0x96, 0x01][..], b"\x12\x02hi", &[0x1d, 1, 2, 3, 4], &[0x21, 1, 2, 3, 4, 5, 6, 7, 8]];
        let expected = [(1, Value::Varint(150)), (2, Value::Bytes(b"hi")), (3, Value::Fixed32), (4, Value::Fixed64)];
        assert_eq!(fields(&message.concat()).unwrap(), expected);
    }

    #[test]
    fn what_is_no_field_is_an_error() {
        for bad in [&[0x08][..], &[0x0b], &[0x0c], &[0x0e], &[0x0f], &[0x80; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 1, 0]]
        {
            assert_eq!(fields(bad), Err(Fault::Malformed), "{bad:x?}");
        }
        assert_eq!(fields(b"\x12\x05hi"), Err(Fault::Cut { number: 2, needs: 7 }));
        assert_eq!(fields(&[0x1d, 0]), Err(Fault::Cut { number: 3, needs: 5 }));
        let endless = [&[0x12][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(fields(&endless), Err(Fault::Cut { number: 2, needs: u64::MAX }));
    }

    #[test]
    fn the_last_text_counts_as_it_does_for_protobuf() {
        assert_eq!(text(b"\x0a\x01a\x12\x01x\x0a\x01b", 1), b"b");
        assert_eq!(text(b"\x0a\x01a\x0a\x09", 1), b"a");
    }
}
