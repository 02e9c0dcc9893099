//! Which rows constants may be calibrated on.

/// Whether a shape belongs to the training half: the middle bits of a multiplicative hash are even. A
/// shape is a product's `m × n × k`, or the sequences, tokens and heads of a call of attention. Shapes
/// that are measured twice fall on the same side.
pub(crate) fn trains([m, n, k]: [u32; 3]) -> bool {
    let mixed = u64::from(m)
        .wrapping_mul(1_000_003)
        .wrapping_add(u64::from(n).wrapping_mul(10_007))
        .wrapping_add(u64::from(k).wrapping_mul(101));
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40).is_multiple_of(2)
}
