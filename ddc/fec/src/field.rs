//! GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11D), whose root x (the byte 2) generates the field.
//!
//! Addition is XOR. Products here are those of single coefficients, by logarithm tables made at compile time;
//! whole symbols are multiplied in `kernel`.

/// The polynomial without its x^8: what a shift out of the top bit puts back.
pub(crate) const REDUCTION: u8 = 0x1D;

/// Elements without zero; logarithms are taken modulo this.
pub(crate) const ORDER: u32 = 255;

/// `LOG[x]` with 2^LOG[x] = x; `LOG[0]` has no meaning and is never asked for.
static LOG: [u8; 256] = TABLES.0;
/// `EXP[n]` = 2^n.
static EXP: [u8; 255] = TABLES.1;
/// Both, for code that runs at compile time.
const TABLES: ([u8; 256], [u8; 255]) = tables();

const fn tables() -> ([u8; 256], [u8; 255]) {
    let mut log = [0; 256];
    let mut exp = [0; 255];
    let mut value = 1;
    let mut power = 0;
    while power < 255 {
        exp[power] = value;
        log[value as usize] = power as u8;
        value = double(value);
        power += 1;
    }
    (log, exp)
}

/// x · 2. Without a branch, so that a loop over bytes becomes vector instructions.
#[inline]
pub(crate) const fn double(x: u8) -> u8 {
    (x << 1) ^ (((x as i8) >> 7) as u8 & REDUCTION)
}

/// A non-zero element as a power of 2: products are sums of these, quotients differences.
///
/// Sums are not reduced until [`Log::value`]; one holds more than 2^23 factors, and the largest product here has 500.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log(u32);

impl Log {
    /// The element 1.
    pub(crate) const ONE: Self = Self(0);

    /// The logarithm of `x`, which must not be 0: callers pass differences of distinct points.
    pub(crate) fn of(x: u8) -> Self {
        debug_assert_ne!(x, 0, "zero has no logarithm");
        Self(LOG[x as usize] as u32)
    }

    pub(crate) fn times(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    pub(crate) fn over(self, other: Self) -> Self {
        Self(self.0 + ORDER - other.0 % ORDER)
    }

    pub(crate) fn value(self) -> u8 {
        EXP[(self.0 % ORDER) as usize]
    }
}

/// a / b for the compile-time matrix; `b` is not 0.
pub(crate) const fn divide(a: u8, b: u8) -> u8 {
    if a == 0 {
        return 0;
    }
    let power = TABLES.0[a as usize] as u32 + ORDER - TABLES.0[b as usize] as u32;
    TABLES.1[(power % ORDER) as usize]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Multiplication as in the textbook: multiply the polynomials, then divide by 0x11D and keep the remainder.
    pub(crate) fn textbook(a: u8, b: u8) -> u8 {
        let mut product = 0_u32;
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= (a as u32) << bit;
            }
        }
        for bit in (8..15).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x11D << (bit - 8);
            }
        }
        product as u8
    }

    #[test]
    fn two_generates_every_element_but_zero() {
        let mut seen = [false; 256];
        for value in EXP {
            assert!(!std::mem::replace(&mut seen[value as usize], true), "{value} came twice");
        }
        assert!(!seen[0] && seen[1..].iter().all(|seen| *seen));
    }

    #[test]
    fn products_quotients_and_doubles_agree_with_the_textbook() {
        for a in 0..=255 {
            assert_eq!(double(a), textbook(a, 2));
            for b in 1..=255 {
                if a != 0 {
                    assert_eq!(Log::of(a).times(Log::of(b)).value(), textbook(a, b));
                    assert_eq!(textbook(Log::of(a).over(Log::of(b)).value(), b), a);
                }
                assert_eq!(textbook(divide(a, b), b), a);
            }
        }
    }

    #[test]
    fn field_axioms_hold() {
        let mut table = vec![[0_u8; 256]; 256];
        for a in 0..=255_u8 {
            for b in 0..=255_u8 {
                table[a as usize][b as usize] = textbook(a, b);
            }
        }
        let mul = |a: u8, b: u8| table[a as usize][b as usize];
        for a in 0..=255_u8 {
            assert_eq!((mul(a, 0), mul(a, 1)), (0, a));
            assert_eq!((1..=255).filter(|b| mul(a, *b) == 1).count(), usize::from(a != 0), "one inverse");
            for b in 0..=255_u8 {
                assert_eq!(mul(a, b), mul(b, a));
                assert_eq!(mul(a, b) == 0, a == 0 || b == 0);
                for c in 0..=255_u8 {
                    // One comparison for both laws keeps 2^24 rounds quick in a debug build.
                    let associative = mul(mul(a, b), c) == mul(a, mul(b, c));
                    let distributive = mul(a, b ^ c) == mul(a, b) ^ mul(a, c);
                    assert!(associative && distributive, "fails for {a}, {b}, {c}");
                }
            }
        }
    }

    #[test]
    fn long_products_do_not_overflow() {
        let long = (0..500).fold(Log::ONE, |product, _| product.times(Log::of(0x8E)));
        // 0x8E is 1/2, so 500 of them are 2^-500 = 2^10.
        assert_eq!(long.value(), EXP[10]);
        assert_eq!(Log::ONE.over(long).value(), EXP[245]);
    }
}
