//! The elements of tensors as they stand in a file: little-endian bytes.

use std::sync::LazyLock;

use half::{bf16, f16};

use crate::repr::{Elements, PyTorchDtype};

/// The type of an element of `N` bytes. The defaults suit a type that has no NaN, no tolerance and no ULP.
pub(crate) trait Element<const N: usize>: Copy {
    /// The narrowest integer that can count ulp, so that the compiler can count several elements at a time.
    type Ulp: Copy + Default + Ord + Into<u64>;

    fn read(bytes: [u8; N]) -> Self;

    /// Returns the shortest decimal that reads back as the same value; it is empty for a type without one.
    fn decimal(self) -> String;

    /// Returns |self - other| of two values that are not equal. It is infinite if the difference is no finite
    /// number, or if the type's values are not known.
    fn distance(self, other: Self) -> f64;

    fn is_nan(self) -> bool {
        false
    }

    /// Returns whether two values of other bits are the same: both are nan.
    fn is_same(self, other: Self) -> bool {
        self.is_nan() & other.is_nan()
    }

    /// Returns |self|, for a relative tolerance.
    fn magnitude(self) -> f64 {
        0.
    }

    /// Returns whether two values that are not equal are both zeros, and so differ in sign.
    fn are_zeros(self, _other: Self) -> bool {
        false
    }

    /// Returns the number of steps from one representable value to the next that lead to `other`. Both zeros
    /// count as one value.
    fn ulp_distance(self, _other: Self) -> Self::Ulp {
        Self::Ulp::default()
    }

    /// Returns the greatest finite magnitude of the elements.
    fn max_magnitude(_elements: &[[u8; N]]) -> f64 {
        0.
    }
}

macro_rules! float_element {
    ($float:ty, $bits:ty, $signed:ty) => {
        impl Element<{ size_of::<$float>() }> for $float {
            type Ulp = $bits;

            fn read(bytes: [u8; size_of::<$float>()]) -> Self {
                <$float>::from_bits(<$bits>::from_le_bytes(bytes))
            }

            fn decimal(self) -> String {
                format!("{self:?}")
            }

            fn distance(self, other: Self) -> f64 {
                // Two values that are not equal are infinitely far apart if one is nan or infinite.
                let abs = (f64::from(self) - f64::from(other)).abs();
                if abs < f64::INFINITY { abs } else { f64::INFINITY }
            }

            fn is_nan(self) -> bool {
                f64::from(self).is_nan()
            }

            fn magnitude(self) -> f64 {
                f64::from(self).abs()
            }

            fn are_zeros(self, other: Self) -> bool {
                (f64::from(self) == 0.) & (f64::from(other) == 0.)
            }

            fn ulp_distance(self, other: Self) -> $bits {
                // Magnitudes of IEEE 754 have the same order as their bits.
                let place = |value: Self| {
                    let magnitude = (value.to_bits() & (<$bits>::MAX >> 1)) as $signed;
                    if value.is_sign_negative() { -magnitude } else { magnitude }
                };
                place(self).abs_diff(place(other))
            }

            fn max_magnitude(elements: &[[u8; size_of::<$float>()]]) -> f64 {
                // The bits are compared as signed integers, which the compiler does several at a time.
                let magnitude = |bytes: &[u8; size_of::<$float>()]| {
                    (<$bits>::from_le_bytes(*bytes) & (<$bits>::MAX >> 1)) as $signed
                };
                let infinity = <$float>::INFINITY.to_bits() as $signed;
                let mut max =
                    elements.iter().map(magnitude).fold(0, |a, b| if b > a { b } else { a });
                if max >= infinity {
                    let finite = elements.iter().map(magnitude).filter(|&m| m < infinity);
                    max = finite.max().unwrap_or(0);
                }
                f64::from(<$float>::from_bits(max as $bits))
            }
        }
    };
}

float_element!(f16, u16, i16);
float_element!(bf16, u16, i16);
float_element!(f32, u32, i32);
float_element!(f64, u64, i64);

