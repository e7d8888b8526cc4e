//! Sums of doubles, compensated.
//!
//! A sum is a pair: the rounded sum and the rounding errors added up apart (Neumaier, "Rundungsfehleranalyse einiger Verfahren
//! zur Summation endlicher Summen", ZAMM 54, 1974; the error of an addition by Knuth's TwoSum). That leaves an error of about
//! 2⁻¹⁰⁶ of the sum of absolute values, so the rounded result depends on the order of additions only where it lies
//! extremely close to the middle between two doubles, or where values cancel over more than fifty bits. An infinity or
//! NaN, also one reached by overflow on the way, stays.

use crate::state::StateError;
use crate::state::bytes::take_array;
use crate::state::key::canonical;

/// A compensated sum, or none yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoubleSum {
    high: f64,
    /// NaN stands for "no value"; a low part is never NaN otherwise.
    low: f64,
}

impl DoubleSum {
    pub(super) const NONE: DoubleSum = DoubleSum { high: 0.0, low: f64::NAN };
    pub(super) const ZERO: DoubleSum = DoubleSum { high: 0.0, low: 0.0 };

    #[inline]
    pub(super) fn is_none(self) -> bool {
        self.low.is_nan()
    }

    #[inline]
    pub(super) fn from_value(value: f64) -> DoubleSum {
        DoubleSum { high: value, low: 0.0 }
    }

    /// The square of a value, exactly, unless it overflows.
    #[inline]
    pub(super) fn square(value: f64) -> DoubleSum {
        let high = value * value;
        let low = value.mul_add(value, -high);
        DoubleSum { high, low: if low.is_finite() { low } else { 0.0 } }
    }

    /// `self − sum² / count`, rounded once at the end.
    pub(super) fn less_square_of(self, sum: DoubleSum, count: f64) -> f64 {
        let square = sum.high * sum.high;
        let error = sum.high.mul_add(sum.high, -square) + 2.0 * sum.high * sum.low;
        let quotient = square / count;
        let rest = ((-quotient).mul_add(count, square) + error) / count;
        if !quotient.is_finite() {
            return self.high - quotient;
        }
        self.plus(DoubleSum { high: -quotient, low: if rest.is_finite() { -rest } else { 0.0 } }).value()
    }

    /// The sum of two that hold a value.
    #[inline]
    pub(super) fn plus(self, other: DoubleSum) -> DoubleSum {
        let sum = self.high + other.high;
        if !sum.is_finite() {
            return DoubleSum { high: sum, low: 0.0 };
        }
        let part = sum - self.high;
        let error = (self.high - (sum - part)) + (other.high - part);
        let low = self.low + other.low + error;
        // TwoSum's intermediate results may overflow where the sum does not.
        DoubleSum { high: sum, low: if low.is_finite() { low } else { 0.0 } }
    }

    /// The rounded sum, in the one form of a double.
    pub(super) fn value(self) -> f64 {
        canonical(self.high + self.low)
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.high.to_le_bytes());
        out.extend_from_slice(&self.low.to_le_bytes());
    }

    pub(super) fn take(bytes: &mut &[u8]) -> Result<DoubleSum, StateError> {
        let high = f64::from_le_bytes(take_array(bytes)?);
        let low = f64::from_le_bytes(take_array(bytes)?);
        if !low.is_finite() {
            return Err(StateError::damaged("the low part of a sum of doubles is not finite"));
        }
        Ok(DoubleSum { high, low })
    }
}
