//! `Real`: an `f64` whose transcendental functions are `libm`'s.
//!
//! The distributions of `rand_distr` take their mathematics from `num_traits::Float`. For a plain
//! `f64` that is the system's as soon as any crate of the program asks `num-traits` for `std`, as
//! histograms and charts do, and the system's `ln`, `exp` and `pow` round differently on CPUs with
//! and without fused multiply-add. Over this type the same distributions give the same bits
//! everywhere.

use std::num::FpCategory;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

use num_traits::{Float, FloatConst, Num, NumCast, One, ToPrimitive, Zero};

/// A real number; every function of it is `libm`'s.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Real(pub f64);

macro_rules! operators {
    ($($operator:ident $method:ident $sign:tt),*) => {$(
        impl $operator for Real {
            type Output = Self;
            #[inline]
            fn $method(self, other: Self) -> Self {
                Self(self.0 $sign other.0)
            }
        }
    )*};
}
operators!(Add add +, Sub sub -, Mul mul *, Div div /);

impl Rem for Real {
    type Output = Self;
    fn rem(self, other: Self) -> Self {
        Self(libm::fmod(self.0, other.0))
    }
}

impl Neg for Real {
    type Output = Self;
    #[inline]
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl Zero for Real {
    fn zero() -> Self {
        Self(0.0)
    }
    fn is_zero(&self) -> bool {
        self.0 == 0.0
    }
}

impl One for Real {
    fn one() -> Self {
        Self(1.0)
    }
}

impl Num for Real {
    type FromStrRadixErr = num_traits::ParseFloatError;
    fn from_str_radix(text: &str, radix: u32) -> Result<Self, Self::FromStrRadixErr> {
        f64::from_str_radix(text, radix).map(Self)
    }
}

impl ToPrimitive for Real {
    fn to_i64(&self) -> Option<i64> {
        self.0.to_i64()
    }
    fn to_u64(&self) -> Option<u64> {
        self.0.to_u64()
    }
    fn to_f64(&self) -> Option<f64> {
        Some(self.0)
    }
}

impl NumCast for Real {
    fn from<T: ToPrimitive>(value: T) -> Option<Self> {
        value.to_f64().map(Self)
    }
}

macro_rules! constants {
    ($($name:ident),*) => {
        impl FloatConst for Real {
            $(fn $name() -> Self {
                Self(<f64 as FloatConst>::$name())
            })*
        }
    };
}
constants!(
    E,
    FRAC_1_PI,
    FRAC_1_SQRT_2,
    FRAC_2_PI,
    FRAC_2_SQRT_PI,
    FRAC_PI_2,
    FRAC_PI_3,
    FRAC_PI_4,
    FRAC_PI_6,
    FRAC_PI_8,
    LN_10,
    LN_2,
    LOG10_E,
    LOG2_E,
    PI,
    SQRT_2
);

macro_rules! float {
    (values: $($value:ident),*; exact: $($exact:ident),*; tests: $($test:ident),*;
     functions: $($function:ident = $libm:ident),*; pairs: $($pair:ident = $of_two:ident),*) => {
        impl Float for Real {
            $(fn $value() -> Self {
                Self(<f64 as Float>::$value())
            })*
            $(#[inline]
            fn $exact(self) -> Self {
                Self(Float::$exact(self.0))
            })*
            $(#[inline]
            fn $test(self) -> bool {
                self.0.$test()
            })*
            $(#[inline]
            fn $function(self) -> Self {
                Self(libm::$libm(self.0))
            })*
            $(#[inline]
            fn $pair(self, other: Self) -> Self {
                Self(libm::$of_two(self.0, other.0))
            })*
            fn classify(self) -> FpCategory {
                self.0.classify()
            }
            fn mul_add(self, a: Self, b: Self) -> Self {
                Self(libm::fma(self.0, a.0, b.0))
            }
            fn powi(self, n: i32) -> Self {
                Self(libm::pow(self.0, <f64 as From<i32>>::from(n)))
            }
            fn log(self, base: Self) -> Self {
                Self(libm::log(self.0) / libm::log(base.0))
            }
            fn sin_cos(self) -> (Self, Self) {
                let (sin, cos) = libm::sincos(self.0);
                (Self(sin), Self(cos))
            }
            fn max(self, other: Self) -> Self {
                Self(self.0.max(other.0))
            }
            fn min(self, other: Self) -> Self {
                Self(self.0.min(other.0))
            }
            fn integer_decode(self) -> (u64, i16, i8) {
                self.0.integer_decode()
            }
        }
    };
}
float!(
    values: nan, infinity, neg_infinity, neg_zero, min_value, min_positive_value, max_value;
    // Exact or correctly rounded by IEEE 754 on every machine.
    exact: floor, ceil, round, trunc, fract, abs, signum, recip, sqrt;
    tests: is_nan, is_infinite, is_finite, is_normal, is_sign_positive, is_sign_negative;
    functions: exp = exp, exp2 = exp2, ln = log, log2 = log2, log10 = log10, cbrt = cbrt,
        sin = sin, cos = cos, tan = tan, asin = asin, acos = acos, atan = atan, exp_m1 = expm1,
        ln_1p = log1p, sinh = sinh, cosh = cosh, tanh = tanh, asinh = asinh, acosh = acosh,
        atanh = atanh;
    pairs: powf = pow, hypot = hypot, atan2 = atan2, abs_sub = fdim
);
