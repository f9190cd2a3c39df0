//! Numbers as their digits: compared and divided without losing any.

use std::cmp::Ordering;

/// Exponents beyond this are taken for it: nobody writes out what would tell them apart.
const EXPONENT_MAX: i64 = 1 << 60;
/// The most digits of a number that others are to be multiples of, without the zeros at its ends.
pub(super) const DIVISOR_DIGITS_MAX: usize = 18;

/// A number: its digits, of which neither the first nor the last is zero, times a power of ten. Zero has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    /// Of ten, for the last digit.
    exponent: i64,
}

impl Decimal {
    /// A number of a JSON text.
    pub(super) fn of(text: &str) -> Decimal {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, power) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).filter(u8::is_ascii_digit).collect();
        let mut exponent = exponent(power) - fraction.len() as i64;
        let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
        digits.truncate(digits.len() - zeros);
        exponent += zeros as i64;
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
        match digits.is_empty() {
            true => Decimal { negative: false, digits, exponent: 0 },
            false => Decimal { negative, digits, exponent },
        }
    }

    /// Whether a number of a JSON text has no fraction.
    pub(super) fn is_integer(text: &str) -> bool {
        !text.contains(['.', 'e', 'E']) || Decimal::of(text).exponent >= 0
    }

    /// Whether it is above zero.
    pub(super) fn is_positive(&self) -> bool {
        !self.negative && !self.digits.is_empty()
    }

    /// A whole number from zero up that is not too large for any count.
    pub(super) fn to_count(&self) -> Option<u64> {
        let zeros = usize::try_from(self.exponent).ok()?;
        if self.negative || self.digits.len() + zeros > 18 {
            return None;
        }
        let number = self.digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        Some(number * 10u64.pow(zeros as u32))
    }

    /// How many digits it has.
    pub(super) fn digits(&self) -> usize {
        self.digits.len()
    }

    /// Whether this is a multiple of a number above zero that has no more than [`DIVISOR_DIGITS_MAX`] digits.
    pub(super) fn is_multiple_of(&self, divisor: &Decimal) -> bool {
        if self.digits.is_empty() {
            return true;
        }
        // Its last digit is not zero: no multiple of a higher power of ten ends so.
        let Ok(zeros) = u64::try_from(self.exponent - divisor.exponent) else { return false };
        let modulus = divisor.digits.iter().fold(0u128, |number, digit| number * 10 + u128::from(digit - b'0'));
        let rest = self.digits.iter().fold(0u128, |rest, digit| (rest * 10 + u128::from(digit - b'0')) % modulus);
        (rest * power_of_ten(zeros, modulus)).is_multiple_of(modulus)
    }

    /// Appends a form that equal numbers share.
    pub(super) fn write_key(&self, out: &mut Vec<u8>) {
        out.push(if self.negative { b'-' } else { b'+' });
        out.extend_from_slice(&self.exponent.to_le_bytes());
        out.extend_from_slice(&(self.digits.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.digits);
    }
}

/// Ten to a power, by a modulus of no more than 18 digits.
fn power_of_ten(mut power: u64, modulus: u128) -> u128 {
    let (mut result, mut base) = (1 % modulus, 10 % modulus);
    while power > 0 {
        if power & 1 == 1 {
            result = result * base % modulus;
        }
        base = base * base % modulus;
        power >>= 1;
    }
    result
}

fn exponent(text: &str) -> i64 {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.trim_start_matches('+')),
    };
    let add = |number: i64, digit: u8| (number * 10 + i64::from(digit.wrapping_sub(b'0'))).min(EXPONENT_MAX / 16);
    let number = digits.bytes().fold(0, add);
    if negative { -number } else { number }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        let sign = |number: &Decimal| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let size = |number: &Decimal| number.digits.len() as i64 + number.exponent;
        let larger = || size(self).cmp(&size(other)).then_with(|| self.digits.cmp(&other.digits));
        sign(self).cmp(&sign(other)).then_with(|| match sign(self) {
            0 => Ordering::Equal,
            1 => larger(),
            _ => larger().reverse(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_their_digits_say() {
        let is = |a: &str, b: &str, expected: Ordering| {
            assert_eq!(Decimal::of(a).cmp(&Decimal::of(b)), expected, "{a} {b}");
            assert_eq!(Decimal::of(b).cmp(&Decimal::of(a)), expected.reverse(), "{b} {a}");
            assert_eq!(Decimal::of(a) == Decimal::of(b), expected == Ordering::Equal, "{a} {b}");
        };
        is("1", "1.0", Ordering::Equal);
        is("100", "1E+2", Ordering::Equal);
        is("-0", "0.000e9", Ordering::Equal);
        is("0.1", "1e-1", Ordering::Equal);
        is("9007199254740993", "9007199254740992", Ordering::Greater);
        is("12345678901234567890123", "12345678901234567890124", Ordering::Less);
        is("1e400", "1e399", Ordering::Greater);
        is("-1e400", "1e-400", Ordering::Less);
        is("-2", "-10", Ordering::Greater);
        is("0.15", "0.2", Ordering::Less);
        is("1e99999999999999999999", "1e9999999999999", Ordering::Greater);
        is("10", "9", Ordering::Greater);
        for (text, whole) in [("1.0", true), ("1e400", true), ("1.5", false), ("15e-1", false), ("-20e-1", true)] {
            assert_eq!(Decimal::is_integer(text), whole, "{text}");
        }
        for (text, count) in [("7", Some(7)), ("7.0", Some(7)), ("7e2", Some(700)), ("-1", None), ("1.5", None)] {
            assert_eq!(Decimal::of(text).to_count(), count, "{text}");
        }
        assert_eq!(Decimal::of("1e400").to_count(), None);
    }

    #[test]
    fn multiples_are_exact() {
        let check = |number: &str, divisor: &str, expected: bool| {
            assert_eq!(Decimal::of(number).is_multiple_of(&Decimal::of(divisor)), expected, "{number} {divisor}");
        };
        check("0.3", "0.1", true);
        check("0.07", "0.01", true);
        check("19.99", "0.01", true);
        check("19.999", "0.01", false);
        check("0.0075", "0.0001", true);
        check("0.00751", "0.0001", false);
        check("10", "4", false);
        check("12", "4", true);
        check("-12", "4", true);
        check("0", "7", true);
        check("1e400", "7", false);
        check("7e400", "7", true);
        check("1e308", "0.5", true);
        check("9007199254740993", "2", false);
        check("1e999999999999", "3", false);
        check("5", "10", false);
        check("50", "10", true);
    }
}