macro_rules! integer_element {
    ($($integer:ty)*) => { $(
        impl Element<{ size_of::<$integer>() }> for $integer {
            type Ulp = u8; // none

            fn read(bytes: [u8; size_of::<$integer>()]) -> Self {
                <$integer>::from_le_bytes(bytes)
            }

            fn decimal(self) -> String {
                self.to_string()
            }

            fn distance(self, other: Self) -> f64 {
                self.abs_diff(other) as f64
            }

            fn max_magnitude(elements: &[[u8; size_of::<$integer>()]]) -> f64 {
                let magnitude = |bytes: &[u8; size_of::<$integer>()]| Self::read(*bytes).abs_diff(0) as f64;
                elements.iter().map(magnitude).fold(0., f64::max)
            }
        }
    )* };
}

integer_element!(u8 i8 u16 i16 u32 i32 u64 i64);

macro_rules! narrow_element {
    ($name:ident, $dtype:literal) => {
        /// A float of 8 bits.
        #[derive(Clone, Copy)]
        pub(crate) struct $name(u8);

        impl $name {
            fn value(self) -> f64 {
                /// The values of all bytes.
                static VALUES: LazyLock<Vec<f64>> = LazyLock::new(|| {
                    let bytes = (0..=u8::MAX).collect::<Vec<_>>();
                    match PyTorchDtype::named($dtype).map(|dtype| (dtype.decode)(&bytes)) {
                        Some(Elements::Floats(values) | Elements::Exponents(values)) => values,
                        _ => unreachable!("PyTorch has this dtype"),
                    }
                });
                VALUES[usize::from(self.0)]
            }
        }

        impl Element<1> for $name {
            type Ulp = u8;

            fn read([bits]: [u8; 1]) -> Self {
                $name(bits)
            }

            fn decimal(self) -> String {
                format!("{:?}", self.value())
            }

            fn distance(self, other: Self) -> f64 {
                let abs = (self.value() - other.value()).abs();
                if abs < f64::INFINITY { abs } else { f64::INFINITY }
            }

            fn is_nan(self) -> bool {
                self.value().is_nan()
            }

            fn magnitude(self) -> f64 {
                self.value().abs()
            }

            fn are_zeros(self, other: Self) -> bool {
                (self.value() == 0.) & (other.value() == 0.)
            }

            fn ulp_distance(self, other: Self) -> u8 {
                // Magnitudes have the order of their bits. The byte of a type without a sign is all magnitude.
                let place = |of: Self| match of.value().is_sign_negative() {
                    true => -i16::from(of.0 & 0x7f),
                    false => i16::from(of.0),
                };
                place(self).abs_diff(place(other)).min(u8::MAX.into()) as u8
            }

            fn max_magnitude(elements: &[[u8; 1]]) -> f64 {
                let magnitudes = elements.iter().map(|bytes| Self::read(*bytes).magnitude());
                magnitudes.filter(|magnitude| magnitude.is_finite()).fold(0., f64::max)
            }
        }
    };
}

narrow_element!(E4M3, "torch.float8_e4m3fn");
narrow_element!(E5M2, "torch.float8_e5m2");
narrow_element!(E4M3Fnuz, "torch.float8_e4m3fnuz");
narrow_element!(E5M2Fnuz, "torch.float8_e5m2fnuz");
narrow_element!(E8M0, "torch.float8_e8m0fnu");

/// An element of which only the bits are compared, not the value: a byte of floats of fewer than 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Opaque;

impl<const N: usize> Element<N> for Opaque {
    type Ulp = u8; // none

    fn read(_: [u8; N]) -> Self {
        Opaque
    }

    fn decimal(self) -> String {
        String::new()
    }

    fn distance(self, _other: Self) -> f64 {
        f64::INFINITY
    }
}

/// Returns the bytes of an element in hexadecimal digits, the most significant first.
pub(crate) fn hex(little_endian: &[u8]) -> String {
    little_endian.iter().rev().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}
