//! Sums without rounding and without overflow on the way, for integers and decimals.
//!
//! Integers and decimals of at most 19 digits add up in 128 bits, wider decimals in 256: each has room for more than 2⁶³
//! additions of the largest value, so the order of additions never matters; only the end result can be too large for its
//! type. The lowest value of each width stands for "no value yet", which no sum reaches.

use arrow::datatypes::i256;

use crate::state::StateError;
use crate::state::bytes::{take, take_array};

/// A wide two's complement integer.
pub(super) trait Exact: Copy + PartialEq + std::fmt::Debug + Send + 'static {
    /// Stands for "no value".
    const NONE: Self;
    /// Zero.
    const ZERO: Self;
    /// A value of the argument.
    fn from_value(value: i128) -> Self;
    /// The sum; stays at the bounds where bytes forged on disk would take it beyond (see the module).
    fn plus(self, other: Self) -> Self;
    /// All 256 bits.
    fn wide(self) -> i256;
    /// The inverse of [`wide`](Self::wide).
    fn narrow(wide: i256) -> Option<Self>;
}

impl Exact for i128 {
    const NONE: i128 = i128::MIN;
    const ZERO: i128 = 0;

    #[inline]
    fn from_value(value: i128) -> i128 {
        value
    }

    #[inline]
    fn plus(self, other: i128) -> i128 {
        self.saturating_add(other).max(-i128::MAX)
    }

    fn wide(self) -> i256 {
        i256::from_i128(self)
    }

    fn narrow(wide: i256) -> Option<i128> {
        wide.to_i128()
    }
}

impl Exact for i256 {
    const NONE: i256 = i256::MIN;
    const ZERO: i256 = i256::ZERO;

    #[inline]
    fn from_value(value: i128) -> i256 {
        i256::from_i128(value)
    }

    #[inline]
    fn plus(self, other: i256) -> i256 {
        let bound = if other.is_negative() { i256::MAX.wrapping_neg() } else { i256::MAX };
        self.checked_add(other).filter(|sum| *sum != i256::MIN).unwrap_or(bound)
    }

    fn wide(self) -> i256 {
        self
    }

    fn narrow(wide: i256) -> Option<i256> {
        Some(wide)
    }
}

/// Appends a length byte and as few bytes as hold the value.
pub(super) fn put<A: Exact>(value: A, out: &mut Vec<u8>) {
    let bytes = value.wide().to_le_bytes();
    let sign = if bytes[31] & 0x80 == 0 { 0x00 } else { 0xff };
    let mut length = 32;
    // A byte goes as long as the one below it still shows the sign.
    while length > 1 && bytes[length - 1] == sign && (bytes[length - 2] ^ sign) & 0x80 == 0 {
        length -= 1;
    }
    out.push(length as u8);
    out.extend_from_slice(&bytes[..length]);
}

/// Takes what [`put`] wrote; `None` for the length 0, which [`put`] never writes.
pub(super) fn take_value<A: Exact>(bytes: &mut &[u8]) -> Result<Option<A>, StateError> {
    let [length] = take_array(bytes)?;
    if length == 0 {
        return Ok(None);
    }
    if length > 32 {
        return Err(StateError::damaged(format!("a sum of {length} bytes")));
    }
    let stored = take(bytes, length.into())?;
    let sign = if stored[stored.len() - 1] & 0x80 == 0 { 0x00 } else { 0xff };
    let mut wide = [sign; 32];
    wide[..stored.len()].copy_from_slice(stored);
    A::narrow(i256::from_le_bytes(wide))
        .filter(|value| *value != A::NONE)
        .map(Some)
        .ok_or_else(|| StateError::damaged(format!("a sum of {length} bytes, wider than its type allows")))
}

/// The value as a decimal of `precision` digits, or `None`.
pub(super) fn to_decimal(value: i256, precision: u8) -> Option<i128> {
    let limit = 10i128.checked_pow(precision.into()).map_or(i128::MAX, |power| power - 1);
    value.to_i128().filter(|value| value.unsigned_abs() <= limit.unsigned_abs())
}

/// `numerator / denominator` (positive), rounded half away from zero; `None` if intermediate results don't fit 256 bits.
pub(super) fn divide_rounded(numerator: i256, denominator: u64) -> Option<i256> {
    let denominator = i256::from_i128(denominator.into());
    let quotient = numerator.checked_div(denominator)?;
    let remainder = numerator.checked_rem(denominator)?.checked_abs()?;
    if remainder.checked_add(remainder)? < denominator {
        return Some(quotient);
    }
    let step = if numerator.is_negative() { i256::MINUS_ONE } else { i256::ONE };
    quotient.checked_add(step)
}
