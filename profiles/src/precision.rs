//! Numbers that models compute with, and which of them a device has units for.

use std::fmt;
use std::str::FromStr;

use crate::device::Device;

/// Numbers that a model computes with.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[allow(missing_docs)] // the field's own names
pub enum Precision {
    #[default]
    Fp32,
    Tf32,
    Fp16,
    Bf16,
    /// Weights and inputs of products in FP8.
    Fp8,
    Int8,
    /// Weights of four bits, computed with in FP16: AWQ, GPTQ.
    Int4,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 7] =
        [Self::Fp32, Self::Tf32, Self::Fp16, Self::Bf16, Self::Fp8, Self::Int8, Self::Int4];

    /// The name that files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// Bytes of one stored activation; TF32 is stored as FP32.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Fp32 | Self::Tf32 => 4,
            Self::Fp16 | Self::Bf16 | Self::Int4 => 2,
            Self::Fp8 | Self::Int8 => 1,
        }
    }

    /// Bytes of so many weights. Four bits come with a scale of 16 bits and a zero of 4 for every 128:
    /// 0.52 bytes (group size 128, as AWQ and GPTQ have it).
    #[must_use]
    pub fn weight_bytes(self, weights: u64) -> u64 {
        match self {
            Self::Int4 => (weights * 13).div_ceil(25),
            _ => weights * self.bytes(),
        }
    }

    /// What a serving engine computes with beside its quantised products: norms, attention, cache.
    #[must_use]
    pub fn activations(self) -> Self {
        match self {
            Self::Fp8 | Self::Int8 | Self::Int4 => Self::Fp16,
            other => other,
        }
    }

    /// Whether a device has units for it: FP32 and FP16 run everywhere, INT8 also on vector units that
    /// compute four at a time.
    #[must_use]
    pub fn supported_by(self, device: &Device) -> bool {
        let quadruple = device.compute.int8_tops > 1.5 * device.compute.fp32_tflops;
        match self {
            Self::Fp32 | Self::Fp16 => true,
            Self::Int8 => quadruple || self.on_matrix_units(device),
            other => other.on_matrix_units(device),
        }
    }

    /// The same, with a reason.
    ///
    /// # Errors
    /// The device has no units for it; the error says which precisions it has.
    pub fn check(self, device: &Device) -> Result<(), UnsupportedPrecision> {
        if self.supported_by(device) {
            return Ok(());
        }
        let has = Self::ALL.into_iter().filter(|p| p.supported_by(device)).map(Self::name);
        Err(UnsupportedPrecision {
            precision: self.name(),
            device: device.name.clone(),
            has: has.collect::<Vec<_>>().join(", "),
        })
    }

    /// The device's peak rate for matrix products, 10^12 operations per second. A precision that
    /// the device is slower at than FP32 is computed in FP32, as libraries do.
    #[must_use]
    pub fn peak_tops(self, device: &Device) -> f64 {
        let c = &device.compute;
        let rate = match self {
            Self::Fp32 => c.fp32_tflops,
            Self::Tf32 => c.tf32_tflops,
            Self::Fp16 => c.fp16_tflops,
            Self::Bf16 => c.bf16_tflops.unwrap_or(c.fp32_tflops),
            Self::Fp8 => c.fp8_tflops.unwrap_or(c.fp16_tflops),
            Self::Int8 => c.int8_tops,
            Self::Int4 => c.fp16_tflops,
        };
        rate.max(c.fp32_tflops)
    }

    /// Whether products in it run on matrix units: FP16 where there are any, TF32 and BF16 where the
    /// device knows BF16, INT8 where its rate is beyond that of vector units (four products per lane,
    /// DP4A).
    #[must_use]
    pub fn on_matrix_units(self, device: &Device) -> bool {
        let c = &device.compute;
        c.matrix_units
            && match self {
                Self::Fp32 => false,
                Self::Fp16 | Self::Int4 => true,
                Self::Fp8 => c.fp8_tflops.is_some(),
                Self::Tf32 | Self::Bf16 => c.bf16_tflops.is_some(),
                Self::Int8 => c.int8_tops > 4.5 * c.fp32_tflops,
            }
    }
}

impl Device {
    /// Numbers that models are served in on this device where nothing else is asked for: FP16 where
    /// there are matrix units for it, else FP32.
    #[must_use]
    pub fn default_precision(&self) -> Precision {
        if Precision::Fp16.on_matrix_units(self) { Precision::Fp16 } else { Precision::Fp32 }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A device has no units for a precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{device} has no units for {precision}; it has {has}")]
pub struct UnsupportedPrecision {
    precision: &'static str,
    device: String,
    has: String,
}

/// No such precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no precision `{0}`: fp32, tf32, fp16, bf16, fp8, int8 and int4 are possible")]
pub struct PrecisionError(String);

impl FromStr for Precision {
    type Err = PrecisionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |p: &Self| p.name().eq_ignore_ascii_case(text.trim());
        Self::ALL.into_iter().find(known).ok_or_else(|| PrecisionError(text.to_owned()))
    }
}
