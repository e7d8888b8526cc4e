//! Decimals as text, exactly: no digit passes through a floating-point number on its way in or out.
//!
//! A decimal of a column `decimal(p, s)` is an `i128` that counts units of 10^-s and has at most p digits. Text that names a number
//! which the column cannot hold exactly is refused, never rounded; zeros at the end of a fraction don't count.

/// Why a text is not a decimal of a column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not of the form `-12.5e3`.
    #[error("not a decimal number")]
    Syntax,
    /// The number has more digits after the point than the scale.
    #[error("too many digits after the decimal point")]
    Fraction,
    /// The number has more digits before the point than precision − scale.
    #[error("too many digits before the decimal point")]
    Overflow,
}

/// Parses a decimal number (an optional sign, digits, an optional fraction, an optional exponent) as units of
/// 10^-`scale` with at most `precision` (≤ 38) digits.
pub fn parse(text: &str, precision: u8, scale: i8) -> Result<i128, DecimalError> {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], parse_exponent(&unsigned[at + 1..])?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits_only(whole) || !digits_only(fraction) {
        return Err(DecimalError::Syntax);
    }

    // The number is 0.d₁d₂…dₙ × 10^point, where neither d₁ nor dₙ is zero.
    let digits = || whole.bytes().chain(fraction.bytes());
    let length = whole.len() + fraction.len();
    let leading = digits().take_while(|digit| *digit == b'0').count();
    if leading == length {
        return Ok(0);
    }
    let trailing = digits().rev().take_while(|digit| *digit == b'0').count();
    let count = (length - leading - trailing) as i64;
    let point = (whole.len() as i64 - leading as i64).saturating_add(exponent);
    let (precision, scale) = (i64::from(precision.min(38)), i64::from(scale));
    if point > precision - scale {
        return Err(DecimalError::Overflow);
    }
    let padding = scale + point - count;
    if padding < 0 {
        return Err(DecimalError::Fraction);
    }
    // count + padding = point + scale ≤ precision ≤ 38 digits: within an i128.
    let mut value = 0i128;
    for digit in digits().skip(leading).take(count as usize) {
        value = value * 10 + i128::from(digit - b'0');
    }
    value *= 10i128.pow(padding as u32);
    Ok(if negative { -value } else { value })
}

/// An exponent; beyond a million it saturates, which no column can tell from the real one.
fn parse_exponent(text: &str) -> Result<i64, DecimalError> {
    const LIMIT: i64 = 1_000_000_000;
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::Syntax);
    }
    let magnitude =
        digits.bytes().fold(0i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(LIMIT));
    Ok(sign * magnitude)
}

/// Appends units of 10^-`scale` with all digits of the scale: `1230` of scale 2 is `12.30`.
pub fn write(value: i128, scale: i8, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    if value < 0 {
        out.push(b'-');
    }
    if scale <= 0 {
        out.extend_from_slice(digits);
        if value != 0 {
            out.extend(std::iter::repeat_n(b'0', scale.unsigned_abs() as usize));
        }
        return;
    }
    let scale = scale as usize;
    if digits.len() > scale {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        out.extend_from_slice(whole);
        out.push(b'.');
        out.extend_from_slice(fraction);
    } else {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', scale - digits.len()));
        out.extend_from_slice(digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_exactly_or_refuses() {
        for (text, precision, scale, expected) in [
            ("0.1", 12, 2, Ok(10)),
            ("-0", 12, 2, Ok(0)),
            ("0e999999999999999999999", 12, 2, Ok(0)),
            ("12345678901234567890.12", 22, 2, Ok(1_234_567_890_123_456_789_012)),
            ("1.5e3", 12, 2, Ok(150_000)),
            ("1500E-3", 12, 2, Ok(150)),
            ("1.230000000000000000000000000000000000000000000", 12, 2, Ok(123)),
            ("000000000000000000000000000000000000000000000000001", 12, 2, Ok(100)),
            ("99999999999999999999999999999999999999", 38, 0, Ok(10i128.pow(38) - 1)),
            ("1e38", 38, 0, Err(DecimalError::Overflow)),
            ("9999999999.99", 12, 2, Ok(999_999_999_999)),
            ("10000000000", 12, 2, Err(DecimalError::Overflow)),
            ("1e99999999999999999999", 12, 2, Err(DecimalError::Overflow)),
            ("0.001", 12, 2, Err(DecimalError::Fraction)),
            ("1e-99999999999999999999", 12, 2, Err(DecimalError::Fraction)),
            ("", 12, 2, Err(DecimalError::Syntax)),
            ("-", 12, 2, Err(DecimalError::Syntax)),
            ("+1", 12, 2, Err(DecimalError::Syntax)),
            ("1.", 12, 2, Err(DecimalError::Syntax)),
            (".5", 12, 2, Err(DecimalError::Syntax)),
            ("1e", 12, 2, Err(DecimalError::Syntax)),
            ("1e1.5", 12, 2, Err(DecimalError::Syntax)),
            ("1 ", 12, 2, Err(DecimalError::Syntax)),
            ("NaN", 12, 2, Err(DecimalError::Syntax)),
            ("é", 12, 2, Err(DecimalError::Syntax)),
        ] {
            assert_eq!(parse(text, precision, scale), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_parses_to_itself(value in -10i128.pow(38) + 1..10i128.pow(38), scale in 0i8..=38) {
            let mut out = vec![];
            write(value, scale, &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(parse(&text, 38, scale), Ok(value), "{}", text);
            prop_assert!(text.parse::<serde_json::Number>().is_ok(), "{} is no JSON number", text);
        }

        #[test]
        fn hostile_text_never_panics(text in "[-+0-9.eE]{0,60}", precision in 0u8..=40, scale in -5i8..=40) {
            if let Ok(value) = parse(&text, precision, scale) {
                prop_assert!(value.unsigned_abs() < 10u128.pow(u32::from(precision.min(38))));
            }
        }
    }
}
