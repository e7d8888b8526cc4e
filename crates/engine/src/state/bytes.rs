//! The few primitives that all durable formats of state share: unsigned LEB128 integers and careful slicing.

use super::StateError;

/// Appends `value` as unsigned LEB128: seven bits a byte, least significant first, the high bit set on all but the last.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes an unsigned LEB128 integer; only the shortest form is valid.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, StateError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take_array(bytes)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            if byte == 0 && shift > 0 {
                break;
            }
            return Ok(value);
        }
    }
    Err(StateError::damaged("a variable-length integer is malformed"))
}

/// Takes the next `length` bytes.
pub(super) fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], StateError> {
    let split = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
    let (head, rest) = split.ok_or_else(|| {
        StateError::damaged(format!("{length} bytes expected where only {} are left", bytes.len()))
    })?;
    *bytes = rest;
    Ok(head)
}

/// Takes the next `N` bytes.
pub(super) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], StateError> {
    match bytes.split_first_chunk() {
        Some((head, rest)) => {
            *bytes = rest;
            Ok(*head)
        }
        None => Err(StateError::damaged(format!("{N} bytes expected where only {} are left", bytes.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn varints_have_one_form() {
        let mut overlong: &[u8] = &[0x80, 0x00];
        assert!(take_varint(&mut overlong).is_err());
        let mut too_large: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert!(take_varint(&mut too_large).is_err());
        let mut endless: &[u8] = &[0xff; 12];
        assert!(take_varint(&mut endless).is_err());
    }

    proptest! {
        #[test]
        fn varints_come_back(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut out = vec![];
            put_varint(&mut out, value);
            let mut bytes = &out[..];
            prop_assert_eq!(take_varint(&mut bytes), Ok(value));
            prop_assert!(bytes.is_empty());
        }
    }
}
